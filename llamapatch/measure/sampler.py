"""Look at the machine while a child runs: clock rate of the processor, clocks, memory and throttling of the GPUs.

A reading before and one after would show an idle machine. A thread of ours looks four times in the first second, then
once a second: enough for a median clock and for a peak of memory that, once allocated, stays.
"""

from __future__ import annotations

import statistics
import threading
from types import TracebackType

from llamapatch.measure.gpu import Gpus, GpuState, GpuWindow, gpu_between
from llamapatch.measure.machine import cpu_mhz


class Sampler:
    """A context manager around one child process; afterwards `mhz` is the median clock rate of the processor's cores
    in MHz (None where unknown), and `gpu` what happened on the GPUs (None without any)."""

    def __init__(self, gpus: Gpus | None = None) -> None:
        self.gpus = gpus
        self.mhz: float | None = None
        self.gpu: GpuWindow | None = None
        self._clocks: list[float] = []
        self._looks: list[tuple[GpuState, ...]] = []
        self._before: tuple[GpuState, ...] = ()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Sampler:
        if self.gpus is not None:
            self._before = self.gpus.read()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._clocks:
            self.mhz = statistics.median(self._clocks)
        if self.gpus is not None:
            self.gpu = gpu_between(self._before, self.gpus.read(), self._looks)

    def _watch(self) -> None:
        looks = 0
        while not self._over.wait(0.25 if looks < 4 else 1.0):
            looks += 1
            mhz = cpu_mhz()
            if mhz is not None:
                self._clocks.append(mhz)
            if self.gpus is not None:
                self._looks.append(self.gpus.read())
