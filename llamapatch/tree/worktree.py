"""Checkouts under ``.llamapatch/trees/<name>``: moved file by file, never losing an edit, safe to kill.

A worktree has no ``.git``: its index lies in ``.llamapatch/index/<name>`` and git is told about both
(docs/decisions/worktrees-without-git.md). A move rewrites only the files that differ between two commits, each by
writing beside it and renaming, so unchanged files keep their modification times and no file is ever half written.
Before a file is replaced its content must be one that the store knows for that path; anything else is the user's edit.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llamapatch.errors import DirtyError, MismatchError
from llamapatch.files import current_umask
from llamapatch.git import Git, GitError
from llamapatch.locks import holder
from llamapatch.tree.diff import leaves_tree
from llamapatch.tree.objects import ABSENT, Entry, ObjectPool, TreeState, hash_object
from llamapatch.tree.store import APPLIED_REF, REF, Store

# The worktree of the applied state.
PATCHED = "patched"

# Names that git gives executables' and links' modes.
_EXECUTABLE, _LINK = "100755", "120000"
_SHOWN = 8


@dataclass(frozen=True)
class Dirt:
    """What a worktree holds beyond its commit. Deleted files are no loss and are restored by the next move."""

    edited: tuple[str, ...]
    untracked: tuple[str, ...]
    deleted: tuple[str, ...]

    @property
    def loses(self) -> tuple[str, ...]:
        """Paths whose content exists nowhere else."""
        return self.edited + self.untracked


class Worktree:
    """One checkout of a store. Methods that write must be called under `llamapatch.tree.store.writing`."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.path = store.trees / name
        self.index = store.settings.state / "index" / name
        self.at_ref = f"{REF}/trees/{name}"
        self.moving_ref = f"{REF}/moving/{name}"
        # The ref whose change decides a move; ``moving`` alone says that one is under way.
        self.decides = APPLIED_REF if name == PATCHED else self.moving_ref

    @property
    def git(self) -> Git:
        return Git(self.store.git.git_dir, self.path)

    def commit(self) -> str | None:
        """The commit that the worktree shows, or None when there is no checkout."""
        return self.store.git.ref(self.at_ref) if self.path.is_dir() else None

    def is_moving(self) -> bool:
        """Whether a move was interrupted."""
        return self.store.git.ref(self.moving_ref) is not None

    def dirt(self) -> Dirt:
        """What differs from the index; a stat of each file, contents only where that is not enough."""
        if not self.path.is_dir():
            return Dirt((), (), ())
        changed = self._changed()
        if changed:
            _refresh(self.git, self.index)
            changed = self._changed()
        raw = self.git.run("ls-files", "-z", "--others", "--exclude-per-directory=.gitignore", index=self.index)
        untracked = tuple(path for path in raw.split("\0") if path)
        return Dirt(
            edited=tuple(sorted(p for p, gone in changed.items() if not gone)),
            untracked=untracked,
            deleted=tuple(sorted(p for p, gone in changed.items() if gone)),
        )

    def check(self) -> None:
        """Raise `DirtyError` when the folder is not ours, or holds something that a move could lose."""
        if not _exists(self.path):
            return
        if self.store.git.ref(self.at_ref) is None or not self.index.is_file():
            raise DirtyError(
                f"{self.path} was not made by llamapatch, or its record is gone.",
                "Move that folder away and run the command again; it is checked out anew.",
            )
        self._refuse(self.dirt().loses)

    def settle(self) -> None:
        """Finish a move that was interrupted, so that the worktree shows one commit again: the new one when the
        deciding ref had changed, else the old one."""
        if not self.is_moving():
            return
        target = self.store.git.ref(self.decides)
        at = self.store.git.ref(self.at_ref)
        if target is None:  # the first apply of all, killed before it decided anything
            self._end_move()
            return
        if not _exists(self.path):
            self._forget(at)
            self._check_out(target)
            return
        if at is None:
            # The folder appears by a rename after the index is in place: either it is whole, or it is not ours.
            if not self.index.is_file() or self._changed_after_refresh():
                raise DirtyError(f"{self.path} was not made by llamapatch.", "Move that folder away and try again.")
            self._finish(None, target)
            return
        if at == target:
            # Killed before the decision, or after everything was in place: edits that are here are not the move's.
            self._end_move()
            return
        self._rewrite(at, target)

    @property
    def users(self) -> Path:
        """Where those who need the files to stay as they are hold a lock each."""
        return self.store.settings.state / "in-use" / self.name

    def refuse_in_use(self) -> None:
        """Raise `DirtyError` while a build reads the files."""
        owner = holder(self.users)
        if owner is not None:
            raise DirtyError(
                f"a build of this tree is running, pid {owner.pid} ({owner}); {self.path} must stay as it is.",
                "Nothing was changed. Wait until it ends, or end it, and run the command again.",
            )

    def refuse_loss(self, target: str) -> None:
        """Raise `DirtyError` when going to commit `target` would lose something; edits that it holds are no loss."""
        at = self.commit()
        if at is None or not self.index.is_file():
            self.check()
        else:
            self._refuse(self._lost(_changes(self.store.git, at, target), self.dirt()))

    def move(self, target: str, reason: str = "", *, absorb: bool = False) -> int:
        """Show commit `target`; for the worktree of the applied state, make it the applied one.

        Returns the number of files written or removed (every file for a first checkout). Raises `DirtyError` before
        anything is changed when an edit would be lost or a build is running. With `absorb`, edits that are in `target`
        already are let in; without it, any edit is refused.
        """
        self.settle()
        if absorb:
            self.refuse_loss(target)
        else:
            self.check()
        at = self.commit()
        decided = self.store.git.ref(self.decides)
        if at == target and not self.dirt().deleted and (decided == target or self.decides == self.moving_ref):
            return 0
        self.refuse_in_use()
        if at is not None:
            _changes(self.store.git, at, target)  # a tree that cannot be shown must not be decided on
        if at is None:
            self._forget(self.store.git.ref(self.at_ref))  # the user removed the folder
        reason = reason or f"move {self.name}"
        # In this order: `moving` without a decision is undone by `settle`, a decision without it would be missed.
        self.store.update_ref(self.moving_ref, target, None, reason)
        if self.decides != self.moving_ref:
            self.store.update_ref(self.decides, target, decided, reason)
        return self._check_out(target) if at is None else self._rewrite(at, target)

    def give_up(self, paths: Iterable[str]) -> None:
        """Remove files that a person edited or added; the next move restores those of the commit."""
        for path in paths:
            _remove(self.path, path)

    def content_tree(self, expected: str) -> tuple[str, list[str]]:
        """The tree id of what really lies in the folder, and the paths that differ from tree `expected`. Every file is
        read; ignored files (``.gitignore``) do not count."""
        state = TreeState.read(self.store.git, expected)
        wrong: list[str] = []
        for path, entry in state.files().items():
            found = _on_disk(self.path / path)
            if found != entry:
                wrong.append(path)
                if found is None:
                    state.remove(path)
                else:
                    state.set(path, found)
        for path in self.dirt().untracked:
            found = _on_disk(self.path / path)
            if found is not None:
                wrong.append(path)
                state.set(path, found)
        return state.write(ObjectPool()), sorted(wrong)

    def on_disk(self, path: str) -> tuple[str, bytes] | None:
        """Mode and content of what lies at `path` now, or None."""
        where = self.path / path
        entry = _on_disk(where)
        if entry is None:
            return None
        return entry.mode, os.fsencode(where.readlink()) if entry.mode == _LINK else where.read_bytes()

    def _check_out(self, target: str) -> int:
        """A first checkout: made aside and renamed into place."""
        trees = self.store.trees
        trees.mkdir(parents=True, exist_ok=True)
        self.index.parent.mkdir(parents=True, exist_ok=True)
        for left_over in trees.glob(f".new-{self.name}-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=trees, prefix=f".new-{self.name}-"))
        new_index = self._spare_index()
        git = Git(self.store.git.git_dir, folder)
        try:
            git.run("read-tree", target, index=new_index)
            git.run("checkout-index", "--all", "--quiet", "--index", index=new_index)
            count = len(git.run_bytes("ls-files", "-z", index=new_index).split(b"\0")) - 1
            folder.chmod(0o777 & ~current_umask())
            new_index.replace(self.index)
            if self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()
            folder.rename(self.path)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            new_index.unlink(missing_ok=True)
            raise
        self._finish(None, target)
        return count

    def _rewrite(self, at: str, target: str) -> int:
        """Bring the folder from `at`, or from anywhere between `at` and `target`, to `target`."""
        changes = _changes(self.store.git, at, target)
        dirt = self.dirt()
        restore = set(dirt.deleted) - changes.keys()
        self._refuse(self._lost(changes, dirt))
        targets: dict[str, Entry | None] = {path: new for path, (_, new) in changes.items()}
        if restore:
            whole = TreeState.read(self.store.git, target)
            targets |= {path: whole.get(path) for path in restore}
        todo = {path: new for path, new in targets.items() if _on_disk(self.path / path) != new}
        blobs = self.store.git.read_blobs(sorted({new.oid for new in todo.values() if new})) if todo else {}
        for path in [p for p, new in todo.items() if new is None]:
            _remove(self.path, path)
        for path, new in todo.items():
            if new is not None:
                _write(self.path / path, blobs[new.oid], new.mode, aside=self.index.parent / f".{self.name}.file")
        new_index = self._spare_index()
        try:
            shutil.copyfile(self.index, new_index)
            # Only the entries that change are replaced: the index keeps what it knows about all other files on disk.
            lines = [
                f"{new.mode} {new.oid}\t{path}\0" if new else f"0 {ABSENT}\t{path}\0"
                for path, (_, new) in changes.items()
            ]
            script = "".join(lines).encode("utf-8", "surrogateescape")
            self.git.run("update-index", "-z", "--index-info", index=new_index, input=script)
            _refresh(self.git, new_index)
            new_index.replace(self.index)
        finally:
            new_index.unlink(missing_ok=True)
        self._finish(at, target)
        return len(todo)

    def _lost(self, changes: Mapping[str, tuple[Entry | None, Entry | None]], dirt: Dirt) -> list[str]:
        """What would be lost if each path of `changes` became its new entry."""
        lost = [p for p in dirt.loses if p not in changes]
        for path, (old, new) in changes.items():
            if _on_disk(self.path / path) not in (None, old, new):
                lost.append(path)
        return lost

    def _finish(self, at: str | None, target: str) -> None:
        self.store.update_ref(self.at_ref, target, at, f"moved {self.name}")
        self._end_move()

    def _end_move(self) -> None:
        self.store.update_ref(self.moving_ref, None, self.store.git.ref(self.moving_ref), f"moved {self.name}")

    def _forget(self, at: str | None) -> None:
        self.store.update_ref(self.at_ref, None, at, f"forget {self.name}")

    def _spare_index(self) -> Path:
        """A name for a new index beside the real one. git's own index.lock is never used: one left by a killed
        process would block the next."""
        for left_over in self.index.parent.glob(f".{self.name}.*"):
            left_over.unlink(missing_ok=True)
        return self.index.parent / f".{self.name}.{os.getpid()}"

    def _changed(self) -> dict[str, bool]:
        """Path -> whether it is gone, for every tracked file that does not look like the index says."""
        fields = self.git.run("diff-files", "-z", "--name-status", index=self.index).split("\0")
        return {path: status == "D" for status, path in zip(fields[::2], fields[1::2], strict=False)}

    def _changed_after_refresh(self) -> dict[str, bool]:
        _refresh(self.git, self.index)
        return self._changed()

    def _refuse(self, paths: Iterable[str]) -> None:
        found = sorted(paths)
        if found:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise DirtyError(
                f"{self.path} has files that are not part of the series: {', '.join(found[:_SHOWN])}{more}.",
                "Nothing was changed. Move these files away (a tracked one is restored) and run the command again.",
            )


def settle_all(store: Store) -> None:
    """Finish every interrupted move of the project."""
    prefix = f"{REF}/moving/"
    for ref in store.refs():
        if ref.startswith(prefix):
            Worktree(store, ref[len(prefix) :]).settle()


def _changes(git: Git, old: str, new: str) -> dict[str, tuple[Entry | None, Entry | None]]:
    """Path -> (entry in `old`, entry in `new`) for every file that differs."""
    fields = git.run("diff-tree", "-r", "-z", "--no-renames", f"{old}^{{tree}}", f"{new}^{{tree}}").split("\0")
    found: dict[str, tuple[Entry | None, Entry | None]] = {}
    for meta, path in zip(fields[::2], fields[1::2], strict=False):
        if leaves_tree(path):
            raise MismatchError(f"tree {new} holds the path `{path}`, which leads out of it.", "Use another upstream.")
        old_mode, new_mode, old_oid, new_oid, _ = meta.lstrip(":").split()
        found[path] = (
            Entry(old_mode, old_oid) if old_oid != ABSENT else None,
            Entry(new_mode, new_oid) if new_oid != ABSENT else None,
        )
    return found


def _refresh(git: Git, index: Path) -> None:
    """Bring the index's knowledge of the files on disk up to date."""
    try:
        git.run("update-index", "-q", "--refresh", index=index)
    except GitError as error:
        if error.code != 1:  # 1: some file differs, which is for the caller to find out
            raise


def _exists(path: Path) -> bool:
    """Whether something is in the way at `path`; an empty folder is not."""
    return path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir()))


