"""Read ``patches/`` and ``ggml_kernels/`` into a `Series`; every mistake is named with its file, key and remedy."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.series.files import SeriesFiles
from llamapatch.series.lint import lint_patches, lint_series_file, raise_problems
from llamapatch.series.lock import LOCK_NAME, parse_lock
from llamapatch.series.model import Lock, PatchMeta, SeriesFile, UpstreamPin

SERIES_NAME = "series.toml"
META_NAME = "patch.toml"
DIFF_NAME = "change.patch"
README_NAME = "README.md"

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Patch:
    """One patch as it lies on disk.

    `diff` is ``change.patch``: empty when there is none, and (`has_diff`) when the patch has yet to be filled.
    `overlay` maps a path in the tree to the bytes of the file of ``ggml_kernels/`` that is placed there.
    """

    meta: PatchMeta
    folder: Path
    diff: bytes
    overlay: dict[str, bytes]
    has_diff: bool = True
    has_readme: bool = True

    @property
    def id(self) -> str:
        return self.meta.id


@dataclass(frozen=True)
class Series:
    """The whole series, patches in the order of application. `lock` is None when ``series.lock`` is not there, `read`
    is every file that it was read from (path below the home -> bytes, None for one that is not there)."""

    file: SeriesFile
    patches: tuple[Patch, ...]
    lock: Lock | None
    home: Path
    read: dict[str, bytes | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def pin(self) -> UpstreamPin:
        return self.file.upstream

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(p.id for p in self.patches)

    def get(self, patch_id: str) -> Patch:
        """The patch with this id; `UsageProblem` when there is none."""
        for patch in self.patches:
            if patch.id == patch_id:
                return patch
        raise UsageProblem(f"there is no patch `{patch_id}`.", "See `llamapatch list`.")


def load_series(settings: Settings, changes: Mapping[str, bytes | None] | None = None) -> Series:
    """Read and check the series of `settings.home`, or what it would be with `changes` (see `SeriesFiles`).

    Raises `UsageProblem` for a missing file, malformed TOML (with its line), a key that the schema does not know, and
    for whatever `llamapatch.series.lint` finds.
    """
    files = SeriesFiles(settings.home, changes or {})
    path = files.patches / SERIES_NAME
    text = files.read(path)
    if text is None:
        raise UsageProblem(
            f"{path} does not exist.", "Start a series with `llamapatch init`, or run from inside a project."
        )
    file = _parse(path, text, SeriesFile)
    raise_problems(lint_series_file(file, files.patches, files.patch_folders()))
    patches = tuple(
        _read_patch(files, files.patches / phase.id / patch_id) for phase in file.phase for patch_id in phase.patches
    )
    raise_problems(lint_patches(file, patches, files.patches))
    lock_path = files.patches / LOCK_NAME
    lock = files.read(lock_path)
    locked = parse_lock(lock, lock_path) if lock is not None else None
    return Series(file, patches, locked, settings.home, files.seen)


def _read_patch(files: SeriesFiles, folder: Path) -> Patch:
    path = folder / META_NAME
    text = files.read(path)
    if text is None:
        raise UsageProblem(f"{path} does not exist.", "Write it, or take the patch out of series.toml.")
    meta = _parse(path, text, PatchMeta)
    overlay: dict[str, bytes] = {}
    for item in meta.overlay:
        data = files.read_kernel(item.source)
        if data is None:
            raise UsageProblem(
                f"{path}: overlay source `{item.source}` is no file below {files.kernels}.",
                "Write it, or correct `from`.",
            )
        if item.to in overlay:
            raise UsageProblem(f"{path}: two overlay files go to `{item.to}`.", "Give one of them another `to`.")
        overlay[item.to] = data
    diff = files.read(folder / DIFF_NAME)
    has_readme = files.read(folder / README_NAME) is not None
    return Patch(meta, folder, diff or b"", overlay, has_diff=diff is not None, has_readme=has_readme)


def _parse(path: Path, data: bytes, model: type[M]) -> M:
    """A TOML file as `model`; the first schema violation becomes one sentence that names the key."""
    try:
        raw: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path} is not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageProblem(f"{path} is not valid TOML: {error}.", "Mend that line.") from error
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UsageProblem(f"{path}: `{where}`: {_say(first['type'], first['msg'])}{more}.", _remedy(first)) from error


def _say(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "required, but missing"
    return message[:1].lower() + message[1:]


def _remedy(first: Any) -> str:
    if first["type"] == "extra_forbidden":
        return "Remove it or correct its spelling; docs/schemas/ has every key."
    if first["type"] == "missing":
        return "Add it; docs/schemas/ says what it holds."
    return "docs/schemas/ says what the key may hold."
