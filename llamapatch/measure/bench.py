"""Speed through llama-bench and llama-batched-bench: one process is one sample.

Everything comes from llama-bench's ``samples_ns``: the printed averages include the cold first repetition, and upstream
computes its standard deviation in 64-bit integers. The first repetition is dropped and the FASTEST of the others is the
process's figure: what else runs on a machine can only add time, and it adds it in bursts
(docs/decisions/fastest-repetition.md has the measurements). The median goes along as information.
llama-batched-bench repeats nothing, so its one figure is all there is.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamapatch.errors import NotMeasured
from llamapatch.measure.arms import Arm
from llamapatch.measure.gpu import GpuWindow
from llamapatch.measure.runs import Run, RunFolder, failed
from llamapatch.measure.scenario import Scenario

TOOL = "llama-bench"
BATCHED_TOOL = "llama-batched-bench"
ATTEMPTS = 8


@dataclass(frozen=True)
class Speed:
    """The figures of one process: nanoseconds by test, of the fastest repetition (`ns`) and of the median one
    (`typical_ns`); CPU seconds and peak memory in bytes of the whole process, energy in joules where counted, and
    whether others kept the machine busy meanwhile; what happened on the GPUs."""

    block: int
    arm: str
    ns: dict[str, float]
    typical_ns: dict[str, float]
    cpu_seconds: float
    peak_rss: int
    joules: float | None
    contended: bool
    build_commit: str
    gpu: GpuWindow | None = None


def tool_of(scenario: Scenario) -> str:
    """Which of upstream's programs measures it."""
    return BATCHED_TOOL if scenario.sequences else TOOL


def arguments(model: Path, scenario: Scenario, threads: int) -> list[str]:
    """The command line; jsonl is the only form that keeps the samples."""
    cache = ["-ctk", scenario.cache, "-ctv", scenario.cache]
    if scenario.cache != "f16":
        cache += ["-fa", "on"]  # a quantised V cache exists with flash attention only
    if scenario.sequences:
        most = max(scenario.sequences)
        return [
            "-m", str(model), "-c", str(most * (scenario.prompt + scenario.generate)), "-b", "2048", "-ub", "512",
            "-npp", str(scenario.prompt), "-ntg", str(scenario.generate),
            "-npl", ",".join(map(str, scenario.sequences)), "-t", str(threads), "--output-format", "jsonl",
            *(cache if scenario.cache != "f16" else []),
        ]  # fmt: skip
    return [
        "-m", str(model), "-p", str(scenario.prompt), "-n", str(scenario.generate),
        "-r", str(scenario.repetitions), "-t", str(threads), "-o", "jsonl",
        *(["-d", str(scenario.depth)] if scenario.depth else []), *(cache if scenario.cache != "f16" else []),
    ]  # fmt: skip


def measure_speed(
    folder: RunFolder, arm: Arm, block: int, model: Path, scenario: Scenario, *, name: str, threads: int, key: str = ""
) -> Speed:
    """Run one process of `arm`. Raises `NotMeasured` unless every test has all its finite, positive samples.

    `key` names this step of the run: a run that is resumed finds the process by it and does not repeat it.
    """
    read = _batched_samples if scenario.sequences else _bench_samples
    # llama-batched-bench prints through upstream's logger, whose last lines are lost on a busy machine.
    attempts = ATTEMPTS if scenario.sequences else 1
    for attempt in range(1, attempts + 1):
        again = f"{key} {attempt}" if key and attempt > 1 else key
        run = folder.launch(arm, arm.tool(tool_of(scenario)), arguments(model, scenario, threads), what=name, key=again)
        try:
            samples, commits = read(run, scenario)
            break
        except NotMeasured:
            if attempt == attempts or run.done.code != 0:
                raise
    for test, values in samples.items():
        folder.record(
            "speed", block=block, arm=arm.name, scenario=name, test=test, samples_ns=values, process=run.number
        )
    return Speed(
        block=block,
        arm=arm.name,
        ns={test: fastest(values) for test, values in samples.items()},
        typical_ns={test: typical(values) for test, values in samples.items()},
        cpu_seconds=run.done.cpu_seconds,
        peak_rss=run.done.peak_rss,
        joules=run.window.joules,
        contended=run.window.contended,
        build_commit=", ".join(sorted(commits)),
        gpu=run.window.gpu,
    )


