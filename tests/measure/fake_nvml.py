"""Something of pynvml's shape: two GPUs whose state a test sets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """What the real module raises."""


class FakeNvml:
    """`gpus` are dicts: uuid, sm, memory_clock, celsius, milliwatts, millijoules, used, total, reasons, pids. A missing
    key is a question that this GPU does not answer."""

    NVMLError = NVMLError

    def __init__(self, *gpus: dict[str, Any], driver: bool = True) -> None:
        self.gpus = list(gpus)
        self.driver = driver

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        return self.gpus[index]

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.1"

    def nvmlDeviceGetClockInfo(self, gpu: dict[str, Any], kind: int) -> int:  # noqa: N802
        return self._told(gpu, {1: "sm", 2: "memory_clock"}[kind])

    def nvmlDeviceGetMemoryInfo(self, gpu: dict[str, Any]) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=self._told(gpu, "used"), total=self._told(gpu, "total"))

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: dict[str, Any]) -> list[int]:  # noqa: N802
        return list(self._told(gpu, "pids"))

    def nvmlDeviceGetTemperature(self, gpu: dict[str, Any], kind: int) -> int:  # noqa: N802
        assert kind == 0
        return self._told(gpu, "celsius")

    def nvmlDeviceGetName(self, gpu: dict[str, Any]) -> str:  # noqa: N802
        return self._told(gpu, "name")

    def nvmlDeviceGetUUID(self, gpu: dict[str, Any]) -> bytes:  # noqa: N802
        return self._told(gpu, "uuid").encode()  # older bindings answer in bytes

    def nvmlDeviceGetPowerUsage(self, gpu: dict[str, Any]) -> int:  # noqa: N802
        return self._told(gpu, "milliwatts")

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: dict[str, Any]) -> int:  # noqa: N802
        return self._told(gpu, "limit")

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: dict[str, Any]) -> int:  # noqa: N802
        return self._told(gpu, "millijoules")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: dict[str, Any]) -> int:  # noqa: N802
        return self._told(gpu, "reasons")

    @staticmethod
    def _told(gpu: dict[str, Any], key: str) -> Any:
        if key not in gpu:
            raise NVMLError("Not Supported")
        return gpu[key]


def gpu(number: int = 0, **more: Any) -> dict[str, Any]:
    """An idle GPU that answers every question."""
    return {
        "uuid": f"GPU-{number}{number}{number}", "name": "NVIDIA Test", "sm": 1980, "memory_clock": 2619, "celsius": 40,
        "milliwatts": 70_000, "limit": 700_000, "millijoules": 1_000_000, "used": 500 << 20, "total": 80 << 30,
        "reasons": 1, "pids": [],
    } | more  # fmt: skip
