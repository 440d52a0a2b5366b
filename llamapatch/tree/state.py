"""What a project looks like now; reads only, takes no lock, fetches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llamapatch.config import Settings
from llamapatch.series.load import Series
from llamapatch.series.lock import lock_is_current, series_chain
from llamapatch.tree.journal import read_journal
from llamapatch.tree.rebase_state import read_rebase
from llamapatch.tree.store import Store, existing_store
from llamapatch.tree.worktree import PATCHED, Dirt, Worktree


@dataclass(frozen=True)
class State:
    """`how` is ``exact`` (a proven prefix of the series as it is now), ``merged`` (another subset), ``stale`` (the
    series changed since) or ``nothing``. `commit` is the applied tip, `dirt` what the worktree holds beyond it,
    `rebase` the rebase that is under way (empty: none)."""

    version: str
    tree: str
    series: Path
    packaged: bool
    chain: str
    lock: str
    applied: tuple[str, ...]
    how: str
    commit: str | None
    worktree: Path
    dirt: Dirt | None
    moving: bool
    editing: str | None
    rebase: str = ""


def read_state(settings: Settings, series: Series) -> State:
    """The state of the project at `settings.root`."""
    store = existing_store(settings)
    applied = store.applied() if store else ()
    worktree = Worktree(store, PATCHED) if store else None
    session = read_journal(store.git).session if store else None
    present = worktree is not None and worktree.commit() is not None and worktree.index.is_file()
    lock = "missing" if series.lock is None else "current" if lock_is_current(series) else "out of date"
    return State(
        version=series.pin.version,
        tree=series.pin.tree,
        series=settings.patches,
        packaged=settings.home != settings.root,
        chain=series_chain(series),
        lock=lock,
        applied=tuple(p.id for p in applied),
        how=_how(series, [(p.id, p.commit) for p in applied], lock),
        commit=applied[-1].commit if applied else None,
        worktree=settings.state / "trees" / PATCHED,
        dirt=worktree.dirt() if worktree is not None and present else None,
        moving=worktree is not None and worktree.is_moving(),
        rebase=_rebase(store),
        editing=session.patch if session else None,
    )


def _rebase(store: Store | None) -> str:
    state = read_rebase(store) if store is not None else None
    if state is None:
        return ""
    return f"onto {state.version}, stopped at {state.stopped}" if state.stopped else f"onto {state.version}"


def applied_ids(settings: Settings) -> tuple[str, ...]:
    """The ids of what is applied; empty when nothing is, or nothing was ever done here."""
    store = existing_store(settings)
    return tuple(p.id for p in store.applied()) if store else ()


def _how(series: Series, applied: list[tuple[str, str]], lock: str) -> str:
    """Judged by the lock alone: a prefix has exactly the locked commits. Whether a merge is still what the series
    would make takes the trees; ``verify`` does that."""
    if not applied:
        return "nothing"
    if lock != "current" or series.lock is None:
        return "stale"
    locked = [(p.id, p.commit) for p in series.lock.patches]
    if applied == locked[: len(applied)]:
        return "exact"
    ids = [i for i, _ in applied]
    return "stale" if ids == [i for i, _ in locked[: len(ids)]] else "merged"
