"""The one way to change a project: files of the series and the applied state together, all or nothing.

``refs/llamapatch/journal`` decides (docs/decisions/series-write-protocol.md):

1. contents and the journal entry are stored as objects;
2. ``.llamapatch/writing`` names that entry: an intent;
3. every new file is written in full beside its place: a full disk or a read-only folder shows here;
4. the journal's ref is moved to the entry: the decision;
5. files are renamed into place or removed, the applied worktree moves, the intent goes.

Killed before step 4, the next verb takes the staged files away; after it, the next verb goes through step 5 again.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llamapatch.config import Settings
from llamapatch.errors import DirtyError, LlamapatchError, UsageProblem
from llamapatch.files import current_umask, write_atomically
from llamapatch.series.model import check_tree_path
from llamapatch.tree.journal import JOURNAL_REF, Content, FileSwap, Journal, Point, Record, read_journal
from llamapatch.tree.objects import ObjectPool, hash_object
from llamapatch.tree.store import APPLIED_REF, Store, open_project_store, writing
from llamapatch.tree.worktree import PATCHED, Worktree, settle_all

# What may be written below the home.
ROOTS = ("patches", "ggml_kernels")
_SHOWN = 8


@dataclass(frozen=True)
class Written:
    """What was done: the journal's entry, and how many files of the applied worktree were written or removed."""

    entry: Record
    moved: int


def write_series(
    settings: Settings,
    files: Mapping[str, bytes | None],
    reason: str,
    *,
    read: Mapping[str, bytes | None] | None = None,
    after: Point | None = None,
) -> Written | None:
    """Make each path of `files` (below ``settings.home``; under ``patches/`` or ``ggml_kernels/``) hold its bytes, or
    be gone (None), and the applied state `after` (None: as it is); all or nothing, even when killed.

    `reason` begins with the verb; it is what ``log`` shows. `read` is what the caller's decision rests on, such as
    ``Series.read``: path -> bytes, None for a file that was not there. Returns None when nothing had to change.

    Raises `DirtyError` when a file of `read` has changed since or an edit in the worktree would be lost, `UsageProblem`
    for a read-only series, a path that leads out, a link or a folder in the way; then nothing was changed.
    """
    with writing(settings):
        if files:
            refuse_read_only(settings)
        store = open_project_store(settings)
        recover(store)
        _compare(settings, read or {})
        pool = ObjectPool()
        swaps: dict[str, FileSwap] = {}
        for name, data in sorted(files.items()):
            before = _content(_place(settings, name))
            new = None
            if data is not None:
                new = Content(mode=before.mode if before else "100644", oid=pool.add("blob", data))
            if new != before:
                if before is not None:
                    pool.add("blob", (settings.home / name).read_bytes())
                swaps[name] = FileSwap(before=before, after=new)
        journal = read_journal(store.git)
        now = current_point(store, journal)
        after = after or now
        if not swaps and after == now:
            return None
        return commit(store, journal, journal.next(reason, swaps, now, after), pool)


def refuse_read_only(settings: Settings) -> None:
    """Raise `UsageProblem` for the series that came with the package."""
    if settings.home != settings.root:
        raise UsageProblem(
            f"the series in use is the one that came with llamapatch ({settings.patches}); it is read-only here.",
            "Run `llamapatch init DIR` for a copy of your own, or work in the folder that holds `patches/`.",
        )


def current_point(store: Store, journal: Journal) -> Point:
    """What is applied now."""
    return Point(applied=store.git.ref(APPLIED_REF), session=journal.session)


def commit(store: Store, journal: Journal, entry: Record, pool: ObjectPool) -> Written:
    """Append `entry` and carry it out. Call it under `writing`, after `recover`, on the journal as it is."""
    target = entry.after.applied
    if target is not None and target != entry.before.applied:
        settle_all(store)
        worktree = Worktree(store, PATCHED)
        worktree.refuse_in_use()
        worktree.refuse_loss(target)
    commit_id = journal.with_entry(pool, entry)
    pool.store(store.git)
    try:
        write_atomically(store.settings.intent, commit_id.encode())
        _stage(store, entry, pool)
        store.update_ref(JOURNAL_REF, commit_id, journal.commit, entry.reason)
        written = Written(entry, _carry_out(store, entry))
    except BaseException:
        # Decided or not, the ref knows; an error must not leave more behind than a kill.
        with suppress(LlamapatchError, OSError):
            recover(store)
        raise
    store.tidy()
    return written


def is_writing(settings: Settings) -> bool:
    """Whether a change was interrupted, or is being made this moment."""
    return settings.intent.is_file()


def recover_project(settings: Settings) -> None:
    """Finish or undo a change that was interrupted, so that the files of the series can be read."""
    if is_writing(settings):
        with writing(settings):
            recover(open_project_store(settings))


def recover(store: Store) -> None:
    """`recover_project`, for a caller that holds the lock. Raises `DirtyError` when a file was edited in between."""
    intent = store.settings.intent
    if not intent.is_file():
        return
    commit_id = intent.read_text(encoding="utf-8").strip()
    if not store.git.has_object(commit_id):  # the store was removed by hand, and what it held with it
        intent.unlink()
        return
    entry = read_journal(store.git, commit_id).last
    assert entry is not None  # an intent names a journal with an entry
    if store.git.ref(JOURNAL_REF) == commit_id:
        _carry_out(store, entry)
    else:
        for name in entry.files:
            _unstage(store.settings.home, name)
        intent.unlink()


