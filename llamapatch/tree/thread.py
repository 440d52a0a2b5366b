"""Re-threading: a series of changes carried onto a tree that they were not made for, patch by patch.

The one three-way merge of llamapatch (docs/decisions/re-threading.md). A change is what a patch made of each of its
files, pre-image to post-image. Where the pre-image stands unchanged the post-image is put in its place; anywhere else
the three versions are merged (`llamapatch.tree.merge`), never "applied". Used by ``apply`` for subsets, and by
``refresh``, ``drop``, ``move``, ``rebase`` and ``drift``.

Nothing is written: the caller stores the objects of the pool, or does not.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from llamapatch.git import Git
from llamapatch.tree.align import align
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import FileChange, Link
from llamapatch.tree.diff import diff_trees, format_diff, split_lines
from llamapatch.tree.merge import Fate, Merge, Resolver, merge
from llamapatch.tree.objects import Entry, TreeState

_LINK = "120000"


class Status(StrEnum):
    """What became of a patch, or of one of its files. Of the last four a patch is not carried."""

    EXACT = "exact"
    MERGED = "merged"
    RENAMED = "renamed"
    ALREADY = "already-upstream"
    EMPTY = "empty"
    RELOCATED = "relocated"
    CONFLICT = "conflict"
    MISSING = "missing-file"
    BLOCKED = "blocked"


STOPS = frozenset({Status.RELOCATED, Status.CONFLICT, Status.MISSING, Status.BLOCKED})


@dataclass(frozen=True)
class Change:
    """What a patch does, wherever it stands. `overlay` are the paths of its files that it places whole."""

    id: str
    files: tuple[FileChange, ...]
    requires: tuple[str, ...] = ()
    overlay: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """What a person made of a patch on the tree `before`: its files' entries, None where one is gone."""

    before: str
    files: Mapping[str, Entry | None]


@dataclass(frozen=True)
class FileOutcome:
    """One file. `to` is where the change went (another path when upstream moved the file), `entry` the result: of a
    conflict the file with markers, of a relocation what is proposed, None when there is no file."""

    path: str
    to: str
    status: Status
    entry: Entry | None
    merge: Merge | None = None
    why: str = ""


@dataclass(frozen=True)
class PatchOutcome:
    """One patch: its status and why, its files, and the trees before it and after it (equal when it is not carried).

    `proposed` is the tree with every file's result, markers and all. `blockers` are the patches that it waits for;
    `accepted` says that a relocation was agreed to, `decided` that a person made the result, `skipped` that a person
    left the patch out."""

    id: str
    status: Status
    files: tuple[FileOutcome, ...]
    before: str
    after: str
    proposed: str
    why: str = ""
    blockers: tuple[str, ...] = ()
    accepted: bool = False
    decided: bool = False
    skipped: bool = False

    @property
    def carried(self) -> bool:
        """Whether what follows stands on this patch."""
        return not self.skipped and (self.decided or self.accepted or self.status not in STOPS)

    @property
    def reused(self) -> int:
        """How many conflicts were settled by a recorded resolution."""
        return sum(p.fate is Fate.REUSED for f in self.files if f.merge for p in f.merge.places)


def change_of(link: Link) -> Change:
    """The change of one link of a chain."""
    patch = link.patch
    return Change(patch.id, link.files, tuple(patch.meta.requires), frozenset(patch.overlay))


def no_resolutions(patch_id: str, path: str) -> Resolver | None:
    """Nothing was ever resolved."""
    return None


def nowhere(change: FileChange) -> str | None:
    """No file was ever moved."""
    return None


