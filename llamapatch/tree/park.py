"""The parked worktree: where a patch that stopped a rebase is shown, and where a person settles it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from llamapatch.errors import ConflictError, UsageProblem
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import BASE_EPOCH
from llamapatch.tree.merge import BEGIN, END
from llamapatch.tree.objects import IDENTITY, Entry, ObjectPool, TreeState
from llamapatch.tree.rebase_state import PARKED
from llamapatch.tree.store import Store
from llamapatch.tree.thread import Decision, PatchOutcome, Status, put
from llamapatch.tree.worktree import Worktree, settle_all


def park(store: Store, stopped: PatchOutcome) -> tuple[Path, str]:
    """Check out what came of a patch, markers and all; returns the folder and the commit that it shows."""
    discard(store, PARKED)
    pool = ObjectPool()
    parent = pool.commit(stopped.before, None, author=IDENTITY, epoch=BASE_EPOCH, message=f"before {stopped.id}\n")
    commit = pool.commit(
        stopped.proposed, parent, author=IDENTITY, epoch=BASE_EPOCH, message=f"{stopped.id}: {stopped.status}\n"
    )
    pool.store(store.git)
    worktree = Worktree(store, PARKED)
    worktree.move(commit, f"park {stopped.id}")
    return worktree.path, commit


def discard(store: Store, name: str) -> None:
    """Remove a worktree and whatever was edited in it."""
    settle_all(store)
    worktree = Worktree(store, name)
    if worktree.path.is_dir():
        shutil.rmtree(worktree.path)
    store.update_ref(worktree.at_ref, None, store.git.ref(worktree.at_ref), f"discard {name}")


def is_edited(store: Store) -> bool:
    """Whether anything in the parked worktree differs from what was put there."""
    dirt = Worktree(store, PARKED).dirt()
    return bool(dirt.loses or dirt.deleted)


def read_decision(store: Store, stopped: PatchOutcome, blobs: Blobs, overlays: Mapping[str, str]) -> Decision:
    """What a person made of the patch in the parked worktree. `overlays` names the patch that owns each overlay file.

    Raises `ConflictError` when nothing was decided, `UsageProblem` for an edit that does not belong to the patch.
    """
    worktree = Worktree(store, PARKED)
    if worktree.commit() is None:
        raise UsageProblem(f"{worktree.path} is gone.", "Start anew: `llamapatch rebase --abort`.")
    dirt = worktree.dirt()
    edited = {path: worktree.on_disk(path) for path in dirt.loses} | dict.fromkeys(dirt.deleted)
    owned = [path for path in edited if path in overlays]
    if owned:
        raise UsageProblem(
            f"{owned[0]} is an overlay file of `{overlays[owned[0]]}`; its source lies in ggml_kernels/.",
            f"Undo that edit here, and change the source with `llamapatch edit {overlays[owned[0]]}` later.",
        )
    results: dict[str, Entry | None] = {}
    for file in stopped.files:
        if file.status is not Status.MISSING:
            results[file.to] = file.entry
    for path, data in edited.items():
        results[path] = Entry(data[0], blobs.add(data[1])) if data else None
    marked = [f.to for f in stopped.files if (e := results.get(f.to)) and _has_markers(blobs.get(e.oid))]
    if marked:
        raise ConflictError(
            f"{', '.join(str(worktree.path / path) for path in marked)} still has conflict markers.",
            "Decide each, then run `llamapatch rebase --continue`; or leave the patch out with `--skip`.",
        )
    if not edited:
        remedy = f"If it is right as it is, say `llamapatch rebase --continue --accept {stopped.id}`."
        if stopped.status not in (Status.RELOCATED, Status.ALREADY, Status.EMPTY):
            remedy = f"Make the change in {worktree.path}, or leave the patch out with `llamapatch rebase --skip`."
        raise ConflictError(f"`{stopped.id}` is {stopped.status}, and nothing was changed for it.", remedy)
    after = TreeState.read(store.git, stopped.before)
    for path, entry in results.items():
        put(after, path, entry)
    if after.write(ObjectPool()) == stopped.before:
        raise ConflictError(
            f"nothing of `{stopped.id}` is left: {worktree.path} is what it was before the patch.",
            "Leave the patch out with `llamapatch rebase --skip`.",
        )
    return Decision(stopped.before, results)


def _has_markers(data: bytes) -> bool:
    lines = data.split(b"\n")
    return any(line.startswith(BEGIN) for line in lines) and any(line.startswith(END) for line in lines)
