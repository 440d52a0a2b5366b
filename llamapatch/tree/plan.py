"""What a selection would become: the commits of an applied state, computed before anything is written.

A prefix of the series is `exact`: the same commits that ``series.lock`` proves. Any other subset is `merged`: each
patch's change between its two trees in the full series, merged three ways onto the patches that are there. The word
is kept everywhere, because a merge is a judgement and not a proof.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llamapatch.errors import ConflictError
from llamapatch.git import Git, GitError
from llamapatch.series.load import Patch, Series
from llamapatch.tree.chain import Chain, FileChange, build_chain, check_against_lock, patch_commit
from llamapatch.tree.objects import Entry, ObjectPool, TreeState

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
    state: TreeState | None = None
    steps: list[Step] = []
    parent = chain.base_commit
    for number, link in enumerate(chain.links):
        if link.patch.id not in wanted:
            if state is None:
                state = _state_at(chain, number)
            continue
        if state is None:
            steps.append(Step(link.patch, "exact", link.tree, link.commit))
        else:
            for change in link.files:
                _merge(git, chain, state, change, link.patch)
            tree = state.write(chain.pool)
            steps.append(Step(link.patch, "merged", tree, patch_commit(chain.pool, link.patch, tree, parent)))
        parent = steps[-1].commit
    return Plan(chain.base_tree, chain.base_commit, tuple(steps), chain.pool)


def _state_at(chain: Chain, count: int) -> TreeState:
    """The tree after the first `count` links, rebuilt from the base."""
    state = chain.base.copy()
    for link in chain.links[:count]:
        for change in link.files:
            _put(state, change.path, change.post)
    return state


def _put(state: TreeState, path: str, entry: Entry | None) -> None:
    if entry is not None:
        state.set(path, entry)
    elif state.get(path) is not None:
        state.remove(path)


def _merge(git: Git, chain: Chain, state: TreeState, change: FileChange, patch: Patch) -> None:
    """Carry one file's change over to `state`."""
    path, pre, post = change.path, change.pre, change.post
    now = state.get(path)
    if now == pre:
        _put(state, path, post)
        return
    if now == post:
        return
    if now is None or pre is None or post is None:
        verb = "adds" if pre is None else "deletes" if post is None else "changes"
        needed = _makers(chain, path, patch)
        raise ConflictError(
            f"`{patch.id}` {verb} {path}, which this selection leaves in another state.",
            f"Select {needed} as well, or leave `{patch.id}` out.",
        )
    if now.mode not in (pre.mode, post.mode):
        raise ConflictError(f"`{patch.id}` and an earlier patch give {path} different modes.", "Leave one of them out.")
    merged = merge_file(git, chain.contents[now.oid], chain.contents[pre.oid], chain.contents[post.oid])
    if isinstance(merged, str):
        raise ConflictError(
            f"`{patch.id}` cannot be merged into {path} without {_makers(chain, path, patch)}:\n{merged}",
            f"Select them as well, or leave `{patch.id}` out.",
        )
    entry = Entry(post.mode if post.mode != pre.mode else now.mode, chain.pool.add("blob", merged))
    chain.contents[entry.oid] = merged
    state.set(path, entry)


def _makers(chain: Chain, path: str, patch: Patch) -> str:
    """The earlier patches that change `path`, for a message."""
    names = []
    for link in chain.links:
        if link.patch.id == patch.id:
            break
        if any(change.path == path for change in link.files):
            names.append(f"`{link.patch.id}`")
    return ", ".join(names) or "the patches before it"


def merge_file(git: Git, ours: bytes, base: bytes, theirs: bytes) -> bytes | str:
    """Three-way merge of one file's contents; on conflict the first conflicting passage, as text with markers."""
    with tempfile.TemporaryDirectory(prefix="llamapatch-merge-") as folder:
        names = ("selected", "before", "after")
        paths = [Path(folder) / name for name in names]
        for path, data in zip(paths, (ours, base, theirs), strict=True):
            path.write_bytes(data)
        labels = [word for name in names for word in ("-L", name)]
        try:
            git.run_bytes("merge-file", "--quiet", "--diff3", *labels, *map(str, paths))
        except GitError as error:
            # merge-file exits with the number of conflicts (at most 127); 255 is a failure such as a binary file.
            if not 0 < error.code < 128:
                raise ConflictError("the file is binary and cannot be merged.") from error
            return _first_conflict(paths[0].read_text(encoding="utf-8", errors="replace"))
        return paths[0].read_bytes()


def _first_conflict(text: str) -> str:
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("<<<<<<< "))
    stop = next((i for i in range(start, len(lines)) if lines[i].startswith(">>>>>>> ")), len(lines) - 1)
    shown = lines[start : stop + 1]
    if len(shown) > 24:
        shown = [*shown[:23], f"... ({len(shown) - 23} more lines)"]
    return "\n".join("    " + line for line in shown)
