"""What a selection would become: the commits of an applied state, computed before anything is written.

A prefix of the series is `exact`: the same commits that ``series.lock`` proves. Any other subset is `merged`: each
patch's change between its two trees in the full series, merged three ways onto the patches that are there. The word
is kept everywhere, because a merge is a judgement and not a proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llamapatch.errors import ConflictError
from llamapatch.git import Git
from llamapatch.series.load import Patch, Series
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import Chain, build_chain, check_against_lock, patch_commit
from llamapatch.tree.merge import Conflict
from llamapatch.tree.objects import ObjectPool, TreeState
from llamapatch.tree.thread import STOPS, PatchOutcome, change_of, put_all, rethread

How = Literal["exact", "merged"]


@dataclass(frozen=True)
class Step:
    """One patch of a plan, with the tree and commit after it."""

    patch: Patch
    how: How
    tree: str
    commit: str


@dataclass(frozen=True)
class Plan:
    """An applied state. `pool` holds every object it needs beyond upstream's own."""

    base_tree: str
    base_commit: str
    steps: tuple[Step, ...]
    pool: ObjectPool

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(step.patch.id for step in self.steps)

    @property
    def commit(self) -> str:
        return self.steps[-1].commit if self.steps else self.base_commit

    @property
    def tree(self) -> str:
        return self.steps[-1].tree if self.steps else self.base_tree

    @property
    def how(self) -> How:
        return "merged" if any(step.how == "merged" for step in self.steps) else "exact"


def make_plan(git: Git, series: Series, ids: Sequence[str]) -> Plan:
    """Plan the patches `ids` (in series order) on the pinned tree, whose objects `git` must hold.

    The part of the series that is used is first checked against ``series.lock``. Raises `MismatchError` when they
    disagree and `ConflictError` when a subset cannot be merged.
    """
    count = max((series.ids.index(i) + 1 for i in ids), default=0)
    chain = build_chain(git, series, count)
    check_against_lock(chain, series)
    wanted = set(ids)
    blobs = Blobs(git, chain.pool, chain.contents)
    state: TreeState | None = None
    steps: list[Step] = []
    parent = chain.base_commit
    for number, link in enumerate(chain.links):
        if link.patch.id not in wanted:
            if state is None:
                state = state_at(chain, number)
            continue
        if state is None:
            steps.append(Step(link.patch, "exact", link.tree, link.commit))
        else:
            outcome = rethread([change_of(link)], state, blobs)[0]
            if not outcome.carried:
                raise _refusal(chain, link.patch, outcome)
            commit = patch_commit(chain.pool, link.patch, outcome.after, parent)
            steps.append(Step(link.patch, "merged", outcome.after, commit))
        parent = steps[-1].commit
    return Plan(chain.base_tree, chain.base_commit, tuple(steps), chain.pool)


def state_at(chain: Chain, count: int) -> TreeState:
    """The tree after the first `count` links, rebuilt from the base."""
    state = chain.base.copy()
    for link in chain.links[:count]:
        put_all(state, link.files)
    return state


def _makers(chain: Chain, paths: Sequence[str], patch: Patch) -> str:
    """The earlier patches that change one of `paths`, for a message."""
    names = []
    for link in chain.links:
        if link.patch.id == patch.id:
            break
        if any(change.path in paths for change in link.files):
            names.append(f"`{link.patch.id}`")
    return ", ".join(names) or "the patches before it"


def _refusal(chain: Chain, patch: Patch, outcome: PatchOutcome) -> ConflictError:
    """Why a patch cannot stand in a selection."""
    stuck = [f for f in outcome.files if f.status in STOPS]
    first = stuck[0]
    needed = _makers(chain, [f.path for f in stuck], patch)
    remedy = f"Select {needed} as well, or leave `{patch.id}` out."
    if first.merge is None:
        return ConflictError(f"`{patch.id}` {first.why}.", remedy)
    if not first.merge.conflicts:
        return ConflictError(f"`{patch.id}` without {needed} would land in a doubtful place: {outcome.why}.", remedy)
    shown = show_conflict(first.merge.conflicts[0], patch.id)
    return ConflictError(f"`{patch.id}` cannot be merged into {first.to} without {needed}:\n{shown}", remedy)


def show_conflict(conflict: Conflict, name: str, limit: int = 24, now: str = "now") -> str:
    """A conflict as indented text with git's markers, cut to `limit` lines; `name` and `now` label the two sides."""
    sides = ((f"<<<<<<< {now}", conflict.now), ("||||||| before", conflict.before), ("=======", conflict.patch))
    lines = [line for mark, side in sides for line in (mark, *(text.decode("utf-8", "replace") for text in side))]
    shown = [line.rstrip("\r\n") for line in (*lines, f">>>>>>> {name}")]
    if len(shown) > limit:
        shown = [*shown[: limit - 1], f"... ({len(shown) - limit + 1} more lines)"]
    return "\n".join("    " + line for line in shown)
