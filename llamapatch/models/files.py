"""Whole files or none: large outputs are written beside their place and renamed when complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llamapatch.errors import EnvironmentProblem, UsageProblem


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; on success it becomes `path`, on any error it is removed."""
    if path.is_dir():
        raise UsageProblem(f"{path} is a folder.", "Give the name of the file to write.")
    if not path.parent.is_dir():
        raise UsageProblem(f"there is no folder {path.parent}.", f"Make it: mkdir -p {path.parent}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def need_space(folder: Path, nbytes: int) -> None:
    """Raise `EnvironmentProblem` when the disk of `folder` has not `nbytes` (and a little) left."""
    if not folder.is_dir():
        raise UsageProblem(f"there is no folder {folder}.", f"Make it: mkdir -p {folder}")
    free = shutil.disk_usage(folder).free
    if free < nbytes + (64 << 20):
        raise EnvironmentProblem(
            f"{folder} has {free / 1e9:.1f} GB free; {nbytes / 1e9:.1f} GB are to be written.",
            "Free some space or choose another disk.",
        )
