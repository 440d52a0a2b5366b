"""From the names a user types (``base``, ``patched``, a patch, a phase) to variants."""

from __future__ import annotations

from collections.abc import Sequence

from llamapatch.build.builder import BuildOptions, Report, build_folder
from llamapatch.build.stamp import read_stamp
from llamapatch.config import Settings
from llamapatch.series.load import Series
from llamapatch.series.select import select
from llamapatch.tree.variants import BASE, Variant, applied_variant, base_variant, selected_variant

PATCHED = "patched"
DEFAULT_VARIANTS = (BASE, PATCHED)


def resolve_variants(
    settings: Settings, series: Series, names: Sequence[str], report: Report | None = None
) -> list[Variant]:
    """The variants that `names` mean (none: ``base`` and ``patched``), each once, checked out.

    Raises `UsageProblem` for a name that is neither ``base`` nor ``patched`` nor a selector, and when ``patched`` is
    meant but nothing is applied.
    """
    found: dict[str, Variant] = {}
    # All selectors are checked before the first worktree is made.
    selections = {n: select(series, [n]) for n in names if n not in DEFAULT_VARIANTS}
    for name in dict.fromkeys(names or DEFAULT_VARIANTS):
        if name == BASE:
            variant = base_variant(settings, series, report)
        elif name == PATCHED:
            variant = applied_variant(settings, series, report)
        else:
            variant = selected_variant(settings, series, selections[name], report)
        found.setdefault(variant.name, variant)
    return list(found.values())


def preview(settings: Settings, series: Series, names: Sequence[str], options: BuildOptions) -> list[dict[str, str]]:
    """What a build of `names` would work on, without fetching or writing: variant, folder, and what is there now."""
    rows = []
    for name in dict.fromkeys(names):
        folder_name = name
        if name not in DEFAULT_VARIANTS:
            selection = select(series, [name])
            folder_name = selection.asked[0] if len(selection.asked) == 1 else "sel-<commit>"
        folder = build_folder(settings, folder_name, options.cuda)
        stamp = read_stamp(folder / "stamp.json")
        now = f"holds {stamp.label}" if stamp is not None else "not built yet"
        rows.append({"variant": name, "folder": str(folder), "now": now})
    return rows