def rethread(
    changes: Sequence[Change],
    state: TreeState,
    blobs: Blobs,
    *,
    keep_going: bool = False,
    accept: Container[str] = (),
    skip: Container[str] = (),
    decisions: Mapping[str, Decision] | None = None,
    resolutions: Callable[[str, str], Resolver | None] = no_resolutions,
    moved_to: Callable[[FileChange], str | None] = nowhere,
) -> list[PatchOutcome]:
    """Carry `changes` over to `state`, in order; `state` becomes the result.

    Ends after the first patch that is not carried, unless `keep_going`: then that patch is left out and the next one is
    tried, and those that require it or build on its lines are `blocked`. `accept` names patches whose relocation is
    agreed to, `skip` those to leave out whatever becomes of them, `decisions` what a person made of a patch,
    `resolutions` what was decided for single conflicts before, `moved_to` where a file that is gone may be now.
    """
    thread = _Thread(state, blobs, accept, skip, decisions or {}, resolutions, moved_to)
    blobs.fetch(entry.oid for c in changes for f in c.files for entry in (f.pre, f.post, state.get(f.path)) if entry)
    outcomes: list[PatchOutcome] = []
    for change in changes:
        outcomes.append(thread.carry(change))
        if not (outcomes[-1].carried or outcomes[-1].skipped or keep_going):
            break
    return outcomes


def rewritten_diffs(git: Git, carried: Sequence[tuple[Change, PatchOutcome]]) -> list[bytes]:
    """The canonical diff of each carried patch in its new place, overlay files left out, with one process; `git` must
    hold the trees. Of a patch that a person settled, every file counts."""
    pairs = [
        (o.before, o.after, () if o.decided else tuple({path for f in o.files for path in (f.path, f.to)}))
        for _, o in carried
    ]
    found = diff_trees(git, pairs)
    return [
        format_diff(diff for diff, _ in files if diff.path not in change.overlay)
        for (change, _), files in zip(carried, found, strict=True)
    ]


