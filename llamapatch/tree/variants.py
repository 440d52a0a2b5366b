"""Named states of the tree that can be built and measured, each with a clean worktree of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from llamapatch.config import Settings
from llamapatch.errors import DirtyError, MismatchError, UsageProblem
from llamapatch.locks import hold
from llamapatch.series.load import Series
from llamapatch.series.select import Selection
from llamapatch.tree.plan import make_plan
from llamapatch.tree.store import APPLIED_REF, BASE_REF, Report, Store, existing_store, open_store, writing
from llamapatch.tree.worktree import PATCHED, Worktree, settle_all

BASE = "base"


@dataclass(frozen=True)
class Variant:
    """A state of the tree and where it is checked out.

    `name` is ``base``, ``patched``, a patch id or ``sel-<12 hex digits>``; `ids` what is applied in it; `commit` and
    `tree` its git ids; `path` a worktree that was clean a moment ago; `label` names it in reports and binaries:
    ``v0.5.0`` for the base, else ``v0.5.0+lp.<12 hex digits of the commit>``.
    """

    name: str
    ids: tuple[str, ...]
    commit: str
    tree: str
    path: Path
    label: str


def base_variant(settings: Settings, series: Series, report: Report | None = None) -> Variant:
    """The unpatched tree. Like its siblings it fetches and checks out what is missing, and raises `DirtyError` when
    its worktree holds edits."""
    with writing(settings):
        store = open_store(settings, series, report)
        settle_all(store)
        commit = store.git.ref(BASE_REF)
        assert commit is not None  # open_store wrote it
        return _show(store, series, BASE, (), commit)


def applied_variant(settings: Settings, series: Series, report: Report | None = None) -> Variant:
    """What the last ``apply`` left; `UsageProblem` when nothing is applied."""
    with writing(settings):
        store = open_store(settings, series, report)
        settle_all(store)
        applied = store.applied()
        if not applied:
            raise UsageProblem("nothing is applied.", "Run `llamapatch apply` first, or name a selection.")
        _check_fresh(store, series, tuple(p.id for p in applied), applied[-1].commit)
        return _show(store, series, PATCHED, tuple(p.id for p in applied), applied[-1].commit)


def selected_variant(settings: Settings, series: Series, selection: Selection, report: Report | None = None) -> Variant:
    """A selection, in a worktree of its own unless it is exactly what is applied; the applied state stays as it is."""
    with writing(settings):
        store = open_store(settings, series, report)
        settle_all(store)
        plan = make_plan(store.git, series, selection.ids)
        if plan.commit == store.git.ref(APPLIED_REF):
            return _show(store, series, PATCHED, plan.ids, plan.commit)
        plan.pool.store(store.git)
        name = selection.asked[0] if len(selection.asked) == 1 else f"sel-{plan.commit[:12]}"
        return _show(store, series, name, plan.ids, plan.commit)


@contextmanager
def in_use(settings: Settings, variant: Variant) -> Iterator[None]:
    """Keep the worktree of `variant` as it is: meanwhile whatever would move it is refused. `DirtyError` when it was
    moved since the variant was shown."""
    if variant.path.parent != settings.state / "trees":
        yield  # a tree of somebody's own, which nobody moves
        return
    with ExitStack() as held:
        with writing(settings):
            store = existing_store(settings)
            if store is not None:
                worktree = Worktree(store, variant.path.name)
                if worktree.is_moving() or worktree.commit() != variant.commit:
                    raise DirtyError(
                        f"{variant.path} was moved by another process meanwhile.", "Run the command again."
                    )
            folder = settings.state / "in-use" / variant.path.name
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{os.getpid()}-{secrets.token_hex(4)}.lock"
            held.enter_context(hold(path, 0, lambda _: f"{path} is taken.", ""))
            held.callback(path.unlink, missing_ok=True)
        yield


def label_of(series: Series, ids: tuple[str, ...], commit: str) -> str:
    """How a state is called in reports and compiled into the binaries."""
    return f"{series.pin.version}+lp.{commit[:12]}" if ids else series.pin.version


def _show(store: Store, series: Series, name: str, ids: tuple[str, ...], commit: str) -> Variant:
    worktree = Worktree(store, name)
    worktree.move(commit)
    tree = store.git.tree_of(commit)
    return Variant(name, ids, commit, tree, worktree.path, label_of(series, ids, commit))


def _check_fresh(store: Store, series: Series, ids: tuple[str, ...], commit: str) -> None:
    """What is applied must be what the series says now, or a report would name patches that were not measured."""
    if all(i in series.ids for i in ids) and make_plan(store.git, series, ids).commit == commit:
        return
    raise MismatchError(
        f"the series has changed since it was applied (commit {commit[:12]}).", "Run `llamapatch apply` again."
    )
