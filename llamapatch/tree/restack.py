"""The series after a change in its middle: what stands behind is carried along, and everything is written at once.

Used by ``refresh``, ``drop`` and ``move``. Patches before the change keep their trees; those behind it are re-threaded
three ways (`llamapatch.tree.thread`). One that cannot be carried, or of which nothing would be left, is a conflict, and
then nothing is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from llamapatch.config import Settings
from llamapatch.errors import InternalError
from llamapatch.series.load import DIFF_NAME, Series, load_series
from llamapatch.series.lock import LOCK_NAME, parse_lock
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import Chain
from llamapatch.tree.plan import make_plan
from llamapatch.tree.relock import generated_files
from llamapatch.tree.store import Store
from llamapatch.tree.thread import Change, PatchOutcome, change_of, put_all, rethread, rewritten_diffs


@dataclass(frozen=True)
class Restack:
    """What becomes of the patches behind a change; `stops` are those that keep it from being made."""

    changes: tuple[Change, ...]
    outcomes: tuple[PatchOutcome, ...]

    @property
    def stops(self) -> tuple[PatchOutcome, ...]:
        return tuple(o for c, o in zip(self.changes, self.outcomes, strict=True) if not _kept(c, o))


def restack(
    chain: Chain,
    blobs: Blobs,
    order: Sequence[str],
    *,
    replaced: Mapping[str, Change] | None = None,
    accept: Collection[str] = (),
) -> Restack:
    """Carry the patches of `chain` in a new `order`, from the first place on that differs, with the changes of
    `replaced` in place of theirs. Patches that `order` does not name are left out."""
    replaced = replaced or {}
    links = {link.patch.id: link for link in chain.links}
    state = chain.base.copy()
    at = 0
    while at < len(order) and chain.links[at].patch.id == order[at] and order[at] not in replaced:
        put_all(state, chain.links[at].files)
        at += 1
    while at < len(order) and order[at] in replaced and chain.links[at].patch.id == order[at]:
        put_all(state, replaced[order[at]].files)  # made on this very tree
        at += 1
    changes = tuple(change_of(links[i]) for i in order[at:])
    return Restack(changes, tuple(rethread(changes, state, blobs, keep_going=True, accept=accept)))


def restacked_files(
    settings: Settings, series: Series, store: Store, blobs: Blobs, done: Restack, files: dict[str, bytes | None]
) -> dict[str, bytes | None]:
    """`files`, which are the change itself, and what follows from it: every diff that reads differently, lock and
    pre-images. The folders of patches are looked up as `files` leaves them."""
    blobs.pool.store(store.git)
    pairs = list(zip(done.changes, done.outcomes, strict=True))
    folders = {p.id: p.folder.relative_to(settings.home).as_posix() for p in load_series(settings, files).patches}
    files = dict(files)
    for (change, outcome), diff in zip(pairs, rewritten_diffs(store.git, pairs), strict=True):
        if diff != series.get(outcome.id).diff:
            files[f"{folders[outcome.id]}/{DIFF_NAME}"] = diff or (None if change.overlay else b"")
    files |= generated_files(store, load_series(settings, files))
    lock = parse_lock(files[f"patches/{LOCK_NAME}"] or b"", settings.patches / LOCK_NAME)
    trees = {p.id: p.tree for p in lock.patches}
    wrong = [o.id for o in done.outcomes if trees.get(o.id) != o.after]
    if wrong:
        raise InternalError(f"the new series makes another tree than the merge did, from `{wrong[0]}` on.")
    return files


def planned_commit(settings: Settings, store: Store, files: Mapping[str, bytes | None], ids: Collection[str]) -> str:
    """The commit of the patches `ids` in the series as `files` will leave it; its objects are stored."""
    planned = load_series(settings, files)
    plan = make_plan(store.git, planned, [i for i in planned.ids if i in ids])
    plan.pool.store(store.git)
    return plan.commit


def _kept(change: Change, outcome: PatchOutcome) -> bool:
    """Whether a patch survives. One that was empty before may stay so; one that becomes empty is lost work."""
    return outcome.carried and (outcome.before != outcome.after or not change.files)
