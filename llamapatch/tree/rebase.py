"""Rebase: the whole series carried onto another upstream, or nothing.

`try_onto` only computes: it needs the new tree and ``preimages.bundle``, not the old tree. `rebase` writes when every
patch went through: pin, ``change.patch`` files, lock and pre-images in one step. Where a patch stops, its attempt is
shown in a parked worktree, and the rebase waits for `proceed`, `skip` or `abort`; until then the series on disk is what
it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llamapatch.config import Settings
from llamapatch.errors import InternalError, MismatchError, UsageProblem
from llamapatch.files import read_or_none
from llamapatch.git import Git
from llamapatch.series.load import DIFF_NAME, Series, load_series
from llamapatch.series.lock import LOCK_NAME, lock_is_current, parse_lock, series_chain
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.objects import ObjectPool, TreeState
from llamapatch.tree.park import discard, is_edited, park, read_decision
from llamapatch.tree.preimages import BUNDLE_NAME, links_from, read_bundle
from llamapatch.tree.rebase_state import PARKED, RebaseState, read_rebase, write_rebase
from llamapatch.tree.relock import generated_files
from llamapatch.tree.renames import Renames
from llamapatch.tree.repin import repinned
from llamapatch.tree.resolutions import FOLDER, Resolutions, learn
from llamapatch.tree.store import Report, Store, copy_tree, existing_store, open_project_store, writing
from llamapatch.tree.thread import Change, PatchOutcome, Status, change_of, rethread, rewritten_diffs
from llamapatch.tree.write import write_series
from llamapatch.upstream.onto import Target
from llamapatch.upstream.store import Store as UpstreamStore

LEAVES = frozenset({Status.ALREADY, Status.EMPTY})


@dataclass(frozen=True)
class Attempt:
    """What became of each patch on another tree. `changes` are the patches' changes in order, `hunks` how many hunks
    each has, `start` the other tree; `outcomes` may end early, at the patch that stopped it."""

    target: Target
    changes: tuple[Change, ...]
    outcomes: tuple[PatchOutcome, ...]
    hunks: Mapping[str, int]
    start: TreeState
    blobs: Blobs
    accepted: tuple[str, ...] = ()

    @property
    def stop(self) -> PatchOutcome | None:
        """The first patch that needs a person: one that is not carried, or one that would leave the series."""
        return next((o for o in self.outcomes if self.needs_word(o)), None)

    def needs_word(self, outcome: PatchOutcome) -> bool:
        """Whether a patch waits for a person's decision."""
        if outcome.skipped or outcome.decided:
            return False
        return not outcome.carried or (outcome.status in LEAVES and outcome.id not in self.accepted)

    def can_accept(self, outcome: PatchOutcome) -> bool:
        """Whether ``--accept`` settles it."""
        return outcome.status in LEAVES or outcome.status is Status.RELOCATED

    @property
    def gone(self) -> tuple[str, ...]:
        """The patches that leave the series: skipped, or upstream's by now."""
        return tuple(o.id for o in self.outcomes if o.skipped or (o.status in LEAVES and not o.decided))


@dataclass(frozen=True)
class Rebased:
    """What a rebase did. `files` were written (with `dry_run`: nothing is listed), `parked` is the worktree where a
    patch waits; `learned` counts the resolutions that were recorded, `unlearned` names files whose edits went beyond
    the conflicts."""

    attempt: Attempt
    dry_run: bool
    files: tuple[str, ...] = ()
    parked: Path | None = None
    learned: int = 0
    unlearned: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        return self.attempt.stop is None


def try_onto(
    settings: Settings,
    series: Series,
    target: Target,
    *,
    keep_going: bool = True,
    accept: Sequence[str] = (),
    state: RebaseState | None = None,
    git: Git | None = None,
) -> Attempt:
    """Carry the series onto `target` in memory. Raises `MismatchError` when the lock or the pre-images are not current,
    `UsageProblem` for an unknown id in `accept`."""
    _check_ids(series, accept)
    if not lock_is_current(series):
        raise MismatchError(f"{settings.patches / 'series.lock'} is out of date.", "Run `llamapatch lock` first.")
    path = settings.patches / BUNDLE_NAME
    data = read_or_none(path)
    if data is None:
        raise MismatchError(f"{path} does not exist.", "Run `llamapatch lock`, which writes it.")
    links, contents = links_from(read_bundle(data, str(path)), series)
    changes = tuple(change_of(link) for link in links)
    git = git or Git(target.git_dir)
    blobs = Blobs(git, ObjectPool(), contents)
    renames = Renames(git, target.tree, _old_paths(settings, series), blobs)
    start = TreeState.read(git, target.tree)
    outcomes = rethread(
        changes,
        start.copy(),
        blobs,
        keep_going=keep_going,
        accept=(*accept, *(state.accepted if state else ())),
        skip=state.skipped if state else (),
        decisions=state.decisions if state else None,
        resolutions=Resolutions(series).resolver,
        moved_to=renames.moved_to,
    )
    hunks = {link.patch.id: len(link.hunks) for link in links}
    return Attempt(target, changes, tuple(outcomes), hunks, start, blobs, (*accept, *(state.accepted if state else ())))


