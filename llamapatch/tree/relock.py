"""Write ``series.lock`` and the pre-images, or say in what they are out of date."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llamapatch.config import Settings
from llamapatch.errors import MismatchError
from llamapatch.files import read_or_none
from llamapatch.series.load import Series
from llamapatch.series.lock import LOCK_NAME, format_lock, lock_chain, parse_lock
from llamapatch.series.model import Lock, LockedPatch
from llamapatch.tree.chain import build_chain, check_canonical, make_lock
from llamapatch.tree.preimages import BUNDLE_NAME, make_bundle
from llamapatch.tree.store import Report, Store, open_store, writing
from llamapatch.tree.write import refuse_read_only, write_series


@dataclass(frozen=True)
class Relock:
    """`changed` names the patches whose locked facts differ from those on disk before, `stale` the generated files that
    do (below the home); `written` says whether they were replaced."""

    path: Path
    lock: Lock
    changed: tuple[str, ...]
    stale: tuple[str, ...]
    current: bool
    written: bool

    @property
    def chain(self) -> str:
        return lock_chain(self.lock)


def relock(settings: Settings, series: Series, *, dry_run: bool = False, report: Report | None = None) -> Relock:
    """Apply the whole series on the pinned tree and record what comes out.

    Refuses (`UsageProblem`) a series that is not the project's own, and a diff that git would write differently.
    """
    if not dry_run:
        refuse_read_only(settings)
    with writing(settings):
        store = open_store(settings, series, report)
        files = generated_files(store, series)
        stale = {name: data for name, data in files.items() if read_or_none(settings.home / name) != data}
        if not dry_run:
            write_series(settings, stale, "lock", read=series.read)
    path = settings.patches / LOCK_NAME
    lock = parse_lock(files[f"patches/{LOCK_NAME}"], path)
    written = bool(stale) and not dry_run
    return Relock(path, lock, _changed(series.lock, lock), tuple(stale), current=not stale, written=written)


def generated_files(store: Store, series: Series) -> dict[str, bytes]:
    """What must be written together with a change that makes the series `series`, which may be a prospective one
    (`load_series` with changes): path below the home -> bytes. Only objects are stored.

    Raises `HunkError` and `ConflictError` for a patch that does not fit, `UsageProblem` for a diff that git would write
    differently.
    """
    chain = build_chain(store.git, series)
    chain.pool.store(store.git)
    check_canonical(store.git, chain)
    return {
        f"patches/{BUNDLE_NAME}": make_bundle(chain),
        f"patches/{LOCK_NAME}": format_lock(make_lock(chain, series)).encode(),
    }


def check_lock(settings: Settings, series: Series, report: Report | None = None) -> Relock:
    """Raise `MismatchError` unless ``series.lock`` is byte for byte what `relock` would write."""
    found = relock(settings, series, dry_run=True, report=report)
    if not found.current:
        old = lock_chain(series.lock) if series.lock else "nothing"
        names = ", ".join(found.changed) or "its form"
        if found.stale == (f"patches/{BUNDLE_NAME}",):
            raise MismatchError(
                f"{settings.patches / BUNDLE_NAME} is missing or not what the series makes.",
                "Run `llamapatch lock` and commit the file.",
            )
        raise MismatchError(
            f"{found.path} is out of date ({names}): it records chain {old}, the series makes {found.chain}.",
            "Run `llamapatch lock` and commit the file.",
        )
    return found


def _changed(old: Lock | None, new: Lock) -> tuple[str, ...]:
    """Patches that were added, removed or locked differently. The chain value alone does not count: it changes for
    every patch after the one that changed."""
    before = {p.id: _own(p) for p in old.patches} if old else {}
    after = {p.id: _own(p) for p in new.patches}
    names = [*after, *(i for i in before if i not in after)]
    return tuple(i for i in names if before.get(i) != after.get(i))


def _own(patch: LockedPatch) -> tuple[object, ...]:
    return (patch.diff, patch.overlay, patch.meta, patch.files, patch.hunks)
