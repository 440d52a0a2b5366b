"""Start a project: a copy of the series in use, or an empty one on the same upstream."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from llamapatch.config import CONFIG_NAME, Settings
from llamapatch.errors import DirtyError
from llamapatch.series.load import SERIES_NAME, Series

PARTS = ("patches", "templates", "ggml_kernels", "ci")
_CONFIG = """\
# llamapatch: this folder is a project. Flags and LLAMAPATCH_* variables win over what stands here.

# Your own llama.cpp (a checkout, a bare repository or a tarball); it is only read.
# upstream = "../llama.cpp"

# Parallel jobs of builds (default: every core).
# jobs = 8
"""
_IGNORED = shutil.ignore_patterns("__pycache__", "build", "build-*", ".*", "*.pyc")


@dataclass(frozen=True)
class Started:
    """A project that was made, or with `dry_run` would be; `made` are the names of what is new in `folder`."""

    folder: Path
    made: tuple[str, ...]
    dry_run: bool


def start_project(
    settings: Settings, series: Series, folder: Path, *, empty: bool = False, dry_run: bool = False
) -> Started:
    """Copy the series of `settings` into `folder` with a ``llamapatch.toml`` beside it, or with `empty` write a series
    without patches on the same pin.

    Everything is made aside and renamed into place. `DirtyError` when `folder` already has one of the parts; nothing
    there is ever overwritten.
    """
    folder = folder.resolve()
    parts = [name for name in PARTS if empty or (settings.home / name).is_dir()]
    made = (*parts, CONFIG_NAME)
    taken = [name for name in made if os.path.lexists(folder / name)]
    if taken:
        raise DirtyError(
            f"{folder} already has {', '.join(taken)}.",
            "Choose another folder, or move these away; `init` never overwrites.",
        )
    if dry_run:
        return Started(folder, made, dry_run=True)
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder, prefix=".llamapatch-init-"))
    try:
        for name in parts:
            if empty:
                (aside / name).mkdir()
            else:
                shutil.copytree(settings.home / name, aside / name, ignore=_IGNORED)
        if empty:
            (aside / "patches" / SERIES_NAME).write_text(_empty_series(series), encoding="utf-8")
        (aside / CONFIG_NAME).write_text(_CONFIG, encoding="utf-8")
        # A wheel's files may be read-only; a copy is there to be edited.
        for path in aside.rglob("*"):
            path.chmod(path.stat().st_mode | 0o200)
        for name in made:
            (aside / name).rename(folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Started(folder, made, dry_run=False)


def _empty_series(series: Series) -> str:
    """``series.toml`` with the pin of `series` and one empty phase."""
    document = tomlkit.document()
    document.add(
        tomlkit.comment("The series: what it applies to, and in which order; one patch id per line. A patch is")
    )
    document.add(tomlkit.comment("the folder patches/<phase>/<id>. `llamapatch lock` writes series.lock from them."))
    document["schema"] = 1
    pin = series.pin
    upstream = tomlkit.table()
    upstream["version"], upstream["url"], upstream["tree"] = pin.version, pin.url, pin.tree
    sources = tomlkit.aot()
    for source in pin.source:
        item = tomlkit.table()
        for key, value in source.model_dump(exclude_defaults=True).items():
            item[key] = value
        sources.append(item)
    upstream["source"] = sources
    document["upstream"] = upstream
    phase = tomlkit.table()
    phase["id"], phase["title"] = "phase1", "First phase"
    phase["patches"] = tomlkit.array()
    phases = tomlkit.aot()
    phases.append(phase)
    document["phase"] = phases
    return tomlkit.dumps(document)
