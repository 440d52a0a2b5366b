"""Speed through llama-bench: one process is one sample.

Everything comes from ``samples_ns``: the printed averages include the cold first repetition, and upstream computes its
standard deviation in 64-bit integers. The first repetition is dropped, the median of the rest is the sample.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamapatch.measure.arms import Arm
from llamapatch.measure.runs import Run, RunFolder, failed

TOOL = "llama-bench"
# Four repetitions: one to drop and three for a median.
REPETITIONS = 4


@dataclass(frozen=True)
class Load:
    """What each process does: `prompt` tokens read at once, `generate` tokens one by one, on `threads` threads."""

    prompt: int
    generate: int
    threads: int
    repetitions: int = REPETITIONS

    @property
    def tests(self) -> tuple[str, ...]:
        return (f"pp{self.prompt}", f"tg{self.generate}")

    def tokens(self, test: str) -> int:
        """Tokens per repetition of a test."""
        return self.prompt if test.startswith("pp") else self.generate

    @property
    def tokens_per_process(self) -> int:
        """Tokens a process evaluates in all: the repetitions, and the warm-up of a prompt and one token."""
        return (self.repetitions + 1) * self.prompt + self.repetitions * self.generate + 1


@dataclass(frozen=True)
class Speed:
    """The figures of one process: median nanoseconds per repetition by test, CPU seconds and peak memory in bytes of
    the whole process, energy in joules where counted, and whether others kept the machine busy meanwhile."""

    block: int
    arm: str
    ns: dict[str, float]
    cpu_seconds: float
    peak_rss: int
    joules: float | None
    contended: bool
    build_commit: str


def arguments(model: Path, load: Load) -> list[str]:
    """llama-bench's command line; ``-o jsonl`` is the only form that keeps the samples."""
    return [
        "-m", str(model), "-p", str(load.prompt), "-n", str(load.generate), "-r", str(load.repetitions),
        "-t", str(load.threads), "-o", "jsonl",
    ]  # fmt: skip


def measure_speed(folder: RunFolder, arm: Arm, block: int, model: Path, load: Load) -> Speed:
    """Run llama-bench once as `arm`. Raises `NotMeasured` unless every test has all its finite, positive samples."""
    run = folder.launch(arm, arm.tool(TOOL), arguments(model, load))
    rows = parse_rows(run)
    ns: dict[str, float] = {}
    commits = {str(row.get("build_commit", "")) for row in rows}
    for test in load.tests:
        matching = [row for row in rows if _name(row) == test]
        if len(matching) != 1:
            raise failed(run, f"{len(matching)} rows for {test}, expected one")
        samples = checked_samples(run, test, matching[0].get("samples_ns"), load.repetitions)
        ns[test] = steady(samples)
        folder.record(
            "speed", block=block, arm=arm.name, test=test, samples_ns=samples, process=run.number, row=matching[0]
        )
    return Speed(
        block=block,
        arm=arm.name,
        ns=ns,
        cpu_seconds=run.done.cpu_seconds,
        peak_rss=run.done.peak_rss,
        joules=run.window.joules,
        contended=run.window.contended,
        build_commit=", ".join(sorted(commits)),
    )


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


def steady(samples: Sequence[float]) -> float:
    """The median without the first repetition, which may be cold (all of them when there is only one)."""
    return float(statistics.median(samples[1:] if len(samples) > 1 else samples))


def _name(row: dict[str, Any]) -> str:
    prompt, generate = row.get("n_prompt", 0), row.get("n_gen", 0)
    if prompt and not generate:
        return f"pp{prompt}"
    return f"tg{generate}" if generate and not prompt else f"pp{prompt}+tg{generate}"
