"""Edit a patch in a real tree: stop the applied worktree at it, and let what was changed there flow back.

``edit`` shows the tree as it is after the patch, every earlier one in place; ``refresh`` turns what differs from it
into the patch: overlay files go to ``ggml_kernels/``, the rest to ``change.patch``. Which edit is under way is part of
the journal, so ``undo`` knows it too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import tomlkit

from llamapatch.config import Settings
from llamapatch.errors import DirtyError, MismatchError, UsageProblem
from llamapatch.files import write_atomically
from llamapatch.series.load import DIFF_NAME, META_NAME, Patch, Series
from llamapatch.series.model import check_tree_path
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import FileChange, build_chain, check_against_lock
from llamapatch.tree.diff import canonical_diff, diff_trees, format_diff
from llamapatch.tree.journal import Point, Session, now, read_journal
from llamapatch.tree.objects import Entry, ObjectPool, TreeState
from llamapatch.tree.plan import make_plan, state_at
from llamapatch.tree.restack import Restack, planned_commit, restack, restacked_files
from llamapatch.tree.store import Report, Store, open_store, writing
from llamapatch.tree.thread import Change, put
from llamapatch.tree.worktree import PATCHED, Worktree, settle_all
from llamapatch.tree.write import commit, current_point, recover, refuse_read_only, write_series


@dataclass(frozen=True)
class Editing:
    """Where an edit stands, or with `dry_run` would: the patch, what is applied now, what ``--done`` brings back.
    `saved` is where ``--abort`` put edits that were not refreshed."""

    patch: str
    applied: tuple[str, ...]
    resume: tuple[str, ...]
    path: Path
    files: int
    dry_run: bool
    saved: Path | None = None


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did, or with `dry_run` would do: path in the tree -> where it goes (a source below
    ``ggml_kernels/``, or ``change.patch``), and the patches behind. When one of those stops it, nothing was written."""

    patch: str
    edits: dict[str, str]
    behind: Restack
    files: tuple[str, ...]
    dry_run: bool


def edit(
    settings: Settings, series: Series, patch_id: str, *, dry_run: bool = False, report: Report | None = None
) -> Editing:
    """Stop the applied worktree at a patch. Edits that are there already are kept if it stands at that patch; any other
    are `DirtyError`."""
    series.get(patch_id)
    if not dry_run:
        refuse_read_only(settings)
    ids = series.ids[: series.ids.index(patch_id) + 1]
    with writing(settings):
        store = _open(settings, series, report)
        journal = read_journal(store.git)
        at = current_point(store, journal)
        resume = at.session.resume if at.session else tuple(p.id for p in store.applied())
        plan = make_plan(store.git, series, ids)
        plan.pool.store(store.git)
        worktree = Worktree(store, PATCHED)
        if plan.commit != at.applied:
            worktree.check()
        moved = 0
        if not dry_run:
            after = Point(applied=plan.commit, session=Session(patch=patch_id, resume=resume))
            if after != at:
                moved = commit(store, journal, journal.next(f"edit {patch_id}", {}, at, after), ObjectPool()).moved
            if worktree.commit() is None:
                moved = worktree.move(plan.commit)
        return Editing(patch_id, ids, resume, worktree.path, moved, dry_run)


def finish(settings: Settings, series: Series, *, dry_run: bool = False, report: Report | None = None) -> Editing:
    """End the edit and apply what was applied before it. `DirtyError` for edits that were not refreshed."""
    with writing(settings):
        store = _open(settings, series, report)
        session = _session(store)
        worktree = Worktree(store, PATCHED)
        dirt = worktree.dirt()
        if dirt.loses or dirt.deleted:
            raise DirtyError(
                f"{worktree.path} has edits that are not in `{session.patch}` yet: "
                f"{', '.join(sorted((*dirt.loses, *dirt.deleted))[:8])}.",
                "Run `llamapatch refresh`, or give them up with `llamapatch edit --abort`.",
            )
        return _leave(settings, series, store, session, "edit --done", dry_run, None)


def abort(settings: Settings, series: Series, *, dry_run: bool = False, report: Report | None = None) -> Editing:
    """End the edit without what was not refreshed; that is saved as a diff first."""
    with writing(settings):
        store = _open(settings, series, report)
        session = _session(store)
        worktree = Worktree(store, PATCHED)
        dirt = worktree.dirt()
        at = worktree.commit()
        saved = None
        if at is not None and (dirt.loses or dirt.deleted) and not dry_run:
            worktree.refuse_in_use()
            pool = ObjectPool()
            state = TreeState.read(store.git, store.git.tree_of(at))
            for path in (*dirt.loses, *dirt.deleted):
                _take(worktree, path, state, Blobs(None, pool))
            tree = state.write(pool)
            pool.store(store.git)
            folder = settings.state / "aborted"
            folder.mkdir(exist_ok=True)
            saved = folder / f"{session.patch}-{now().replace(':', '')}.patch"
            write_atomically(saved, canonical_diff(store.git, store.git.tree_of(at), tree))
            worktree.give_up(dirt.loses)
        return _leave(settings, series, store, session, "edit --abort", dry_run, saved)


