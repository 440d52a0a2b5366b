"""The files of a series as they lie on disk, or as they would lie after a change that is not written yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamapatch.errors import UsageProblem


@dataclass(frozen=True)
class SeriesFiles:
    """What lies below `home`, with `changes` (a path below it -> new bytes, None for a file that goes) on top.

    Every path of a change begins with ``patches/`` or ``ggml_kernels/``. `seen` collects what was found on disk, so
    that a writer can tell whether it still holds.
    """

    home: Path
    changes: Mapping[str, bytes | None] = field(default_factory=dict)
    seen: dict[str, bytes | None] = field(default_factory=dict)

    @property
    def patches(self) -> Path:
        return self.home / "patches"

    @property
    def kernels(self) -> Path:
        return self.home / "ggml_kernels"

    def read(self, path: Path) -> bytes | None:
        """The bytes of a file, None when there is none; `UsageProblem` when it cannot be read."""
        name = path.relative_to(self.home).as_posix()
        if name in self.changes:
            return self.changes[name]
        try:
            self.seen[name] = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            self.seen[name] = None
        except OSError as error:
            raise UsageProblem(
                f"{path} cannot be read: {error.strerror}.", "Correct its type or its rights."
            ) from error
        return self.seen[name]

    def read_kernel(self, source: str) -> bytes | None:
        """The bytes of a file of ``ggml_kernels/``, None when there is none or when a link leads out of that folder."""
        path = self.kernels / source
        if path.relative_to(self.home).as_posix() in self.changes:
            return self.read(path)
        return self.read(path) if path.is_file() and path.resolve().is_relative_to(self.kernels.resolve()) else None

    def patch_folders(self) -> set[tuple[str, str]]:
        """(phase, id) of every folder below ``patches/`` that could be a patch; a folder that a change leaves without a
        file is gone."""
        there: dict[tuple[str, str], set[str]] = {}
        for path in self.patches.glob("*/*"):
            if path.is_dir() and not path.name.startswith(".") and not path.parent.name.startswith("."):
                inside = {p.relative_to(self.home).as_posix() for p in path.rglob("*") if not p.is_dir()}
                there[path.parent.name, path.name] = inside
        for name, data in self.changes.items():
            parts = name.split("/")
            if parts[0] == "patches" and len(parts) > 3:
                inside = there.setdefault((parts[1], parts[2]), set())
                if data is None:
                    inside.discard(name)
                else:
                    inside.add(name)
        touched = {tuple(name.split("/")[1:3]) for name in self.changes if name.startswith("patches/")}
        return {where for where, inside in there.items() if inside or where not in touched}
