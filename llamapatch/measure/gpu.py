"""NVIDIA GPUs through NVML: what they are, who else uses them, and what a process did to them.

The library (``nvidia-ml-py``, extra ``gpu``) is loaded when it is first needed; without it, without a driver or without
a GPU there is nothing to read and nothing fails. What a GPU does not tell is None, never a guess. NVML numbers every
GPU of the machine, whatever ``CUDA_VISIBLE_DEVICES`` says, so those that our processes cannot see are left out here.

A container sees other process ids than NVML, so "ours" is told by time: whatever is on a GPU before our process starts
or after it ended is somebody else's.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")
# nvml.h, nvmlClocksEventReasons: what keeps clocks below their best. Idleness and clocks that somebody has set are no
# event of a run.
POWER_CAP = "power cap"
THROTTLES = {
    0x04: POWER_CAP,
    0x08: "hardware slowdown",
    0x20: "too hot (software)",
    0x40: "too hot (hardware)",
    0x80: "power brake",
}
_SM, _MEMORY, _CELSIUS = 1, 2, 0  # NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU


@dataclass(frozen=True)
class GpuState:
    """One reading of one GPU. Clocks in MHz, power in watts, energy in joules since the driver was loaded, memory in
    bytes; `throttles` as in `THROTTLES`, `processes` how many compute processes are on it."""

    uuid: str
    sm_mhz: int | None
    memory_mhz: int | None
    celsius: int | None
    watts: float | None
    joules: float | None
    used: int | None
    throttles: tuple[str, ...]
    processes: int | None


@dataclass(frozen=True)
class GpuWindow:
    """What happened on all visible GPUs while one process ran.

    `joules` of the GPUs (None where not counted); `peak_bytes` the most memory in use above what was in use before;
    `sm_mhz` the median clock while it ran; `others` how many processes of others were seen before or after;
    `throttles` at any time; the readings of both ends as they were.
    """

    joules: float | None
    peak_bytes: int | None
    sm_mhz: float | None
    others: int
    throttles: tuple[str, ...]
    before: tuple[GpuState, ...]
    after: tuple[GpuState, ...]

    @property
    def contended(self) -> bool:
        """Whether the figures are somebody else's too, or heat or hardware held the clocks down. The power cap does
        not count: under full load it is the usual state, in every arm."""
        return self.others > 0 or any(name != POWER_CAP for name in self.throttles)

    def data(self) -> dict[str, Any]:
        """For ``processes.jsonl``."""
        ends = {"before": [vars(s) for s in self.before], "after": [vars(s) for s in self.after]}
        return vars(self) | ends | {"contended": self.contended}

    @classmethod
    def read(cls, data: dict[str, Any]) -> GpuWindow:
        """A window from its `data`."""
        ends = {
            end: tuple(GpuState(**(state | {"throttles": tuple(state["throttles"])})) for state in data[end])
            for end in ("before", "after")
        }
        kept = {name: value for name, value in data.items() if name != "contended"}
        return cls(**(kept | ends | {"throttles": tuple(data["throttles"])}))


class Gpus:
    """The GPUs that our processes can see. `nvml` is the module ``pynvml`` or something of its shape."""

    def __init__(self, nvml: Any, handles: Sequence[tuple[str, Any]]) -> None:
        self.nvml = nvml
        self.handles = tuple(handles)

    @classmethod
    def find(cls, nvml: Any = None, visible: str | None = None) -> Gpus | None:
        """The visible GPUs, or None where there are none that NVML can read. `visible` stands for
        ``CUDA_VISIBLE_DEVICES``."""
        try:
            nvml = nvml or import_module("pynvml")
        except ImportError:
            return None
        try:
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
            known = [(_text(nvml.nvmlDeviceGetUUID(handle)), handle) for handle in handles]
        except nvml.NVMLError:
            return None
        shown = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
        chosen = known if shown is None else _chosen(known, shown)
        return cls(nvml, chosen) if chosen else None

    def describe(self) -> list[dict[str, Any]]:
        """What stays the same during a run: name, uuid, driver, memory in bytes, power limit in watts."""
        driver = self._ask(lambda: _text(self.nvml.nvmlSystemGetDriverVersion()))
        return [{"uuid": uuid, "driver": driver, **self._facts(handle)} for uuid, handle in self.handles]

    def _facts(self, handle: Any) -> dict[str, Any]:
        nvml = self.nvml
        return {
            "name": self._ask(lambda: _text(nvml.nvmlDeviceGetName(handle))),
            "memory_bytes": self._ask(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total)),
            "power_limit_watts": self._ask(lambda: float(nvml.nvmlDeviceGetEnforcedPowerLimit(handle)) / 1e3),
        }

    def read(self) -> tuple[GpuState, ...]:
        """One reading of every GPU."""
        return tuple(self._state(uuid, handle) for uuid, handle in self.handles)

    def _state(self, uuid: str, handle: Any) -> GpuState:
        nvml = self.nvml
        # Older bindings have only the older name.
        reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
        reasons = reasons or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
        bits = self._ask(lambda: int(reasons(handle))) or 0
        return GpuState(
            uuid=uuid,
            sm_mhz=self._ask(lambda: int(nvml.nvmlDeviceGetClockInfo(handle, _SM))),
            memory_mhz=self._ask(lambda: int(nvml.nvmlDeviceGetClockInfo(handle, _MEMORY))),
            celsius=self._ask(lambda: int(nvml.nvmlDeviceGetTemperature(handle, _CELSIUS))),
            watts=self._ask(lambda: float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3),
            joules=self._ask(lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3),
            used=self._ask(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used)),
            throttles=tuple(name for bit, name in THROTTLES.items() if bits & bit),
            processes=self._ask(lambda: len(nvml.nvmlDeviceGetComputeRunningProcesses(handle))),
        )

    def _ask(self, question: Callable[[], T]) -> T | None:
        """The answer, or None where this GPU or driver has none."""
        try:
            return question()
        except self.nvml.NVMLError:
            return None


def gpu_between(
    before: tuple[GpuState, ...], after: tuple[GpuState, ...], during: Sequence[tuple[GpuState, ...]] = ()
) -> GpuWindow:
    """Judge the time between two readings, with those that were made meanwhile."""
    spent = [_difference(a.joules, b.joules) for b, a in zip(before, after, strict=True)]
    start = _total([state.used for state in before])
    peaks = [used for look in during if (used := _total([state.used for state in look])) is not None]
    clocks = [state.sm_mhz for look in during for state in look if state.sm_mhz is not None]
    seen = (*before, *(state for look in during for state in look), *after)
    return GpuWindow(
        joules=_total(spent),
        peak_bytes=int(max(*peaks, start) - start) if peaks and start is not None else None,
        sm_mhz=statistics.median(clocks) if clocks else None,
        others=sum(max(b.processes or 0, a.processes or 0) for b, a in zip(before, after, strict=True)),
        throttles=tuple(dict.fromkeys(name for state in seen for name in state.throttles)),
        before=before,
        after=after,
    )


def _chosen(known: list[tuple[str, Any]], visible: str) -> list[tuple[str, Any]]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` names, by number or by the start of a uuid; it ends at the first it does
    not know."""
    out = []
    for word in (part.strip() for part in visible.split(",")):
        if word.isdecimal() and int(word) < len(known):
            out.append(known[int(word)])
        elif word.startswith("GPU-") and (found := [gpu for gpu in known if gpu[0].startswith(word)]):
            out.append(found[0])
        else:
            break
    return out


def _difference(later: float | None, earlier: float | None) -> float | None:
    # A driver that was loaded again counts from zero.
    return later - earlier if later is not None and earlier is not None and later >= earlier else None


def _total(values: Sequence[float | None]) -> float | None:
    """The sum, unless one is unknown or there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _text(value: str | bytes) -> str:
    """Older bindings answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value
