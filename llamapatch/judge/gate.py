"""The verb ``gate``: plan the jobs, take results that belong to the same bytes, run the rest, judge the whole.

A result is looked for in the project's own store (``.llamapatch/gates``, this machine only) and then among the
committed ones (``ci/results``, any machine: they say which). Equal job hashes mean equal bytes, so an unchanged patch
costs nothing, and a stored result cannot outlive what it was measured on.
"""

from __future__ import annotations

import datetime
import json
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llamapatch import __version__
from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.files import write_atomically
from llamapatch.judge.gate_result import GatedPatch, GateResult, exit_code_of, worst
from llamapatch.judge.jobs import GateJob
from llamapatch.judge.ladder import Done, Ladder
from llamapatch.judge.result import Comparison
from llamapatch.measure.machine import describe_machine
from llamapatch.series.load import Series
from llamapatch.series.lock import series_chain

Report = Callable[[str], None]


@dataclass(frozen=True)
class GateOptions:
    """`fresh` ignores stored results; `results` is the folder of committed ones, written to with `write`."""

    profile: str = "quick"
    backend: str = "cpu"
    fresh: bool = False
    results: Path | None = None
    write: bool = False
    command: str = ""


def gate(
    settings: Settings, series: Series, jobs: Sequence[GateJob], options: GateOptions, report: Report
) -> GateResult:
    """Run or recall every job. Raises for bad input and a broken environment; everything else is in the result."""
    started, stamp = time.monotonic(), _now()
    done = [run_job(settings, series, job, options, report).gated for job in jobs]
    return collect(settings, series, done, options, started=stamp, seconds=time.monotonic() - started)


def run_job(settings: Settings, series: Series, job: GateJob, options: GateOptions, report: Report) -> Done:
    """One job: its stored result, else the ladder, whose result is then stored."""
    if not options.fresh:
        for path in _places(settings, job, options):
            known = read_result(path)
            if known is not None and known.gated.job == job.hash:
                report(f"{job.patch} ({job.where}): result of {known.gated.measured_at} belongs to these bytes")
                return Done(known.gated.model_copy(update={"cached": True}), known.comparison)
    done = Ladder(settings, series, job, _folder(settings, job), report).climb()
    write_result(_folder(settings, job) / "result.json", done)
    if options.write and options.results is not None and done.gated.word == "pass":
        options.results.mkdir(parents=True, exist_ok=True)
        write_result(options.results / _committed_name(job), _without_paths(done))
    return done


def collect(
    settings: Settings,
    series: Series,
    done: Sequence[GatedPatch],
    options: GateOptions,
    *,
    started: str = "",
    seconds: float = 0.0,
) -> GateResult:
    """Judge finished jobs as one gate."""
    return GateResult(
        schema=1,
        tool=__version__,
        id=f"gate-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}",
        started=started or _now(),
        seconds=round(seconds, 3),
        command=options.command,
        profile=options.profile,
        upstream_version=series.pin.version,
        upstream_tree=series.pin.tree,
        series_chain=series_chain(series),
        machine=describe_machine(),
        jobs=list(done),
        raw=".llamapatch/gates",
        exit_code=exit_code_of(worst([job.word for job in done])),
    )


def read_lines(folder: Path, jobs: Sequence[GateJob]) -> list[GatedPatch]:
    """The results of `jobs` from the ``*.jsonl`` files of a folder, where ``gate --job`` on other machines left them.

    A job without a result counts as not measured; a line that belongs to no job of the plan is an error, because it
    was measured on other bytes. The newest of several results of one job counts.
    """
    if not folder.is_dir():
        raise UsageProblem(f"{folder} is no folder.", "Give the folder that holds the jobs' .jsonl files.")
    found: dict[str, GatedPatch] = {}
    known = {job.hash: job for job in jobs}
    for path in sorted(folder.rglob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                gated = GatedPatch.model_validate_json(line)
            except ValidationError as error:
                raise UsageProblem(f"{path}, line {number} is no result of a gate job.", "Remove it.") from error
            if gated.job not in known:
                raise UsageProblem(
                    f"{path}, line {number}: job {gated.job[:12]} ({gated.patch}, {gated.where}) is not in this plan.",
                    "It was measured on other bytes; run the job again or collect with the same selectors and profile.",
                )
            if gated.job not in found or found[gated.job].measured_at < gated.measured_at:
                found[gated.job] = gated
    return [found.get(job.hash) or _missing(job) for job in jobs]


def line_of(done: Done) -> str:
    """A finished job as the one line that ``gate --collect`` reads."""
    return json.dumps(done.gated.model_dump(mode="json", by_alias=True), sort_keys=True) + "\n"


def read_result(path: Path) -> Done | None:
    """A stored result, or None when there is none that this version can read."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        comparison = Comparison.model_validate(raw["comparison"]) if raw["comparison"] else None
        return Done(GatedPatch.model_validate(raw["gate"]), comparison)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_result(path: Path, done: Done) -> None:
    """Store a result with the comparison behind it, in one step."""
    data: dict[str, Any] = {
        "schema": 1,
        "gate": done.gated.model_dump(mode="json", by_alias=True),
        "comparison": done.comparison.data() if done.comparison else None,
    }
    write_atomically(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def stale_results(settings: Settings, series: Series, jobs: Iterable[GateJob], results: Path) -> list[str]:
    """Names of committed results that belong to no job of the plan."""
    names = {_committed_name(job) for job in jobs}
    return sorted(p.name for p in results.glob("*.json") if p.name not in names) if results.is_dir() else []


def _places(settings: Settings, job: GateJob, options: GateOptions) -> list[Path]:
    places = [_folder(settings, job) / "result.json"]
    if options.results is not None:
        places.append(options.results / _committed_name(job))
    return places


def _folder(settings: Settings, job: GateJob) -> Path:
    """Where a job's evidence lies: one folder for each machine, which need not measure alike."""
    return settings.state / "gates" / f"{job.hash[:16]}-{describe_machine()['id']}"


def _committed_name(job: GateJob) -> str:
    return f"{job.patch}.{job.where}.{job.backend}.{job.profile}.json"


def _without_paths(done: Done) -> Done:
    """For a repository: where the raw data lie on one machine is nobody's business."""
    comparison = done.comparison
    if comparison is not None:
        comparison = comparison.model_copy(update={"raw": Path(comparison.raw).name})
    return Done(done.gated, comparison)


def _missing(job: GateJob) -> GatedPatch:
    return GatedPatch(
        job=job.hash,
        patch=job.patch,
        title="",
        phase="",
        effect="",
        paper="",
        budgets={},
        where=job.where,
        applied=list(job.applied),
        backend=job.backend,
        scenario=job.profile,
        word="not measured",
        steps=[],
        comparison=None,
        cached=False,
        measured_at="",
        machine={},
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
