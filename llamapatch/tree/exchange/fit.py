"""From a diff that someone else wrote to a change between contents that we hold.

Where the diff names the file it was made for (git's ``index`` line) and that content is at hand, it is applied to
exactly that content, and the change is then merged three ways like any other (`llamapatch.tree.thread`). Where it does
not, every hunk must stand at its line on its text in the tree as it is now. Nothing is ever applied with fuzz.
"""

from __future__ import annotations

from collections.abc import Sequence

from llamapatch.errors import ConflictError
from llamapatch.git import Git
from llamapatch.tree.binary import BinaryError, apply_delta
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import FileChange
from llamapatch.tree.diff import FileDiff, HunkError, apply_hunks
from llamapatch.tree.exchange.foreign import ForeignError, ForeignFile, strip
from llamapatch.tree.exchange.incoming import Incoming
from llamapatch.tree.objects import Entry, TreeState, hash_object

_PREFIXES = ("a", "b", "c", "i", "o", "w", "1", "2", "old", "new", "orig")


class MisfitError(ConflictError):
    """A diff that fits neither the tree as it is nor a content that it names."""


def changes_of(incoming: Incoming, state: TreeState, blobs: Blobs) -> tuple[FileChange, ...]:
    """The changes of `incoming`, to be carried over to `state`; contents that it needs are added to `blobs`.

    Raises `MisfitError` for a diff that fits nothing, `ForeignError` for one that contradicts itself.
    """
    if incoming.changes or not incoming.files:
        for data in incoming.contents.values():
            blobs.add(data)
        return incoming.changes
    count = incoming.strip if incoming.strip is not None else guess_strip(incoming.files, state)
    found: dict[str, FileChange] = {}
    for file in incoming.files:
        for change in _Fitter(file, count, state, blobs).changes():
            before = found.get(change.path)
            # A file that becomes a link stands twice: deleted, then added.
            found[change.path] = FileChange(change.path, before.pre if before else change.pre, change.post)
    return tuple(sorted(found.values(), key=lambda c: c.path.encode()))


def guess_strip(files: Sequence[ForeignFile], state: TreeState) -> int:
    """How many folders the names of a diff lose: the first of 1, 0, 2 with which all that it changes is there."""
    there = state.files()
    changed = [f.old for f in files if f.old is not None and not f.move]
    for count in (1, 0, 2):
        if changed and all("/".join(name.split("/")[count:]) in there for name in changed):
            return count
    names = [f.name for f in files if not f.move]
    if all(name.partition("/")[0] in _PREFIXES for name in names):
        return 1
    folders = {path.rpartition("/")[0] for path in there}
    return 0 if names and all(name.rpartition("/")[0] in folders for name in names) else 1


class _Fitter:
    def __init__(self, file: ForeignFile, count: int, state: TreeState, blobs: Blobs) -> None:
        self.file, self.state, self.blobs = file, state, blobs
        # Names of a rename have no prefix.
        drop = 0 if file.move else count
        self.old = strip(file.old, drop) if file.old is not None else None
        self.new = strip(file.new, drop) if file.new is not None else None

    def changes(self) -> list[FileChange]:
        file = self.file
        pre, named = self._pre_image()
        path = self.new or self.old or ""
        data = self._post_image(path, pre, named)
        if self.new is None:
            if data:
                raise MisfitError(f"{path} is deleted, but lines of it remain.", "The patch is damaged.")
            return [FileChange(path, pre, None)]
        mode = file.new_mode or (pre.mode if pre else "100644")
        post = Entry(mode, self.blobs.add(data))
        if file.move == "rename" and self.old != self.new:
            assert self.old is not None
            return [FileChange(self.old, pre, None), FileChange(self.new, None, post)]
        if file.move:
            return [FileChange(self.new, None, post)]
        return [FileChange(self.new, pre, post)]

    def _pre_image(self) -> tuple[Entry | None, bool]:
        """The file before, and whether it is known to be the one that the diff was made for."""
        file = self.file
        if self.old is None:
            return None, True
        now = self.state.get(self.old)
        if file.old_id:
            if now is not None and now.oid.startswith(file.old_id):
                return now, True
            oid = self._find(file.old_id)
            if oid is not None:
                return Entry(file.old_mode or (now.mode if now else "100644"), oid), True
        if now is None and self._only_adds():
            return None, True
        if now is None:
            raise MisfitError(f"{self.old} is not in the tree.", "Import what adds it first, or correct the path.")
        return now, False

    def _only_adds(self) -> bool:
        """A plain diff of a new file need not say /dev/null."""
        hunks = self.file.hunks
        return len(hunks) == 1 and hunks[0].old_start == 0 and not hunks[0].old and not self.file.old_id

    def _find(self, abbreviated: str) -> str | None:
        """The full id of a content at hand; None when there is none, or more than one."""
        known = {oid for oid in self.blobs.known if oid.startswith(abbreviated)}
        known |= {entry.oid for entry in self.state.files().values() if entry.oid.startswith(abbreviated)}
        if not known and self.blobs.git is not None:
            known = _in_repository(self.blobs.git, abbreviated)
        return known.pop() if len(known) == 1 else None

    def _post_image(self, path: str, pre: Entry | None, named: bool) -> bytes:
        file = self.file
        old = self.blobs.get(pre.oid) if pre is not None else b""
        if file.binary is not None:
            data = self._binary(path, old, named)
        else:
            try:
                data = apply_hunks(old, FileDiff(path, file.hunks), "the patch")
            except HunkError as error:
                why = "" if named else " (and the file that it was made for is not at hand)"
                raise MisfitError(f"{error.message.removesuffix('.')}{why}.", error.remedy) from error
        if named and file.new_id and self.new is not None and not hash_object("blob", data).startswith(file.new_id):
            raise ForeignError(
                f"{path}: the diff does not make the file that its `index` line states.", "It is damaged."
            )
        return data

    def _binary(self, path: str, old: bytes, named: bool) -> bytes:
        block = self.file.binary
        assert block is not None
        if not named:
            raise MisfitError(
                f"{path}: the binary file that the patch was made for is not at hand.", "Import what made it."
            )
        try:
            return apply_delta(old, block.data) if block.is_delta else block.data
        except BinaryError as error:
            raise ForeignError(f"{path}: {error}.", "The patch is damaged.") from error


def _in_repository(git: Git, abbreviated: str) -> set[str]:
    """The blobs of `git` whose id begins so."""
    answer = git.run("rev-parse", f"--disambiguate={abbreviated}").split()
    kinds = git.run("cat-file", "--batch-check", input="".join(f"{oid}\n" for oid in answer).encode()) if answer else ""
    return {line.split()[0] for line in kinds.splitlines() if line.split()[1:2] == ["blob"]}