def _bench_samples(run: Run, scenario: Scenario) -> tuple[dict[str, list[float]], set[str]]:
    rows = parse_rows(run)
    samples: dict[str, list[float]] = {}
    kinds = [(scenario.prompt, 0)] * bool(scenario.prompt) + [(0, scenario.generate)] * bool(scenario.generate)
    for test, (prompt, generate) in zip(scenario.tests, kinds, strict=True):
        wanted = (prompt, generate, scenario.depth)
        matching = [
            row for row in rows if (row.get("n_prompt", 0), row.get("n_gen", 0), row.get("n_depth", 0)) == wanted
        ]
        if len(matching) != 1:
            raise failed(run, f"{len(matching)} rows for {test}, expected one")
        samples[test] = checked_samples(run, test, matching[0].get("samples_ns"), scenario.repetitions)
    return samples, {str(row.get("build_commit", "")) for row in rows}


def _batched_samples(run: Run, scenario: Scenario) -> tuple[dict[str, list[float]], set[str]]:
    """Seconds for a prompt (``t_pp``) and for generation (``t_tg``) of all sequences together."""
    if run.done.code != 0:
        raise failed(run, f"ended with status {run.done.code}")
    # Its rows come through the logger, among other lines.
    rows = [json.loads(line) for line in run.done.stdout.splitlines() if line.startswith('{"n_kv_max"')]
    samples: dict[str, list[float]] = {}
    tests = iter(scenario.tests)
    for count in scenario.sequences:
        matching = [
            row for row in rows if (row["pl"], row["pp"], row["tg"]) == (count, scenario.prompt, scenario.generate)
        ]
        if len(matching) != 1:
            raise failed(run, f"{len(matching)} rows for {count} sequences, expected one")
        for part in ("t_pp", "t_tg"):
            test = next(tests)
            samples[test] = checked_samples(run, test, [1e9 * matching[0][part]], 1)
    return samples, set()


def parse_rows(run: Run) -> list[dict[str, Any]]:
    """The JSON lines a tool printed; anything else on standard output, or a failure, measured nothing."""
    if run.done.code != 0:
        raise failed(run, f"ended with status {run.done.code}")
    rows = []
    for line in run.done.stdout.splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise failed(run, f"printed a line that is no JSON: {line[:120]!r}") from None
        if not isinstance(row, dict):
            raise failed(run, f"printed a line that is no JSON object: {line[:120]!r}")
        rows.append(row)
    if not rows:
        raise failed(run, "printed no result although it ended with status 0")
    return rows


def checked_samples(run: Run, test: str, raw: object, expected: int | None = None) -> list[float]:
    """`raw` as nanoseconds; raises `NotMeasured` when it is not a list of `expected` finite, positive numbers."""
    if not isinstance(raw, Sequence) or isinstance(raw, str) or not raw:
        raise failed(run, f"no samples for {test}")
    if expected is not None and len(raw) != expected:
        raise failed(run, f"{len(raw)} samples for {test}, expected {expected}")
    for value in raw:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
        if not good:
            raise failed(run, f"the sample {value!r} of {test} is no duration")
    return [float(value) for value in raw]


def fastest(samples: Sequence[float]) -> float:
    """The shortest repetition but the first, which may be cold (the only one when there is no other)."""
    return min(samples[1:] or samples)


def typical(samples: Sequence[float]) -> float:
    """The median without the first repetition."""
    return float(statistics.median(samples[1:] or samples))
