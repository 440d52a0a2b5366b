"""The text of a series on another pin: ``series.toml`` edited in place, and the patches that leave taken out."""

from __future__ import annotations

from collections.abc import Collection

import tomlkit

from llamapatch.config import Settings
from llamapatch.errors import ConflictError
from llamapatch.series.load import META_NAME, SERIES_NAME, Series
from llamapatch.series.model import UpstreamPin
from llamapatch.series.order import remove_id


def repinned(settings: Settings, series: Series, pin: UpstreamPin, gone: Collection[str]) -> dict[str, bytes | None]:
    """The files to write (below the home; None: to delete) for `series` on `pin` without the patches `gone`.

    Comments and order survive. What required or conflicted with a patch that leaves no longer says so. Raises
    `ConflictError` when nothing would remain.
    """
    if series.patches and set(series.ids) <= set(gone):
        raise ConflictError("no patch of the series would remain.", "See what `llamapatch rebase --dry-run` says.")
    text = (settings.patches / SERIES_NAME).read_text(encoding="utf-8")
    for patch_id in gone:
        text = remove_id(text, patch_id)
    files: dict[str, bytes | None] = {f"patches/{SERIES_NAME}": _with_pin(text, pin).encode()}
    for patch in series.patches:
        folder = patch.folder.relative_to(settings.home).as_posix()
        if patch.id in gone:
            inside = [p for p in patch.folder.rglob("*") if p.is_file() or p.is_symlink()]
            files |= dict.fromkeys(p.relative_to(settings.home).as_posix() for p in inside)
        elif {*patch.meta.requires, *patch.meta.conflicts} & set(gone):
            meta = (patch.folder / META_NAME).read_text(encoding="utf-8")
            files[f"{folder}/{META_NAME}"] = without_ids(meta, gone).encode()
    return files


def _with_pin(text: str, pin: UpstreamPin) -> str:
    document = tomlkit.parse(text)
    upstream = document["upstream"]
    assert isinstance(upstream, tomlkit.items.Table)
    upstream["version"], upstream["tree"] = pin.version, pin.tree
    sources = tomlkit.aot()
    for source in pin.source:
        item = tomlkit.table()
        for key, value in source.model_dump(exclude_defaults=True).items():
            item[key] = value
        item.add(tomlkit.nl())
        sources.append(item)
    upstream["source"] = sources
    return tomlkit.dumps(document)


def without_ids(text: str, gone: Collection[str]) -> str:
    """A ``patch.toml`` that neither requires `gone` nor conflicts with them."""
    document = tomlkit.parse(text)
    for key in ("requires", "conflicts"):
        kept = [i for i in document.get(key, []) if i not in gone]
        if len(kept) != len(document.get(key, [])):
            document[key] = kept
    return tomlkit.dumps(document)
