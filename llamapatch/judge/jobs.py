"""The plan of a gate: a plain list of independent jobs, each named by a hash of everything that decides its result.

Equal hashes mean equal bytes: the pinned tree, the patches of the job's tree (diff, overlay files, metadata), the
switches that are on, the kernels' tests and benchmarks, the model, the profile and the tool. The machine is not part
of it: a result says where it was measured, and whoever reads it decides whether that will do.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llamapatch import __version__
from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.measure.scenario import load_scenarios
from llamapatch.models.gguf_file import sha256_of
from llamapatch.models.reference import reference_model
from llamapatch.series.load import Patch, Series
from llamapatch.series.lock import meta_hash, overlay_hashes, sha256
from llamapatch.series.select import select

Where = Literal["closure", "series"]
_SOURCES = {".c", ".cpp", ".h", ".hpp", ".cu", ".cuh", ".txt", ".cmake"}


@dataclass(frozen=True)
class GateJob:
    """One patch, on top of what it requires or in the whole series. `applied` is what the tree holds, `on` whose
    switches are on, `content` what the hash covers."""

    patch: str
    where: Where
    backend: str
    profile: str
    applied: tuple[str, ...]
    on: tuple[str, ...]
    content: dict[str, Any]

    @property
    def hash(self) -> str:
        """Forty hexadecimal digits that name the job."""
        text = json.dumps(self.content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def data(self) -> dict[str, Any]:
        """As JSON data, for ``gate --plan``."""
        return {
            "job": self.hash,
            "patch": self.patch,
            "where": self.where,
            "backend": self.backend,
            "profile": self.profile,
            "applied": list(self.applied),
            "on": list(self.on),
        }


def plan_jobs(
    settings: Settings, series: Series, selectors: tuple[str, ...], *, profile: str, backend: str
) -> list[GateJob]:
    """The jobs for the patches that `selectors` ask for (default: all), closure before series, in series order.

    Where the closure is the whole series the two are one job.
    """
    asked = select(series, selectors).asked
    chosen, scenarios = load_scenarios(settings).pick(profile)
    shared = {
        "tool": __version__,
        "upstream": series.pin.tree,
        "profile": [profile, chosen.model_dump(), {name: s.model_dump() for name, s in scenarios.items()}],
        "model": sha256_of(reference_model()),
        "backend": backend,
    }
    jobs = []
    for patch_id in asked:
        closure = select(series, (patch_id,)).ids
        for where, applied in (("closure", closure), ("series", series.ids)):
            if where == "series" and applied == closure:
                continue
            jobs.append(_job(settings, series, patch_id, where, applied, closure, shared))  # type: ignore[arg-type]
    return jobs


def find_job(jobs: list[GateJob], prefix: str) -> GateJob:
    """The job whose hash begins with `prefix`; `UsageProblem` unless there is exactly one."""
    found = [job for job in jobs if job.hash.startswith(prefix)] if len(prefix) >= 6 else []
    if len(found) != 1:
        raise UsageProblem(
            f"{'no' if not found else 'more than one'} job is named `{prefix}`.",
            "`llamapatch gate --plan` prints them (with the same selectors and profile); six digits are the least.",
        )
    return found[0]


def families(patch: Patch) -> tuple[str, ...]:
    """The kernel families that the patch's overlay files come from."""
    return tuple(sorted({Path(item.source).parts[0] for item in patch.meta.overlay}))


def _job(
    settings: Settings,
    series: Series,
    patch_id: str,
    where: Where,
    applied: tuple[str, ...],
    on: tuple[str, ...],
    shared: dict[str, Any],
) -> GateJob:
    patch = series.get(patch_id)
    content = shared | {
        "patch": patch_id,
        "on": list(on),
        "tree": [_patch_hash(series.get(i)) for i in applied],
        "kernels": {name: _family_hash(settings.kernels / name) for name in families(patch)},
    }
    return GateJob(patch_id, where, shared["backend"], shared["profile"][0], applied, on, content)


def _patch_hash(patch: Patch) -> list[Any]:
    return [patch.id, sha256(patch.diff), meta_hash(patch.meta), overlay_hashes(patch)]


def _family_hash(folder: Path) -> str:
    """Sources, tests and build files of a kernel family; its README may change."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in _SOURCES)
    facts = [[p.relative_to(folder).as_posix(), sha256(p.read_bytes())] for p in files]
    return sha256(json.dumps(facts).encode())
