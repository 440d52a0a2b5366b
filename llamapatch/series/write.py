"""The one way to change the files of a series on disk."""

from __future__ import annotations

from collections.abc import Mapping

from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.files import write_atomically


def write_series(settings: Settings, files: Mapping[str, bytes | None], reason: str) -> None:
    """Interim: E's crash-safe version takes its place."""
    if settings.home != settings.root:
        raise UsageProblem(f"{settings.patches} is read-only.", "Run `llamapatch init DIR` for a copy of your own.")
    for name, data in files.items():
        path = settings.home / name
        if data is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)
