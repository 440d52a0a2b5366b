"""Prove that what is on disk is what the series says: the lock, every prefix tree, the store, the worktrees."""

from __future__ import annotations

from dataclasses import dataclass

from llamapatch.config import Settings
from llamapatch.errors import MismatchError, UsageProblem
from llamapatch.files import read_or_none
from llamapatch.git import GitError
from llamapatch.series.load import Series
from llamapatch.series.lock import lock_chain
from llamapatch.tree.chain import build_chain, check_against_lock, make_lock
from llamapatch.tree.plan import How, make_plan
from llamapatch.tree.preimages import BUNDLE_NAME, make_bundle
from llamapatch.tree.rebase_state import PARKED
from llamapatch.tree.store import APPLIED_REF, REF, Report, Store, open_store, writing
from llamapatch.tree.worktree import PATCHED, Worktree, settle_all


@dataclass(frozen=True)
class Verified:
    """What was proved: the tree after each patch of the series, what is applied and how, and the worktrees whose every
    file was read."""

    chain: str
    prefixes: tuple[tuple[str, str], ...]
    applied: tuple[str, ...]
    how: How | None
    worktrees: tuple[tuple[str, str], ...]


def verify(settings: Settings, series: Series, report: Report | None = None) -> Verified:
    """Check everything; the first contradiction is a `MismatchError` with both values.

    An interrupted move is finished first, as every other writing verb does.
    """
    with writing(settings):
        store = open_store(settings, series, report)
        settle_all(store)
        chain = build_chain(store.git, series)
        check_against_lock(chain, series)
        lock = make_lock(chain, series)
        if series.lock != lock:
            raise MismatchError(
                f"series.lock records chain {lock_chain(series.lock) if series.lock else 'nothing'}, "
                f"the series makes {lock_chain(lock)}.",
                "Run `llamapatch lock`.",
            )
        if read_or_none(settings.patches / BUNDLE_NAME) != make_bundle(chain):
            raise MismatchError(
                f"{settings.patches / BUNDLE_NAME} is missing or does not hold the files that the series was made on.",
                "Run `llamapatch lock`.",
            )
        applied = store.applied()
        ids = tuple(p.id for p in applied)
        how = _check_applied(store, series, ids) if store.git.ref(APPLIED_REF) else None
        checked = []
        for ref, commit in store.refs().items():
            if ref.startswith(f"{REF}/trees/") and ref != f"{REF}/trees/{PARKED}":  # a person is at work there
                checked.append(_check_worktree(Worktree(store, ref.removeprefix(f"{REF}/trees/")), commit))
        return Verified(
            chain=lock_chain(lock),
            prefixes=tuple((link.patch.id, link.tree) for link in chain.links),
            applied=ids,
            how=how,
            worktrees=tuple(c for c in checked if c is not None),
        )


def _check_applied(store: Store, series: Series, ids: tuple[str, ...]) -> How:
    tip = store.git.ref(APPLIED_REF)
    gone = [i for i in ids if i not in series.ids]
    if gone:
        raise UsageProblem(f"applied `{gone[0]}` is no longer in the series.", "Run `llamapatch apply` again.")
    plan = make_plan(store.git, series, ids)
    if plan.commit != tip:
        raise MismatchError(
            f"the applied state is commit {tip}, the series makes {plan.commit} of the same patches.",
            "If the series changed since, run `llamapatch apply` again.",
        )
    try:
        store.git.run("rev-list", "--objects", "--quiet", plan.commit)
    except GitError as error:
        raise MismatchError(
            f"{store.git.git_dir} lacks objects of the applied commit: {error.stderr.strip()}.",
            f"Remove {store.git.git_dir} and run `llamapatch apply` again.",
        ) from error
    return plan.how


def _check_worktree(worktree: Worktree, commit: str) -> tuple[str, str] | None:
    if not worktree.path.is_dir():
        return None  # removed by hand: made anew when it is needed
    applied = worktree.store.git.ref(APPLIED_REF)
    if worktree.name == PATCHED and commit != applied:
        raise MismatchError(
            f"{worktree.path} shows commit {commit}, applied is {applied}.",
            "Run `llamapatch apply` with your selection again.",
        )
    expected = worktree.store.git.tree_of(commit)
    found, wrong = worktree.content_tree(expected)
    if found != expected:
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise MismatchError(
            f"{worktree.path} has tree {found}, expected {expected}; these files differ: {', '.join(wrong[:8])}{more}.",
            "Move your edits away (or remove that folder) and run `llamapatch apply` with your selection again.",
        )
    return worktree.name, expected