def refresh(
    settings: Settings,
    series: Series,
    *,
    overlay: Mapping[str, str] | None = None,
    diff: Collection[str] = (),
    accept: Collection[str] = (),
    dry_run: bool = False,
    report: Report | None = None,
) -> Refreshed:
    """Make the patch that is being edited what the worktree shows, and carry those behind it along.

    `overlay` says for new files which source of ``ggml_kernels/`` they become, `diff` which belong to ``change.patch``.
    Raises `UsageProblem` for an edit that is not this patch's, or whose place is not clear.
    """
    if not dry_run:
        refuse_read_only(settings)
    with writing(settings):
        store = _open(settings, series, report)
        session = _session(store)
        patch = series.get(session.patch)
        chain = build_chain(store.git, series)
        check_against_lock(chain, series)
        chain.pool.store(store.git)
        number = series.ids.index(patch.id)
        link = chain.links[number]
        worktree = Worktree(store, PATCHED)
        if worktree.commit() != link.commit:
            raise MismatchError(
                f"{worktree.path} does not show `{patch.id}` as the series has it now.",
                f"Run `llamapatch edit {patch.id}` again.",
            )
        blobs = Blobs(store.git, chain.pool, chain.contents)
        before, after = state_at(chain, number), state_at(chain, number + 1)
        dirt = worktree.dirt()
        edited = {path: after.get(path) for path in sorted((*dirt.loses, *dirt.deleted))}
        for path in sorted(edited, key=lambda p: p not in dirt.deleted):
            _take(worktree, path, after, blobs)
        placed = _Places(settings, series, patch, dict(overlay or {}), set(diff)).place(edited, after, blobs)
        old, new = before.write(blobs.pool), after.write(blobs.pool)
        paths = {*edited, *(f.path for f in link.files)}
        files = tuple(
            FileChange(p, before.get(p), after.get(p))
            for p in sorted(paths, key=lambda p: p.encode())
            if before.get(p) != after.get(p)
        )
        overlays = {*patch.overlay, *(p for p, to in placed.edits.items() if to != DIFF_NAME)}
        change = Change(patch.id, files, tuple(patch.meta.requires), frozenset(overlays))
        behind = restack(chain, blobs, series.ids, replaced={patch.id: change}, accept=accept)
        if behind.stops:
            return Refreshed(patch.id, placed.edits, behind, (), dry_run)
        blobs.pool.store(store.git)
        [made] = diff_trees(store.git, [(old, new, ())])
        own = format_diff(d for d, _ in made if d.path not in overlays)
        written = placed.files
        if own != patch.diff:
            written[f"{_folder(settings, patch)}/{DIFF_NAME}"] = own or (None if overlays else b"")
        written = restacked_files(settings, series, store, blobs, behind, written)
        at = current_point(store, read_journal(store.git))
        target = planned_commit(settings, store, written, series.ids[: number + 1])
        if edited and not dry_run:
            reason, goal = f"refresh {patch.id}", Point(applied=target, session=at.session)
            write_series(settings, written, reason, read=series.read, after=goal)
        return Refreshed(patch.id, placed.edits, behind, tuple(sorted(written)) if edited else (), dry_run)


@dataclass
class _Placed:
    edits: dict[str, str]
    files: dict[str, bytes | None]