class _Thread:
    def __init__(
        self,
        state: TreeState,
        blobs: Blobs,
        accept: Container[str],
        skip: Container[str],
        decisions: Mapping[str, Decision],
        resolutions: Callable[[str, str], Resolver | None],
        moved_to: Callable[[FileChange], str | None],
    ) -> None:
        self.state, self.blobs = state, blobs
        self.accept, self.skip, self.decisions = accept, skip, decisions
        self.resolutions, self.moved_to = resolutions, moved_to
        self.start = state.copy()
        self.room = self.start
        self.left_out: dict[str, Change] = {}
        self.moves: dict[str, str] = {}

    def carry(self, change: Change) -> PatchOutcome:
        before = self.state.write(self.blobs.pool)
        needed = tuple(i for i in change.requires if i in self.left_out)
        if needed:
            self.left_out[change.id] = change
            why, skipped = f"requires {', '.join(needed)}", change.id in self.skip
            return PatchOutcome(
                change.id, Status.BLOCKED, (), before, before, before, why, blockers=needed, skipped=skipped
            )
        # A file may take the place of a folder that the same patch empties.
        self.room = _without(self.state, change)
        files = tuple(self._file(change, file) for file in change.files)
        outcome = replace(self._judge(change, files, before), skipped=change.id in self.skip)
        decision = self.decisions.get(change.id)
        if decision is not None and decision.before == before and not outcome.skipped:
            for path, entry in decision.files.items():
                self._put(self.state, path, entry)
            return replace(outcome, after=self.state.write(self.blobs.pool), decided=True)
        proposal = self.state.copy()
        # Deletions first, for the same reason.
        for file in sorted(files, key=lambda f: f.entry is not None):
            self._take(proposal, file)
        proposed = proposal.write(self.blobs.pool)
        outcome = replace(outcome, proposed=proposed, accepted=self._accepts(outcome))
        if not outcome.carried:
            self.left_out[change.id] = change
            return outcome
        for file in sorted(files, key=lambda f: f.entry is not None):
            self._take(self.state, file)
            if file.status is Status.RENAMED:
                self.moves[file.path] = file.to
        return replace(outcome, after=self.state.write(self.blobs.pool))

    def _accepts(self, outcome: PatchOutcome) -> bool:
        return outcome.status is Status.RELOCATED and outcome.id in self.accept

    def _take(self, state: TreeState, file: FileOutcome) -> None:
        if file.status is not Status.MISSING and state.get(file.to) != file.entry:
            self._put(state, file.to, file.entry)

    def _put(self, state: TreeState, path: str, entry: Entry | None) -> None:
        if entry is not None:
            self.blobs.keep(entry.oid)
        put(state, path, entry)

    def _judge(self, change: Change, files: tuple[FileOutcome, ...], before: str) -> PatchOutcome:
        statuses = [f.status for f in files]
        worst = next((s for s in (Status.MISSING, Status.CONFLICT, Status.RELOCATED) if s in statuses), None)
        status: Status
        if worst is not None:
            builds_on = self._builds_on(change, files)
            status = Status.BLOCKED if builds_on else worst
            why = f"builds on {', '.join(builds_on)}" if builds_on else "; ".join(_reasons(files, worst))
            return PatchOutcome(change.id, status, files, before, before, before, why, builds_on)
        if all(s in (Status.ALREADY, Status.EMPTY) for s in statuses):
            untouched = all(self.start.get(f.to) == self.state.get(f.to) for f in files)
            status = Status.ALREADY if files and untouched and Status.ALREADY in statuses else Status.EMPTY
            why = "" if untouched and files else "an earlier patch does all of it" if files else "it changes nothing"
            return PatchOutcome(change.id, status, files, before, before, before, why)
        if Status.RENAMED in statuses:
            moves = [f"{f.path} is now {f.to}" for f in files if f.status is Status.RENAMED]
            return PatchOutcome(change.id, Status.RENAMED, files, before, before, before, "; ".join(moves))
        status = Status.EXACT if set(statuses) == {Status.EXACT} else Status.MERGED
        return PatchOutcome(change.id, status, files, before, before, before, "; ".join(_remarks(files)))

    def _file(self, change: Change, file: FileChange) -> FileOutcome:
        path, pre, post = file.path, file.pre, file.post
        now = self.state.get(path)
        if pre == post:
            return FileOutcome(path, path, Status.EMPTY, now)
        if now == pre:
            if pre is None and not self.room.has_room(path):
                return FileOutcome(
                    path, path, Status.CONFLICT, None, why=f"adds {path}, where there is no room for a file"
                )
            return FileOutcome(path, path, Status.EXACT, post)
        if now == post:
            return FileOutcome(path, path, Status.ALREADY, now)
        if now is None:
            assert pre is not None  # else `now` equals it
            to = self.moves.get(path) or self.moved_to(file)
            there = self.state.get(to) if to else None
            if to is None or there is None:
                return FileOutcome(path, path, Status.MISSING, None, why=f"changes {path}, which is gone")
            if post is None:
                why = f"deletes {path}, which is now {to}"
                return FileOutcome(path, to, Status.CONFLICT, there, why=why)
            found = self._merge(change, path, to, pre, post, there)
            keeps = found.status in (Status.CONFLICT, Status.RELOCATED)
            return found if keeps else replace(found, status=Status.RENAMED)
        if pre is None:
            verb = "places" if path in change.overlay else "adds"
            return FileOutcome(path, path, Status.CONFLICT, now, why=f"{verb} {path}, which is already there")
        if post is None:
            return FileOutcome(path, path, Status.CONFLICT, now, why=f"deletes {path}, which has changed")
        return self._merge(change, path, path, pre, post, now)

    def _merge(self, change: Change, path: str, to: str, pre: Entry, post: Entry, now: Entry) -> FileOutcome:
        if now.mode not in (pre.mode, post.mode) and pre.mode != post.mode:
            return FileOutcome(path, to, Status.CONFLICT, now, why=f"changes the mode of {to}, which is {now.mode} now")
        mode = post.mode if post.mode != pre.mode else now.mode
        if post.oid in (now.oid, pre.oid) or now.oid == pre.oid:
            oid = post.oid if now.oid == pre.oid else now.oid
            same = Status.ALREADY if oid == now.oid and mode == now.mode else Status.MERGED
            return FileOutcome(path, to, same, Entry(mode, oid))
        base, ours, theirs = (self.blobs.get(entry.oid) for entry in (pre, post, now))
        if _LINK in (pre.mode, post.mode, now.mode) or any(is_binary(data) for data in (base, ours, theirs)):
            why = f"changes {to}, which is binary or a link and has changed"
            return FileOutcome(path, to, Status.CONFLICT, now, why=why)
        found = merge(base, ours, theirs, self.resolutions(change.id, path), change.id)
        entry = Entry(mode, self.blobs.add(found.data))
        if found.conflicts:
            status = Status.CONFLICT
        elif found.suspicious:
            status = Status.RELOCATED
        else:
            status = Status.ALREADY if entry == now else Status.MERGED
        return FileOutcome(path, to, status, entry, found)

    def _builds_on(self, change: Change, files: Sequence[FileOutcome]) -> tuple[str, ...]:
        """The patches left out whose lines, or files, the failing files of this one stand on."""
        stuck = {f.path for f in files if f.status in STOPS}
        found = []
        for other in self.left_out.values():
            theirs = {f.path: f for f in other.files}
            if any(f.path in stuck and f.path in theirs and self._touches(f, theirs[f.path]) for f in change.files):
                found.append(other.id)
        return tuple(found)

    def _touches(self, mine: FileChange, theirs: FileChange) -> bool:
        if theirs.post is None or theirs.pre is None or mine.pre is None or mine.post is None:
            return theirs.post == mine.pre
        if _LINK in (mine.pre.mode, theirs.pre.mode):
            return False
        before, after, pre, post = (
            split_lines(self.blobs.get(e.oid)) for e in (theirs.pre, theirs.post, mine.pre, mine.post)
        )
        way = align(after, pre).new
        made: set[int] = set()
        for edit in align(before, after).edits():
            lines = range(edit.j1 - 1, edit.j2 + 1) if edit.j1 == edit.j2 else range(edit.j1, edit.j2)
            made |= {way[j] for j in lines if 0 <= j < len(way) and way[j] >= 0}
        return any(i in made for e in align(pre, post).edits() for i in range(e.i1 - 1, e.i2 + 1))


