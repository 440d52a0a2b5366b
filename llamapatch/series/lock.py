"""``patches/series.lock``: what the series must produce, one fact per line, generated and never edited by hand.

The file is canonical JSON (sorted keys, one scalar per line), so that equal locks are equal bytes and a diff of two
locks reads well. Its spine is a hash chain: the chain value of a patch covers the upstream tree, every patch before
it, and its own diff, overlay files and metadata. The last value names the series.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from llamapatch.errors import UsageProblem
from llamapatch.series.model import Lock, PatchMeta

if TYPE_CHECKING:
    from llamapatch.series.load import Patch, Series

LOCK_NAME = "series.lock"


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def meta_hash(meta: PatchMeta) -> str:
    """Hash of what ``patch.toml`` says, not of how: comments, order of keys and spelled-out defaults do not count, so
    that a reworded comment does not invalidate measured results."""
    said = meta.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return sha256(json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def overlay_hashes(patch: Patch) -> dict[str, str]:
    """Path in the tree -> SHA-256 of the file placed there."""
    return {path: sha256(data) for path, data in sorted(patch.overlay.items())}


def chain_value(previous: str, diff: str, overlay: dict[str, str], meta: str) -> str:
    """One link of the chain: SHA-256 over lines of text. `previous` is the upstream tree for the first patch."""
    lines = [
        previous,
        f"diff {diff}",
        *(f"overlay {path} {oid}" for path, oid in sorted(overlay.items())),
        f"meta {meta}",
    ]
    return sha256("\n".join(lines).encode())


def series_chain(series: Series) -> str:
    """The identity of the series as it lies on disk now."""
    value = series.pin.tree
    for patch in series.patches:
        value = chain_value(value, sha256(patch.diff), overlay_hashes(patch), meta_hash(patch.meta))
    return value


def lock_chain(lock: Lock) -> str:
    """The identity that the lock records."""
    return lock.patches[-1].chain if lock.patches else lock.upstream_tree


def lock_is_current(series: Series) -> bool:
    """Whether ``series.lock`` was written for exactly these patches (hashes only, no tree is computed)."""
    lock = series.lock
    return (
        lock is not None
        and lock.upstream_tree == series.pin.tree
        and [p.id for p in lock.patches] == list(series.ids)
        and lock_chain(lock) == series_chain(series)
    )


def format_lock(lock: Lock) -> str:
    """The canonical text of a lock."""
    return json.dumps(lock.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def parse_lock(data: bytes, path: Path) -> Lock:
    """The lock that `data` holds; `UsageProblem`, naming `path`, when it is no lock."""
    try:
        return Lock.model_validate_json(data.decode("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path} is damaged or was written by another version.", "Run `llamapatch lock`.") from error