@dataclass(frozen=True)
class _Places:
    """Decides where each edited file belongs."""

    settings: Settings
    series: Series
    patch: Patch
    overlay: dict[str, str]
    diff: set[str]

    def place(self, edited: Mapping[str, Entry | None], after: TreeState, blobs: Blobs) -> _Placed:
        """`edited` are the files with their entries before the edit, `after` the tree as it is edited."""
        owner = {path: p.id for p in self.series.patches for path in p.overlay}
        sources = {o.to: o.source for o in self.patch.meta.overlay}
        strangers = sorted({*self.overlay, *self.diff} - edited.keys())
        if strangers:
            raise UsageProblem(
                f"{strangers[0]} was not edited.", "Name paths of the tree, as `llamapatch status` does."
            )
        placed = _Placed({}, {})
        added: list[tuple[str, str]] = []
        for path, old in edited.items():
            entry = after.get(path)
            if path in owner and owner[path] != self.patch.id:
                raise UsageProblem(
                    f"{path} is an overlay file of `{owner[path]}`, not of `{self.patch.id}`.",
                    f"Undo that edit here, and make it with `llamapatch edit {owner[path]}`.",
                )
            if path in sources:
                placed.files |= self._source(path, sources[path], entry, blobs, placed)
            elif path in self.overlay:
                if old is not None:
                    raise UsageProblem(
                        f"{path} was there before; only a new file can become an overlay file.",
                        "Leave `--overlay` out.",
                    )
                source = self._free_source(self.overlay[path])
                placed.files |= self._source(path, source, entry, blobs, placed)
                added.append((source, path))
            else:
                if old is None and path not in self.diff:
                    self._refuse_ambiguous(path, sources)
                placed.edits[path] = DIFF_NAME
        if added:
            name = f"{_folder(self.settings, self.patch)}/{META_NAME}"
            placed.files[name] = _with_overlays((self.series.read[name] or b"").decode("utf-8"), added).encode()
        return placed

    def _source(
        self, path: str, source: str, entry: Entry | None, blobs: Blobs, placed: _Placed
    ) -> dict[str, bytes | None]:
        meta = self.patch.folder / META_NAME
        if entry is None:
            raise UsageProblem(
                f"{path} is an overlay file and was deleted.", f"Take its [[overlay]] out of {meta} instead."
            )
        if entry.mode != "100644":
            raise UsageProblem(
                f"{path} is an overlay file, and now a link or executable.",
                "An overlay file is a plain file: `chmod -x`.",
            )
        others = [p.id for p in self.series.patches for o in p.meta.overlay if o.source == source and o.to != path]
        if others:
            raise UsageProblem(
                f"{path} comes from ggml_kernels/{source}, which `{others[0]}` places too.",
                "Edit the source itself and run `llamapatch lock`.",
            )
        placed.edits[path] = f"ggml_kernels/{source}"
        return {f"ggml_kernels/{source}": blobs.get(entry.oid)}

    def _free_source(self, source: str) -> str:
        try:
            check_tree_path(source)
        except ValueError as error:
            raise UsageProblem(f"`{source}` is no path below ggml_kernels/.", "Correct `--overlay`.") from error
        if (self.settings.kernels / source).exists():
            raise UsageProblem(f"ggml_kernels/{source} is there already.", "Choose another source for `--overlay`.")
        return source

    def _refuse_ambiguous(self, path: str, sources: Mapping[str, str]) -> None:
        folders = {str(PurePosixPath(to).parent): source for to, source in sources.items()}
        near = next((f for f in map(str, PurePosixPath(path).parents) if f in folders), None)
        if near is not None and (near != "." or "/" not in path):
            guess = str(PurePosixPath(folders[near]).parent / PurePosixPath(path).name)
            raise UsageProblem(
                f"{path} is new, and beside overlay files of `{self.patch.id}`: it could belong to either place.",
                f"Say `--overlay {path}={guess}` or `--diff {path}`.",
            )


def _open(settings: Settings, series: Series, report: Report | None) -> Store:
    store = open_store(settings, series, report)
    recover(store)
    settle_all(store)
    return store


def _session(store: Store) -> Session:
    session = read_journal(store.git).session
    if session is None:
        raise UsageProblem("no edit is under way.", "Start one with `llamapatch edit ID`.")
    return session


def _leave(
    settings: Settings, series: Series, store: Store, session: Session, reason: str, dry_run: bool, saved: Path | None
) -> Editing:
    resume = tuple(i for i in series.ids if i in session.resume)
    plan = make_plan(store.git, series, resume)
    plan.pool.store(store.git)
    worktree = Worktree(store, PATCHED)
    moved = 0
    if not dry_run:
        journal = read_journal(store.git)
        at, after = current_point(store, journal), Point(applied=plan.commit)
        moved = commit(store, journal, journal.next(f"{reason} {session.patch}", {}, at, after), ObjectPool()).moved
        moved += worktree.move(plan.commit)  # where nothing had to move, what was deleted comes back all the same
    return Editing(session.patch, resume, resume, worktree.path, moved, dry_run, saved)


def _take(worktree: Worktree, path: str, state: TreeState, blobs: Blobs) -> None:
    found = worktree.on_disk(path)
    put(state, path, Entry(found[0], blobs.add(found[1])) if found else None)


def _folder(settings: Settings, patch: Patch) -> str:
    return patch.folder.relative_to(settings.home).as_posix()


def _with_overlays(text: str, added: list[tuple[str, str]]) -> str:
    """A ``patch.toml`` with more overlay files."""
    document = tomlkit.parse(text)
    tables = document.get("overlay")
    if tables is None:
        tables = tomlkit.aot()
    for source, to in added:
        item = tomlkit.table()
        item["from"], item["to"] = source, to
        tables.append(item)
    document["overlay"] = tables
    return tomlkit.dumps(document)