def _stage(store: Store, entry: Record, pool: ObjectPool) -> None:
    missing = [s.after.oid for s in entry.files.values() if s.after and s.after.oid not in pool.objects]
    stored = store.git.read_blobs(missing) if missing else {}
    for name, swap in entry.files.items():
        if swap.after is not None:
            oid = swap.after.oid
            data = pool.objects[oid][1] if oid in pool.objects else stored[oid]
            _write_aside(_place(store.settings, name), swap.after, data)


def _write_aside(target: Path, content: Content, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(target)
    aside.unlink(missing_ok=True)
    aside.write_bytes(data)
    aside.chmod((0o777 if content.mode == "100755" else 0o666) & ~current_umask())


def _carry_out(store: Store, entry: Record) -> int:
    """What follows the decision; done again, it goes on where it stopped. Returns the number of worktree files."""
    home = store.settings.home
    todo: dict[str, FileSwap] = {}
    edited = []
    for name, swap in entry.files.items():
        now = _content(_place(store.settings, name))
        if now == swap.after:
            _unstage(home, name)
        elif now in (swap.before, None):
            todo[name] = swap
        else:
            edited.append(name)
    refuse_edited(home, edited, f"`{entry.reason}` was interrupted, and cannot be finished")
    again = [s.after.oid for n, s in todo.items() if s.after and _content(_aside(home / n)) != s.after]
    stored = store.git.read_blobs(again) if again else {}
    # New files before old ones go: a folder that is renamed is never empty, and nothing is ever without a place.
    for name, swap in sorted(todo.items(), key=lambda item: item[1].after is None):
        target = home / name
        if swap.after is None:
            target.unlink(missing_ok=True)
            _remove_empty(home, target.parent)
        else:
            if swap.after.oid in stored:
                _write_aside(target, swap.after, stored[swap.after.oid])
            _aside(target).replace(target)
    moved = 0
    if entry.after.applied is not None and entry.after.applied != entry.before.applied:
        settle_all(store)
        moved = Worktree(store, PATCHED).move(entry.after.applied, entry.reason, absorb=True)
    store.settings.intent.unlink(missing_ok=True)
    return moved


def refuse_edited(home: Path, names: list[str], what: str) -> None:
    """Raise `DirtyError` for files of the series that are not what the journal says."""
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise DirtyError(
            f"{what}: {', '.join(names[:_SHOWN])}{more} (in {home}) changed since, and not through llamapatch.",
            "Nothing was lost. Move these files away and run the command again.",
        )


def content_now(settings: Settings, name: str) -> Content | None:
    """What lies at a path of the series."""
    return _content(_place(settings, name))


def _compare(settings: Settings, read: Mapping[str, bytes | None]) -> None:
    changed = []
    for name, data in read.items():
        now = _content(settings.home / name)
        if (now.oid if now else None) != (hash_object("blob", data) if data is not None else None):
            changed.append(name)
    if changed:
        raise DirtyError(
            f"{', '.join(sorted(changed)[:_SHOWN])} changed while the command was at work; nothing was written.",
            "Run the command again.",
        )


def _place(settings: Settings, name: str) -> Path:
    """The file that `name` stands for; `UsageProblem` when writing it would change something else."""
    try:
        check_tree_path(name)
        inside = name.startswith(tuple(f"{root}/" for root in ROOTS))
    except ValueError:
        inside = False
    if not inside:
        raise UsageProblem(f"`{name}` is no path below {' or '.join(ROOTS)} of {settings.home}.", "Correct the path.")
    target = settings.home / name
    for path in _upwards(settings.home, target):
        if path.is_symlink() and (path == target or not path.resolve().is_relative_to(settings.home.resolve())):
            raise UsageProblem(
                f"{path} is a symbolic link; llamapatch does not write through it.", "Put a real file or folder there."
            )
        if path != target and path.exists() and not path.is_dir():
            raise UsageProblem(f"{path} is a file; nothing can lie below it.", "Move it away.")
    if target.exists() and not target.is_file():
        raise UsageProblem(f"{target} is no regular file.", "Move it away.")
    return target


def _upwards(home: Path, target: Path) -> Iterator[Path]:
    while target != home:
        yield target
        target = target.parent


def _content(path: Path) -> Content | None:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    mode = "100755" if path.stat().st_mode & stat.S_IXUSR else "100644"
    return Content(mode=mode, oid=hash_object("blob", data))


def _aside(target: Path) -> Path:
    """Where a new file waits. The name is always the same, so that whoever finishes or undoes the change finds it."""
    return target.with_name(f".{target.name}.llamapatch")


def _unstage(home: Path, name: str) -> None:
    target = home / name
    with suppress(FileNotFoundError, NotADirectoryError):
        _aside(target).unlink()
    _remove_empty(home, target.parent)


def _remove_empty(home: Path, folder: Path) -> None:
    """Remove the folders that a file has left empty, up to the roots."""
    while home not in (folder.parent, folder):
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = folder.parent
