"""The machine a figure comes from, and who else was using it meanwhile.

Nothing here refuses to measure: a shared machine is recorded as such, and the statistics widen on their own. What the
kernel does not tell (a container without cpufreq, a system without ``/proc``) is None, never a guess.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from llamapatch.measure.gpu import Gpus, GpuWindow

# More than this much of a core used by others while a sample ran makes it a contended sample.
CONTENDED_CORES = 0.3
_FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8",
    "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_POWERCAP = Path("/sys/class/powercap")
_CPUFREQ = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")


def describe_machine(gpus: Gpus | None = None) -> dict[str, Any]:
    """What stays the same during a run. `id` is a hash of it: figures of different ids must not be compared. With
    `gpus`, they are part of the machine."""
    model, flags = _cpu()
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": model,
        "flags": flags,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "physical_cores": psutil.cpu_count(logical=False),
        "memory_bytes": psutil.virtual_memory().total,
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
    }
    if gpus is not None:
        facts["gpus"] = gpus.describe()
    parts = ("architecture", "cpu", "flags", "cores", *(["gpus"] if gpus is not None else []))
    key = "\n".join(f"{name}={facts[name]}" for name in parts)
    return {"id": hashlib.sha256(key.encode()).hexdigest()[:12], **facts}


@dataclass(frozen=True)
class Load:
    """A reading of the counters: seconds of CPU time used by anyone and stolen by the hypervisor, and joules."""

    busy: float | None
    steal: float | None
    joules: float | None
    average: float | None

    @classmethod
    def now(cls) -> Load:
        times = psutil.cpu_times()
        steal = getattr(times, "steal", None)
        busy = sum(times[:3]) + sum(getattr(times, name, 0.0) for name in ("irq", "softirq"))
        try:
            average: float | None = os.getloadavg()[0]
        except OSError:
            average = None
        # A sandbox may show all zeros; that is "unknown", not "idle".
        known = busy > 0
        return cls(busy if known else None, steal if known else None, read_joules(), average)


@dataclass(frozen=True)
class Window:
    """What happened between two readings while a child ran: `other_cores` is CPU time of everyone else per second,
    `steal_cores` time the hypervisor took away per second, `joules` of the packages where they are counted, `mhz` the
    median clock rate of the cores, `gpu` what happened on the GPUs."""

    other_cores: float | None
    steal_cores: float | None
    joules: float | None
    mhz: float | None = None
    gpu: GpuWindow | None = None

    @property
    def contended(self) -> bool:
        gpu = self.gpu is not None and self.gpu.contended
        return gpu or max(self.other_cores or 0.0, self.steal_cores or 0.0) > CONTENDED_CORES


def between(before: Load, after: Load, seconds: float, child_cpu: float) -> Window:
    """Judge the time between two readings, during which our child used `child_cpu` seconds of CPU time.

    The kernel's counters tick in hundredths, so windows shorter than a tenth of a second say nothing.
    """
    if seconds < 0.1 or before.busy is None or after.busy is None:
        return Window(None, None, None)
    other = max(after.busy - before.busy - child_cpu, 0.0) / seconds
    steal = (after.steal - before.steal) / seconds if after.steal is not None and before.steal is not None else None
    joules = after.joules - before.joules if after.joules is not None and before.joules is not None else None
    return Window(other, steal, joules if joules is not None and joules >= 0 else None)


def free_cores(seconds: float = 0.5) -> int:
    """How many cores nobody uses just now, at least one. Threads that wait for each other while a neighbour holds
    their core spend orders of magnitude more time waiting than working."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    before, started = Load.now(), time.monotonic()
    time.sleep(seconds)
    after = Load.now()
    if before.busy is None or after.busy is None:
        return cores
    used = (after.busy - before.busy) / (time.monotonic() - started)
    return max(1, min(cores, cores - round(used)))


def read_joules(root: Path = _POWERCAP) -> float | None:
    """The energy counters of all processor packages (RAPL) in joules, or None where they cannot be read."""
    total = 0.0
    found = False
    for zone in sorted(root.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") != 1:  # sub-zones are part of their package
            continue
        text = _read(zone / "energy_uj")
        if text is None:
            return None
        total += int(text) / 1e6
        found = True
    return total if found else None


def cpu_mhz(cpufreq: Path = _CPUFREQ, cpuinfo: Path = _CPUINFO) -> float | None:
    """The mean clock rate, just now, of the cores that we may use, in MHz; None where the system does not tell (a
    virtual machine's ``/proc/cpuinfo`` tells a constant)."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    told = [_read(cpufreq / f"cpu{core}/cpufreq/scaling_cur_freq") for core in allowed]
    khz = [int(text) for text in told if text and text.isdecimal()]
    if khz:
        return sum(khz) / len(khz) / 1e3
    mhz = [float(rate) for rate in re.findall(r"^cpu MHz\s*:\s*([0-9.]+)$", _read(cpuinfo) or "", re.M)]
    mine = [mhz[core] for core in allowed if core < len(mhz)]
    return sum(mine) / len(mine) if mine else None


def _cpu() -> tuple[str, list[str]]:
    text = _read(Path("/proc/cpuinfo")) or ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    have = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()
    return name, [flag for flag in _FLAGS if flag in have]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
