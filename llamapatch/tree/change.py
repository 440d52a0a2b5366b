"""Apply and roll back: from one applied state to another, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.series.load import Series
from llamapatch.series.select import Selection, expand, in_order, with_dependents
from llamapatch.tree.journal import Point, read_journal
from llamapatch.tree.objects import ObjectPool
from llamapatch.tree.plan import How, Plan, make_plan
from llamapatch.tree.store import (
    AppliedPatch,
    Report,
    Store,
    existing_store,
    open_store,
    reading_git,
    writing,
)
from llamapatch.tree.worktree import PATCHED, Worktree, settle_all
from llamapatch.tree.write import commit, current_point, recover


@dataclass(frozen=True)
class Outcome:
    """What a change did, or with `dry_run` would do. `files` counts those rewritten in the worktree."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    how: How
    commit: str
    tree: str
    path: Path
    files: int
    dry_run: bool

    @property
    def added(self) -> tuple[str, ...]:
        return tuple(i for i in self.after if i not in self.before)

    @property
    def removed(self) -> tuple[str, ...]:
        return tuple(i for i in self.before if i not in self.after)


def apply(
    settings: Settings,
    series: Series,
    selection: Selection,
    *,
    dry_run: bool = False,
    report: Report | None = None,
) -> Outcome:
    """Make the applied set exactly `selection`, whatever it was.

    Raises `MismatchError` when a hash is not what ``series.lock`` says, `ConflictError` when a subset cannot be
    merged, `DirtyError` when an edit would be lost or another process is at work. After any of them, and after a
    kill, the state is the old one or the new one.
    """
    return _change(settings, series, selection.ids, f"apply {' '.join(selection.ids)}", dry_run=dry_run, report=report)


@dataclass(frozen=True)
class Removal:
    """`asked` are the applied patches that the selectors name, `dependents` those that require them."""

    asked: tuple[str, ...]
    dependents: tuple[str, ...]
    rest: tuple[str, ...]


def plan_removal(settings: Settings, series: Series, selectors: Sequence[str]) -> Removal:
    """What a rollback of `selectors` (none: everything) takes away from the applied set."""
    store = existing_store(settings)
    applied = [p.id for p in store.applied()] if store else []
    if not selectors:
        return Removal(tuple(applied), (), ())
    asked = expand(series, selectors) & set(applied)
    unknown = [i for i in applied if i not in series.ids]
    if unknown:
        raise UsageProblem(
            f"applied `{unknown[0]}` is no longer in the series, so what requires it is unknown.",
            "Say what should remain with `llamapatch apply ...`, or roll back everything with `llamapatch rollback`.",
        )
    gone = with_dependents(series, asked, among=applied)
    return Removal(
        asked=in_order(series, asked),
        dependents=in_order(series, gone - asked),
        rest=in_order(series, set(applied) - gone),
    )


def rollback(
    settings: Settings, series: Series, removal: Removal, *, dry_run: bool = False, report: Report | None = None
) -> Outcome:
    """Take the patches of `removal` away; errors as for `apply`."""
    gone = " ".join(removal.asked + removal.dependents)
    return _change(settings, series, removal.rest, f"rollback {gone}", dry_run=dry_run, report=report)


def _change(
    settings: Settings,
    series: Series,
    ids: tuple[str, ...],
    reason: str,
    *,
    dry_run: bool,
    report: Report | None,
) -> Outcome:
    if dry_run:
        store = existing_store(settings)
        before = store.applied() if store else ()
        plan = make_plan(reading_git(settings, series.pin, report), series, ids)
        return _outcome(before, plan, settings.state / "trees" / PATCHED, 0, dry_run=True)
    with writing(settings):
        store = open_store(settings, series, report)
        settle_all(store)
        worktree = Worktree(store, PATCHED)
        worktree.check()
        before = store.applied()
        plan = make_plan(store.git, series, ids)
        plan.pool.store(store.git)
        # With nothing applied the ref points to the base: the folder stays, and files that no patch touches keep
        # their times for the next build.
        files = show(store, plan.commit, reason)
        return _outcome(before, plan, worktree.path, files, dry_run=False)


def show(store: Store, target: str, reason: str) -> int:
    """Make commit `target` the applied one, with an entry in the journal; an edit session ends. Returns the number of
    files written. Call it under `writing`, with a worktree that is clean."""
    recover(store)
    journal = read_journal(store.git)
    now, after = current_point(store, journal), Point(applied=target)
    moved = commit(store, journal, journal.next(reason, {}, now, after), ObjectPool()).moved if now != after else 0
    return moved or Worktree(store, PATCHED).move(target, reason)  # the folder may be gone, or a file in it


def _outcome(before: tuple[AppliedPatch, ...], plan: Plan, path: Path, files: int, *, dry_run: bool) -> Outcome:
    return Outcome(
        before=tuple(p.id for p in before),
        after=plan.ids,
        how=plan.how,
        commit=plan.commit,
        tree=plan.tree,
        path=path,
        files=files,
        dry_run=dry_run,
    )