def rebase(
    settings: Settings,
    series: Series,
    target: Target,
    *,
    keep_going: bool = False,
    accept: Sequence[str] = (),
    report: Report | None = None,
) -> Rebased:
    """Rebase the series onto `target`, or park it where it stops. Errors as for `try_onto`; `UsageProblem` when another
    rebase is under way or the series is not the project's own."""
    _check_writable(settings)
    _check_ids(series, accept)
    with writing(settings):
        store = open_project_store(settings)
        if read_rebase(store) is not None:
            raise UsageProblem(
                "a rebase is under way.", "Finish it with `llamapatch rebase --continue`, or end it with `--abort`."
            )
        state = RebaseState(
            spec=target.spec,
            version=target.version,
            tree=target.tree,
            sources=target.sources,
            chain=series_chain(series),
            keep_going=keep_going,
            accepted=tuple(accept),
        )
        _bring(store, target, report)
        return _go_on(settings, series, store, state, report)


def proceed(settings: Settings, series: Series, *, accept: Sequence[str] = (), report: Report | None = None) -> Rebased:
    """Take what the parked worktree holds for the patch that stopped, and go on.

    Raises `ConflictError` when nothing was decided there: markers remain, or nothing was changed.
    """
    with writing(settings):
        store, state = _under_way(settings, series)
        _check_ids(series, accept)
        state = replace(state, accepted=(*state.accepted, *accept))
        # An edit in the parked worktree says more than --accept, and must not be lost.
        if state.parked and (state.stopped not in state.accepted or is_edited(store)):
            attempt = _attempt(settings, series, store, state)
            stopped = next(o for o in attempt.outcomes if o.id == state.stopped)
            overlays = {path: p.id for p in series.patches for path in p.overlay}
            decision = read_decision(store, stopped, attempt.blobs, overlays)
            attempt.blobs.pool.store(store.git)
            state = state.with_decision(state.stopped, decision)
            write_rebase(store, state, f"rebase: decided {stopped.id}")
        return _go_on(settings, series, store, state, report)


def skip(settings: Settings, series: Series, report: Report | None = None) -> Rebased:
    """Leave the patch that stopped out of the rebased series, and go on."""
    with writing(settings):
        store, state = _under_way(settings, series)
        stopped = state.stopped or _stop_id(settings, series, store, state)
        state = replace(state, skipped=(*state.skipped, stopped), stopped="", parked="")
        write_rebase(store, state, f"rebase: skipped {stopped}")
        return _go_on(settings, series, store, state, report)


def abort(settings: Settings) -> RebaseState:
    """End the rebase; the series is as it was before it. Returns what was given up."""
    with writing(settings):
        store = existing_store(settings)
        state = read_rebase(store) if store else None
        if store is None or state is None:
            raise _none_under_way()
        write_rebase(store, None, "rebase: aborted")
        discard(store, PARKED)
        return state


def _go_on(settings: Settings, series: Series, store: Store, state: RebaseState, report: Report | None) -> Rebased:
    attempt = _attempt(settings, series, store, state)
    attempt.blobs.pool.store(store.git)
    stop = attempt.stop
    if stop is not None:
        state = replace(state, stopped=stop.id, parked="")
        write_rebase(store, state, f"rebase: stopped at {stop.id}")
        path, commit = park(store, stop)
        write_rebase(store, replace(state, parked=commit), f"rebase: parked {stop.id}")
        return Rebased(attempt, dry_run=False, parked=path)
    files, learned, unlearned = _files(settings, series, store, attempt, state)
    write_series(settings, files, f"rebase --onto {state.spec}", read=series.read)
    write_rebase(store, None, "rebase: done")
    discard(store, PARKED)
    return Rebased(attempt, dry_run=False, files=tuple(sorted(files)), learned=learned, unlearned=unlearned)


def _attempt(settings: Settings, series: Series, store: Store, state: RebaseState) -> Attempt:
    target = Target(state.spec, state.version, state.tree, store.git.git_dir, state.spec, state.sources)
    return try_onto(settings, series, target, keep_going=state.keep_going, state=state, git=store.git)


