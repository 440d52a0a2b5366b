"""What is in the series, as plain rows: for `list` and `show`, whatever they render to."""

from __future__ import annotations

from dataclasses import dataclass

from llamapatch.series.load import Patch, Series
from llamapatch.series.lock import meta_hash, overlay_hashes, sha256
from llamapatch.series.model import LockedPatch


@dataclass(frozen=True)
class Row:
    """One patch in one line. `switch` is the environment variable that turns it on, empty when there is none."""

    phase: str
    id: str
    title: str
    effect: str
    switch: str
    applied: bool


@dataclass(frozen=True)
class Detail:
    """Everything about one patch. `locked` is None when ``series.lock`` does not know it or was written for other
    content; `required_by` are the patches that name it."""

    patch: Patch
    diff_hash: str
    meta_hash: str
    overlay: dict[str, str]
    required_by: tuple[str, ...]
    locked: LockedPatch | None


def rows(series: Series, applied: tuple[str, ...] = ()) -> list[Row]:
    """A row for each patch, in series order."""
    return [
        Row(
            phase=p.meta.phase,
            id=p.id,
            title=p.meta.title,
            effect=p.meta.effect.effect_class,
            switch=p.meta.switch.env if p.meta.switch else "",
            applied=p.id in applied,
        )
        for p in series.patches
    ]


def detail(series: Series, patch_id: str) -> Detail:
    """The detail of one patch; `UsageProblem` for an unknown id."""
    patch = series.get(patch_id)
    diff, meta, overlay = sha256(patch.diff), meta_hash(patch.meta), overlay_hashes(patch)
    entries = series.lock.patches if series.lock else []
    locked = next((e for e in entries if e.id == patch_id), None)
    if locked is not None and (locked.diff, locked.meta, locked.overlay) != (diff, meta, overlay):
        locked = None
    return Detail(
        patch=patch,
        diff_hash=diff,
        meta_hash=meta,
        overlay=overlay,
        required_by=tuple(p.id for p in series.patches if patch_id in p.meta.requires),
        locked=locked,
    )
