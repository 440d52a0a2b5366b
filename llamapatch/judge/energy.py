"""Energy and GPU memory of each arm, where counters exist: joules per token by what was counted, and the peak on GPUs.

The processor packages are counted by RAPL, GPUs by NVML; neither counts the rest of the machine. Both count everybody's
work, so on a shared machine only the ratio of interleaved arms says something.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from llamapatch.measure.bench import Speed

PACKAGES = "processor packages"
GPUS = "GPUs"


def joules_per_token(speeds: Sequence[Speed], tokens: float) -> dict[str, dict[str, float]]:
    """Median joules of a process over its `tokens`, by counter and arm. A counter that any process lacks, or that never
    moved, is left out; GPUs that no process used are too."""
    found: dict[str, dict[str, float]] = {}
    counted = {PACKAGES: [s.joules for s in speeds]}
    if any(_gpu_bytes(s) for s in speeds):
        counted[GPUS] = [s.gpu.joules if s.gpu is not None else None for s in speeds]
    for name, joules in counted.items():
        known = [value for value in joules if value]
        if known and len(known) == len(speeds):
            found[name] = {
                arm: statistics.median(v for v, s in zip(known, speeds, strict=True) if s.arm == arm) / tokens
                for arm in dict.fromkeys(speed.arm for speed in speeds)
            }
    return found


def gpu_peak(speeds: Sequence[Speed], arm: str) -> int | None:
    """The median peak of GPU memory of an arm's processes in bytes; None where nothing was told or used."""
    peaks = [peak for speed in speeds if speed.arm == arm if (peak := _gpu_bytes(speed))]
    return round(statistics.median(peaks)) if peaks else None


def _gpu_bytes(speed: Speed) -> int | None:
    return speed.gpu.peak_bytes if speed.gpu is not None else None