def _files(
    settings: Settings, series: Series, store: Store, attempt: Attempt, state: RebaseState
) -> tuple[dict[str, bytes | None], int, tuple[str, ...]]:
    """Everything that must be written for an attempt that went through."""
    files = repinned(settings, series, attempt.target.pin(series.pin), attempt.gone)
    learned, unlearned = 0, []
    staying = [
        (change, outcome)
        for change, outcome in zip(attempt.changes, attempt.outcomes, strict=True)
        if outcome.id not in attempt.gone
    ]
    for (_, outcome), diff in zip(staying, rewritten_diffs(store.git, staying), strict=True):
        patch = series.get(outcome.id)
        folder = patch.folder.relative_to(settings.home).as_posix()
        if diff != patch.diff:
            files[f"{folder}/{DIFF_NAME}"] = diff or None
        decision = state.decisions.get(outcome.id) if outcome.decided else None
        for file in outcome.files:
            if decision is None:
                break
            made = decision.files.get(file.to)
            if file.merge is None or not file.merge.conflicts or made is None:
                continue
            found = learn(file.path, file.merge, attempt.blobs.get(made.oid))
            files |= {f"{folder}/{FOLDER}/{name}": data for name, data in found.items()}
            learned += len(found)
            unlearned += [] if found else [file.to]
    new = load_series(settings, files)
    files |= generated_files(store, new)
    _check_trees(files, attempt, settings)
    return files, learned, tuple(unlearned)


def _check_trees(files: dict[str, bytes | None], attempt: Attempt, settings: Settings) -> None:
    """The series as it will be read makes, patch by patch, the trees that the merge made."""
    lock = parse_lock(files[f"patches/{LOCK_NAME}"] or b"", settings.patches / LOCK_NAME)
    made = [(o.id, o.after) for o in attempt.outcomes if o.id not in attempt.gone]
    read = [(p.id, p.tree) for p in lock.patches]
    if made != read:
        wrong = next((a[0] for a, b in zip(made, read, strict=False) if a != b), "the last patch")
        raise InternalError(f"the rebased series makes another tree than the merge did, from `{wrong}` on.")


def _check_ids(series: Series, ids: Sequence[str]) -> None:
    for patch_id in ids:
        series.get(patch_id)


def _check_writable(settings: Settings) -> None:
    if settings.home != settings.root:
        raise UsageProblem(
            f"the series in use is the one that came with llamapatch ({settings.patches}); it is read-only here.",
            "Run `llamapatch init DIR` for a copy of your own, or add --dry-run.",
        )


def _bring(store: Store, target: Target, report: Report | None) -> None:
    """Every object of the target's tree into the project's own store."""
    if not store.git.succeeds("rev-list", "--objects", "--quiet", target.tree):
        if report is not None:
            report(f"copying llama.cpp {target.version} into {store.git.git_dir}")
        copy_tree(target.git_dir, store.git, target.tree)


def _old_paths(settings: Settings, series: Series) -> frozenset[str] | None:
    """The files of the pinned tree, where it is still at hand."""
    store = existing_store(settings)
    places = ([store.git] if store else []) + [UpstreamStore(settings.cache).git]
    for git in places:
        if git.git_dir.is_dir() and git.has_object(series.pin.tree):
            return frozenset(file.path for file in git.tree_files(series.pin.tree))
    return None


def _under_way(settings: Settings, series: Series) -> tuple[Store, RebaseState]:
    """The rebase that is under way, of the series as it is now."""
    store = existing_store(settings)
    state = read_rebase(store) if store else None
    if store is None or state is None:
        raise _none_under_way()
    if series.pin.tree == state.tree and series_chain(series) != state.chain:
        # Killed after the series was written and before the rebase was ended.
        write_rebase(store, None, "rebase: done")
        discard(store, PARKED)
        raise UsageProblem("the rebase is already finished.", "See `llamapatch status`.")
    if series_chain(series) != state.chain:
        raise MismatchError(
            "the series has changed since the rebase began.", "Undo that, or end the rebase with `--abort`."
        )
    return store, state


def _stop_id(settings: Settings, series: Series, store: Store, state: RebaseState) -> str:
    stop = _attempt(settings, series, store, state).stop
    if stop is None:
        raise UsageProblem("no patch is stopped.", "Finish with `llamapatch rebase --continue`.")
    return stop.id


def _none_under_way() -> UsageProblem:
    return UsageProblem("no rebase is under way.", "Start one with `llamapatch rebase --onto ...`.")
