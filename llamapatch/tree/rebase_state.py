"""A rebase that stopped: ``refs/llamapatch/rebase`` points to a commit that holds all there is to know.

Its tree has ``state.json``, the new upstream's tree as ``onto``, and every file that a person made as ``made/<id>``, so
that git keeps the objects. The series on disk is untouched until the rebase is accepted, and the whole calculation is
made anew from here at each step: there is nothing else that could be half done.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from llamapatch.errors import UsageProblem
from llamapatch.series.model import Source
from llamapatch.tree.chain import BASE_EPOCH
from llamapatch.tree.objects import IDENTITY, Entry, ObjectPool, TreeState
from llamapatch.tree.store import REF, Store
from llamapatch.tree.thread import Decision

REBASE_REF = f"{REF}/rebase"
# The worktree that shows the patch a rebase stopped at.
PARKED = "rebase"


@dataclass(frozen=True)
class RebaseState:
    """`chain` is the series that is being rebased, `stopped` the patch that it waits at and `parked` the commit that
    the parked worktree shows for it (empty: it is still to be made)."""

    spec: str
    version: str
    tree: str
    sources: tuple[Source, ...]
    chain: str
    keep_going: bool = False
    accepted: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    decisions: dict[str, Decision] = field(default_factory=dict)
    stopped: str = ""
    parked: str = ""

    def with_decision(self, patch_id: str, decision: Decision) -> RebaseState:
        return replace(self, decisions={**self.decisions, patch_id: decision}, stopped="", parked="")


def read_rebase(store: Store) -> RebaseState | None:
    """The rebase that is under way, or None."""
    if store.git.ref(REBASE_REF) is None:
        return None
    raw = store.git.read_file(REBASE_REF, "state.json")
    if raw is None:
        raise UsageProblem("the state of the rebase is damaged.", "Run `llamapatch rebase --abort`.")
    data = json.loads(raw)
    decisions = {
        name: Decision(one["before"], {p: Entry(*e) if e else None for p, e in one["files"].items()})
        for name, one in data.pop("decisions").items()
    }
    sources = tuple(Source.model_validate(entry) for entry in data.pop("sources"))
    accepted, skipped = tuple(data.pop("accepted")), tuple(data.pop("skipped"))
    return RebaseState(**data, sources=sources, accepted=accepted, skipped=skipped, decisions=decisions)


def write_rebase(store: Store, state: RebaseState | None, reason: str) -> None:
    """Make `state` the rebase that is under way, or end it; one ref decides."""
    old = store.git.ref(REBASE_REF)
    if state is None:
        store.update_ref(REBASE_REF, None, old, reason)
        return
    data = asdict(state) | {
        "sources": [source.model_dump(exclude_defaults=True) for source in state.sources],
        "decisions": {
            name: {"before": d.before, "files": {p: [e.mode, e.oid] if e else None for p, e in d.files.items()}}
            for name, d in state.decisions.items()
        },
    }
    pool = ObjectPool()
    tree = TreeState.empty()
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    tree.set("state.json", Entry("100644", pool.add("blob", text.encode())))
    tree.set("onto", Entry("040000", state.tree))
    for decision in state.decisions.values():
        for entry in decision.files.values():
            if entry is not None:
                tree.set(f"made/{entry.oid}", Entry("100644", entry.oid))
    commit = pool.commit(tree.write(pool), None, author=IDENTITY, epoch=BASE_EPOCH, message=reason + "\n")
    pool.store(store.git)
    store.update_ref(REBASE_REF, commit, old, reason)
