"""``build --cuda --check``: compile just the CUDA files that the applied patches name.

A full CUDA build takes most of an hour on two cores and no GPU is needed to learn that a kernel does not compile.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamapatch.build import ninja
from llamapatch.build.builder import Report, Workshop, hold_lock, open_workshop
from llamapatch.build.options import BuildOptions
from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.series.load import Series
from llamapatch.tree.variants import in_use

if TYPE_CHECKING:
    from llamapatch.tree.variants import Variant


@dataclass(frozen=True)
class Checked:
    """The CUDA files that compile, as paths in the tree; none were named when `units` is empty."""

    variant: Variant
    units: tuple[str, ...]
    seconds: float


def named_units(series: Series, ids: Sequence[str]) -> tuple[str, ...]:
    """The CUDA files that the patches `ids` name in their patch.toml (``cuda_units``), each once, in series order."""
    return tuple(dict.fromkeys(unit for patch_id in ids for unit in series.get(patch_id).meta.cuda_units))


def check_cuda(
    settings: Settings, variant: Variant, options: BuildOptions, units: Sequence[str], report: Report | None = None
) -> Checked:
    """Configure `variant` with CUDA and compile `units` (paths in its tree), nothing else.

    Raises `UsageProblem` for a file that is not part of the CUDA build, `ninja.BuildFailed` for one that does not
    compile.
    """
    started = time.monotonic()
    shop = open_workshop(settings, variant, options, report)
    with in_use(settings, variant), hold_lock(shop.folder), ninja.Log(shop.folder / "build.log") as log:
        shop.configure(log, report)
        if units:
            shop.build([_object_of(shop, unit) for unit in units], log, report)
    return Checked(variant, tuple(units), time.monotonic() - started)


def _object_of(shop: Workshop, unit: str) -> str:
    """The object file that Ninja makes of a source file, as CMake's compilation database names it."""
    source = shop.farm / unit
    database: list[dict[str, str]] = json.loads((shop.out / "compile_commands.json").read_text(encoding="utf-8"))
    for entry in database:
        if Path(entry["file"]) == source:
            # Ninja knows it relative to its folder; CMake's database has either form, by version.
            return os.path.relpath(shop.out / entry["output"], shop.out)
    if not source.exists():
        raise UsageProblem(f"{unit} is not in the tree of {shop.variant.name}.", "Mend `cuda_units` in patch.toml.")
    raise UsageProblem(
        f"{unit} is no source file of the CUDA build.", "Name .cu files in `cuda_units`; headers come with them."
    )