def put(state: TreeState, path: str, entry: Entry | None) -> None:
    """Make `path` of a tree `entry`, or nothing."""
    if entry is not None:
        state.set(path, entry)
    elif state.get(path) is not None:
        state.remove(path)


def put_all(state: TreeState, files: Iterable[FileChange]) -> None:
    """Make the tree what it is after `files`; deletions first, since a file may take the place of a folder."""
    for change in sorted(files, key=lambda c: c.post is not None):
        put(state, change.path, change.post)


def _without(state: TreeState, change: Change) -> TreeState:
    """`state` without the files that `change` deletes as they are; `state` itself when there are none."""
    gone = [f.path for f in change.files if f.post is None and f.pre is not None and state.get(f.path) == f.pre]
    if not gone:
        return state
    emptied = state.copy()
    for path in gone:
        emptied.remove(path)
    return emptied


def is_binary(data: bytes) -> bool:
    """What git takes for binary: a NUL in the first 8000 bytes."""
    return b"\0" in data[:8000]


def _reasons(files: Sequence[FileOutcome], status: Status) -> list[str]:
    found: list[str] = []
    for file in files:
        if file.status is not status:
            continue
        if file.why:
            found.append(file.why)
        elif file.merge is not None:
            found += [f"{file.to}:{p.line_now}: {p.why}" for p in file.merge.suspicious]
            found += [
                f"{file.to}:{c.line_now}: both sides changed {f'`{c.function}`' if c.function else 'these lines'}"
                for c in file.merge.conflicts
            ]
    return found


def _remarks(files: Sequence[FileOutcome]) -> list[str]:
    return [f"{f.to}: {p.why}" for f in files if f.merge for p in f.merge.places if p.why and p.fate is Fate.PLACED]
