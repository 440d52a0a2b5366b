"""Find results and read them: what ``report`` and ``history --rebuild`` work on.

A result is known by its keys, not by its file's name: a comparison, a gate, the effects of patches, or a stored gate
job with the comparison behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.judge.gate_result import EffectsResult, GatedPatch, GateResult
from llamapatch.judge.result import Comparison
from llamapatch.report.history import HISTORY_NAME, Row, append, rows_of_comparison, rows_of_effects, rows_of_gate

Result = Comparison | GateResult | GatedPatch | EffectsResult
NAMES = ("comparison.json", "effects.json", "gate.json", "result.json")


@dataclass
class Results:
    """What was read, each result once; `gates` are those whose jobs are in `jobs`."""

    comparisons: dict[str, Comparison] = field(default_factory=dict)
    jobs: dict[str, GatedPatch] = field(default_factory=dict)
    gates: dict[str, GateResult] = field(default_factory=dict)
    effects: dict[str, EffectsResult] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not (self.comparisons or self.jobs or self.effects)

    def add(self, found: Result) -> None:
        if isinstance(found, Comparison):
            self.comparisons[found.id] = found
        elif isinstance(found, EffectsResult):
            self.effects[found.id] = found
        elif isinstance(found, GatedPatch):
            self.jobs[found.job] = found
        else:
            self.gates[found.id] = found
            for job in found.jobs:
                self.jobs[job.job] = job


def load(settings: Settings, words: Sequence[str]) -> Results:
    """The results that `words` name: files, folders, or ids of runs; without any, the newest of each kind here.

    Raises `UsageProblem` for what is not there or is no result.
    """
    results = Results()
    paths = [_resolve(settings, word) for word in words] if words else newest(settings)
    if not paths:
        raise UsageProblem(
            f"nothing has been measured below {settings.state}.",
            "Run `llamapatch compare` or `llamapatch gate` first, or name result files.",
        )
    for path in paths:
        for found in read_file(path):
            results.add(found)
    return results


def kept(settings: Settings) -> list[Path]:
    """Every result file below ``.llamapatch``, oldest first."""
    files = [
        path
        for folder in ("runs", "gates")
        for path in (settings.state / folder).glob("*/*.json")
        if path.name in NAMES
    ]
    return sorted(files, key=lambda path: (path.stat().st_mtime, path))


def newest(settings: Settings) -> list[Path]:
    """The newest comparison and effects of each kind, and the newest stored result of each gate job."""
    chosen: dict[tuple[str, ...], Path] = {}
    for path in kept(settings):
        try:
            found = read_file(path)
        except UsageProblem:
            continue  # written by another version; named on the command line, it is an error
        chosen[_slot(found[0])] = path
    return list(chosen.values())


def read_file(path: Path) -> list[Result]:
    """The results in a JSON file. Raises `UsageProblem` when it holds none that this version can read."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        found = list(_parse(raw))
    except OSError as error:
        raise UsageProblem(f"{path} cannot be read: {error.strerror}.", "Name a result file.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UsageProblem(
            f"{path} does not fit the schema of its kind at `{where}`: {first['msg']}.",
            "It was written by another version of llamapatch, or edited: measure again.",
        ) from error
    except ValueError as error:
        raise UsageProblem(f"{path} is no JSON: {error}.", "Name a result file.") from error
    if not found:
        raise UsageProblem(
            f"{path} holds no comparison, gate or effects.", "Name a file that --json of those verbs printed."
        )
    return found


def rows_of(found: Result) -> list[Row]:
    """The history's rows of a result."""
    if isinstance(found, Comparison):
        return rows_of_comparison(found)
    if isinstance(found, EffectsResult):
        return rows_of_effects(found)
    return rows_of_gate(found.jobs if isinstance(found, GateResult) else [found])


def record(settings: Settings, found: Result) -> None:
    """Add a result to the project's history."""
    append(settings.state / HISTORY_NAME, rows_of(found))


def _parse(raw: Any) -> Iterable[Result]:
    if not isinstance(raw, dict):
        return
    if "rounds" in raw and "arms" in raw:
        yield Comparison.model_validate(raw)
    elif "effects" in raw:
        yield EffectsResult.model_validate(raw)
    elif "jobs" in raw and "profile" in raw:
        yield GateResult.model_validate(raw)
    else:
        if raw.get("gate"):
            yield GatedPatch.model_validate(raw["gate"])
        if raw.get("comparison"):
            yield Comparison.model_validate(raw["comparison"])


def _slot(found: Result) -> tuple[str, ...]:
    if isinstance(found, GatedPatch):
        return ("job", found.patch, found.where, found.backend, found.scenario)
    if isinstance(found, EffectsResult):
        return ("effects", found.kind)
    return ("comparison",) if isinstance(found, Comparison) else ("gate",)


def _resolve(settings: Settings, word: str) -> Path:
    runs = settings.state / "runs"
    path = next((p for p in (Path(word), runs / word) if p.exists()), None)
    if path is None:
        ids = sorted(p.parent.name for p in runs.glob("*/comparison.json"))
        known = f"The newest runs are {', '.join(ids[-3:])}." if ids else "Run `llamapatch compare` first."
        raise UsageProblem(f"{word} is neither a file, nor a folder, nor a run below {runs}.", known)
    if path.is_dir():
        file = next((path / name for name in NAMES if (path / name).is_file()), None)
        if file is None:
            raise UsageProblem(
                f"{path} holds no result: the run was interrupted, or measured nothing.", "Name a finished run."
            )
        return file
    return path
