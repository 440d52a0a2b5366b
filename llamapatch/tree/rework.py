"""Drop and move: other patches, or another order, and what stands behind carried along."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import tomlkit

from llamapatch.config import Settings
from llamapatch.errors import ConflictError, UsageProblem
from llamapatch.series.load import META_NAME, SERIES_NAME, Patch, Series, load_series
from llamapatch.series.order import move_id, phase_of, remove_id
from llamapatch.series.select import in_order, with_dependents
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import build_chain, check_against_lock
from llamapatch.tree.journal import Point, read_journal
from llamapatch.tree.repin import without_ids
from llamapatch.tree.restack import Restack, planned_commit, restack, restacked_files
from llamapatch.tree.store import Report, Store, open_store, writing
from llamapatch.tree.worktree import PATCHED, Worktree, settle_all
from llamapatch.tree.write import current_point, recover, refuse_read_only, write_series


@dataclass(frozen=True)
class Reworked:
    """What a drop or a move did, or with `dry_run` would do. `behind` are the patches that were carried along; when one
    of them stops it, nothing was written. `kept` are overlay sources that stay although their patch goes, with why."""

    gone: tuple[str, ...]
    order: tuple[str, ...]
    behind: Restack
    files: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]
    applied: tuple[str, ...] | None
    dry_run: bool


def drop(
    settings: Settings,
    series: Series,
    patch_id: str,
    *,
    dependents: bool = False,
    keep_kernels: bool = False,
    accept: Collection[str] = (),
    dry_run: bool = False,
    report: Report | None = None,
) -> Reworked:
    """Take a patch out of the series: its folder, and the overlay sources that no other patch places.

    Raises `ConflictError` when others require it, unless `dependents`: then they go too.
    """
    series.get(patch_id)
    gone = with_dependents(series, [patch_id], among=series.ids)
    others = in_order(series, gone - {patch_id})
    if others and not dependents:
        names = ", ".join(f"`{i}`" for i in others)
        raise ConflictError(
            f"`{patch_id}` is required by {names}.",
            "Add `--with-dependents` to drop them too, or mend their `requires`.",
        )
    text = (settings.patches / SERIES_NAME).read_bytes().decode("utf-8")
    files: dict[str, bytes | None] = {}
    for name in gone:
        text = remove_id(text, name)
        files |= dict.fromkeys(_folder_files(settings, series.get(name)))
    files[f"patches/{SERIES_NAME}"] = text.encode()
    rest = [p for p in series.patches if p.id not in gone]
    for patch in rest:
        if set(patch.meta.conflicts) & gone:
            name = f"{_folder(settings, patch)}/{META_NAME}"
            files[name] = without_ids((series.read[name] or b"").decode("utf-8"), gone).encode()
    users = {o.source: p.id for p in rest for o in p.meta.overlay}
    kept: list[tuple[str, str]] = []
    for source in sorted({o.source for i in gone for o in series.get(i).meta.overlay}):
        if source in users:
            kept.append((source, f"`{users[source]}` places it too"))
        elif keep_kernels:
            kept.append((source, "as asked"))
        else:
            files[f"ggml_kernels/{source}"] = None
    order = [p.id for p in rest]
    reason = f"drop {' '.join(in_order(series, gone))}"
    return _rework(settings, series, order, files, reason, tuple(kept), accept, dry_run, report)


def move(
    settings: Settings,
    series: Series,
    patch_id: str,
    *,
    before: str = "",
    after: str = "",
    phase: str = "",
    phase_title: str = "",
    accept: Collection[str] = (),
    dry_run: bool = False,
    report: Report | None = None,
) -> Reworked:
    """Put a patch in another place of the series. `ConflictError` when it would stand before what it requires."""
    patch = series.get(patch_id)
    text = (settings.patches / SERIES_NAME).read_bytes().decode("utf-8")
    if not (before or after or phase):
        raise UsageProblem("no place is named.", "Give `--before ID`, `--after ID` or `--phase PHASE`.")
    text = move_id(text, patch_id, phase=phase, before=before, after=after, title=phase_title)
    order = [str(i) for p in tomlkit.parse(text).unwrap()["phase"] for i in p.get("patches", [])]
    _check_order(series, order)
    files: dict[str, bytes | None] = {f"patches/{SERIES_NAME}": text.encode()}
    home = phase_of(text, patch_id)
    if home != patch.meta.phase:
        old = _folder(settings, patch)
        for name in _folder_files(settings, patch):
            files[name] = None
            files[f"patches/{home}/{patch_id}{name.removeprefix(old)}"] = (settings.home / name).read_bytes()
        document = tomlkit.parse((patch.folder / META_NAME).read_bytes().decode("utf-8"))
        document["phase"] = home
        files[f"patches/{home}/{patch_id}/{META_NAME}"] = tomlkit.dumps(document).encode()
    where = f"before {before}" if before else f"after {after}" if after else f"to {phase}"
    return _rework(settings, series, order, files, f"move {patch_id} {where}", (), accept, dry_run, report)


def refuse_session(store: Store) -> None:
    """Raise `UsageProblem` while an edit is under way: its worktree stands in the middle of the series."""
    session = read_journal(store.git).session
    if session is not None:
        raise UsageProblem(
            f"an edit of `{session.patch}` is under way.",
            "Finish it with `llamapatch edit --done`, or end it with `llamapatch edit --abort`.",
        )


def _rework(
    settings: Settings,
    series: Series,
    order: list[str],
    files: dict[str, bytes | None],
    reason: str,
    kept: tuple[tuple[str, str], ...],
    accept: Collection[str],
    dry_run: bool,
    report: Report | None,
) -> Reworked:
    if not dry_run:
        refuse_read_only(settings)
    load_series(settings, files)  # lint first: a mistake here is worth more than a conflict
    with writing(settings):
        store = open_store(settings, series, report)
        recover(store)
        settle_all(store)
        refuse_session(store)
        chain = build_chain(store.git, series)
        check_against_lock(chain, series)
        chain.pool.store(store.git)
        blobs = Blobs(store.git, chain.pool, chain.contents)
        behind = restack(chain, blobs, order, accept=accept)
        gone = tuple(i for i in series.ids if i not in order)
        if behind.stops:
            return Reworked(gone, tuple(order), behind, (), kept, None, dry_run)
        files = restacked_files(settings, series, store, blobs, behind, files)
        now = current_point(store, read_journal(store.git))
        applied = [p.id for p in store.applied()]
        target = now.applied
        remaining: tuple[str, ...] | None = None
        if applied:
            Worktree(store, PATCHED).check()
            remaining = tuple(i for i in order if i in applied)
            target = planned_commit(settings, store, files, remaining)
        if not dry_run:
            write_series(settings, files, reason, read=series.read, after=Point(applied=target))
        return Reworked(gone, tuple(order), behind, tuple(sorted(files)), kept, remaining, dry_run)


def _check_order(series: Series, order: list[str]) -> None:
    place = {i: n for n, i in enumerate(order)}
    for patch in series.patches:
        for needed in patch.meta.requires:
            if place[needed] > place[patch.id]:
                raise ConflictError(
                    f"`{patch.id}` requires `{needed}`, which would come later.", "Choose a place that keeps the order."
                )


def _folder(settings: Settings, patch: Patch) -> str:
    return patch.folder.relative_to(settings.home).as_posix()


def _folder_files(settings: Settings, patch: Patch) -> list[str]:
    """Everything in a patch's folder, below the home."""
    inside = (p for p in patch.folder.rglob("*") if p.is_symlink() or not p.is_dir())
    return sorted(p.relative_to(settings.home).as_posix() for p in inside)
