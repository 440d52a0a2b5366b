"""A patch's own kernel benchmark, for what upstream's speed tools never reach (none of them samples a token, say).

Protocol: the program prints JSON lines ``{"case": str, "ns": [per-call nanoseconds], "work": number, "unit": str}`` and
nothing else on standard output. It is built once, against the unpatched headers, and run once per arm with the arm's
libraries on the loader's path and the arm's switches.

A case's figure is the median call: unlike repetitions of llama-bench, the calls of a case may do different work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llamapatch.measure.arms import Arm
from llamapatch.measure.bench import checked_samples, parse_rows, typical
from llamapatch.measure.runs import RunFolder, failed

# A benchmark that needs longer than this for one arm is stuck.
TIMEOUT = 1800.0


@dataclass(frozen=True)
class KernelSample:
    """One process of one arm: by case the median nanoseconds per call; `work` and `unit` are what a call does."""

    block: int
    arm: str
    ns: dict[str, float]
    work: dict[str, float]
    unit: dict[str, str]


def measure_kernels(
    folder: RunFolder, arm: Arm, block: int, program: Path, args: Sequence[str], *, key: str = ""
) -> KernelSample:
    """Run a kernel benchmark once as `arm`; raises `NotMeasured` unless it printed at least one sound case. `key` as
    in `measure_speed`."""
    run = folder.launch(arm, program, args, timeout=TIMEOUT, key=key)
    ns: dict[str, float] = {}
    work: dict[str, float] = {}
    unit: dict[str, str] = {}
    for row in parse_rows(run):
        case = row.get("case")
        if not isinstance(case, str) or not case:
            raise failed(run, "printed a row without a case")
        if case in ns:
            raise failed(run, f"printed the case {case} twice")
        samples = checked_samples(run, case, row.get("ns"))
        amount = row.get("work")
        if not isinstance(amount, int | float) or not math.isfinite(amount) or amount <= 0:
            raise failed(run, f"the case {case} does {amount!r} work")
        ns[case] = typical(samples)
        work[case] = float(amount)
        unit[case] = str(row.get("unit", "call"))
        folder.record("kernel", block=block, arm=arm.name, process=run.number, target=program.name, row=row)
    return KernelSample(block, arm.name, ns, work, unit)