def _on_disk(path: Path) -> Entry | None:
    """What lies at `path`, as a tree would record it; a folder counts as content that no tree records."""
    if path.is_symlink():
        return Entry(_LINK, hash_object("blob", os.fsencode(path.readlink())))
    try:
        data = path.read_bytes()
        mode = _EXECUTABLE if path.stat().st_mode & 0o100 else "100644"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        return Entry("040000", "") if any(p.is_file() or p.is_symlink() for p in path.rglob("*")) else None
    return Entry(mode, hash_object("blob", data))


def _write(target: Path, data: bytes, mode: str, aside: Path) -> None:
    """Put one file in place in one step; it is made at `aside`, outside the tree, so that a killed process leaves
    nothing in it."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)  # only empty folders can be here: `_on_disk` reports any other as content
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.unlink(missing_ok=True)
    if mode == _LINK:
        aside.symlink_to(os.fsdecode(data))
    else:
        aside.write_bytes(data)
        aside.chmod((0o777 if mode == _EXECUTABLE else 0o666) & ~current_umask())
    aside.replace(target)


def _remove(root: Path, path: str) -> None:
    """Remove one file and the folders that it leaves empty."""
    target = root / path
    target.unlink(missing_ok=True)
    for folder in target.parents:
        if folder == root:
            return
        try:
            folder.rmdir()
        except OSError:
            return
