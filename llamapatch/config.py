"""Settings, and where everything lives: flag > ``LLAMAPATCH_*`` > ``llamapatch.toml`` > platform folder.

* the *root* is the folder of the nearest ``llamapatch.toml`` at or above the current folder, else the current folder;
* ``.llamapatch/`` under it is the only place a project's state is written to;
* the *series home* holds ``patches/ templates/ ggml_kernels/ ci/``: the root if it has ``patches/series.toml``, else
  what travels with the installed package, which is read-only.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from llamapatch.errors import UsageProblem

CONFIG_NAME = "llamapatch.toml"
STATE_NAME = ".llamapatch"
_KEYS = {"upstream": str, "cache": str, "jobs": int}


@dataclass(frozen=True)
class Settings:
    """What one invocation works on. `upstream` is the user's own llama.cpp (checkout, bare repository, tarball)."""

    root: Path
    home: Path
    cache: Path
    upstream: Path | None
    jobs: int

    @property
    def state(self) -> Path:
        return self.root / STATE_NAME

    @property
    def intent(self) -> Path:
        """The file that is there while the series is being written (`llamapatch.tree.write`)."""
        return self.state / "writing"

    @property
    def patches(self) -> Path:
        return self.home / "patches"

    @property
    def kernels(self) -> Path:
        return self.home / "ggml_kernels"

    @property
    def templates(self) -> Path:
        return self.home / "templates"

    @property
    def is_packaged(self) -> bool:
        """Whether the series is the read-only one of the installed package."""
        return self.home == packaged_home()


def packaged_home() -> Path:
    """Where the series travels with the package: ``_data`` in a wheel, the checkout itself in an editable install."""
    package = Path(__file__).resolve().parent
    data = package / "_data"
    return data if data.is_dir() else package.parent


def load_settings(
    start: Path | None = None, *, upstream: str | None = None, cache: str | None = None, jobs: int | None = None
) -> Settings:
    """Gather the settings for a command run in `start` (default: the current folder); arguments are its flags."""
    start = (start or Path.cwd()).resolve()
    root = next((p for p in (start, *start.parents) if (p / CONFIG_NAME).is_file()), start)
    stored = _read(root / CONFIG_NAME)
    home = root if (root / "patches" / "series.toml").is_file() else packaged_home()

    def pick(key: str, flag: Any) -> Any:
        if flag is not None:
            return flag
        from_env = os.environ.get(f"LLAMAPATCH_{key.upper()}")
        return from_env if from_env else stored.get(key)

    upstream_path = pick("upstream", upstream)
    cache_path = pick("cache", cache)
    wanted_jobs = pick("jobs", jobs)
    try:
        n_jobs = int(wanted_jobs) if wanted_jobs is not None else len(os.sched_getaffinity(0))
    except ValueError as error:
        raise UsageProblem(f"LLAMAPATCH_JOBS is {wanted_jobs!r}, which is no number.") from error
    if n_jobs < 1:
        raise UsageProblem(f"jobs is {n_jobs}; it must be at least 1.")
    return Settings(
        root=root,
        home=home,
        cache=Path(cache_path).expanduser().resolve() if cache_path else platformdirs.user_cache_path("llamapatch"),
        upstream=(root / Path(upstream_path).expanduser()).resolve() if upstream_path else None,
        jobs=n_jobs,
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path} is not valid TOML: {error}.", "Mend the line it names.") from error
    for key, value in stored.items():
        if key not in _KEYS:
            raise UsageProblem(f"{path}: unknown key `{key}`.", f"Known keys: {', '.join(sorted(_KEYS))}.")
        if not isinstance(value, _KEYS[key]):
            raise UsageProblem(f"{path}: `{key}` must be of type {_KEYS[key].__name__}.")
    return stored
