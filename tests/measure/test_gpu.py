"""GPUs, through a stand-in for NVML (none of this has run on a GPU), and the clock rates of the processor."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llamapatch.judge.energy import gpu_peak, joules_per_token
from llamapatch.measure.arms import BASE, ON, Arm
from llamapatch.measure.bench import Speed
from llamapatch.measure.gpu import Gpus, GpuWindow, gpu_between
from llamapatch.measure.machine import Window, cpu_mhz, describe_machine
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.sampler import Sampler
from tests.measure.fake_nvml import FakeNvml, gpu


def found(*gpus: dict[str, object], visible: str | None = None) -> Gpus:
    gpus_ = Gpus.find(FakeNvml(*gpus), visible)
    assert gpus_ is not None
    return gpus_


def test_without_library_driver_or_gpu_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # what Python does for a module that cannot be imported
    assert Gpus.find() is None
    assert Gpus.find(FakeNvml(gpu(), driver=False)) is None
    assert Gpus.find(FakeNvml()) is None
    assert "gpus" not in describe_machine()
    with Sampler() as sampler:
        pass
    assert sampler.gpu is None and Window(0.0, 0.0, None, sampler.mhz, sampler.gpu).contended is False


def test_only_the_gpus_that_our_processes_see(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(gpu(0), gpu(1), gpu(2))

    def uuids(visible: str | None) -> list[str]:
        gpus = Gpus.find(nvml, visible)
        return [] if gpus is None else [uuid for uuid, _ in gpus.handles]

    assert uuids("1") == uuids("GPU-11") == ["GPU-111"]
    assert uuids("2,0") == ["GPU-222", "GPU-000"]
    assert uuids("0,7,1") == ["GPU-000"]  # it ends at the first that is none
    assert uuids("") == uuids("-1") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert uuids(None) == ["GPU-000", "GPU-111", "GPU-222"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert uuids(None) == ["GPU-111"]


def test_gpus_are_part_of_the_machine() -> None:
    plain, one, other = describe_machine(), describe_machine(found(gpu(0))), describe_machine(found(gpu(1)))
    assert one["gpus"] == [
        {
            "uuid": "GPU-000", "driver": "580.1", "name": "NVIDIA Test", "memory_bytes": 80 << 30,
            "power_limit_watts": 700.0,
        }
    ]  # fmt: skip
    assert len({plain["id"], one["id"], other["id"]}) == 3
    silent = found({"uuid": "GPU-9"}).describe()[0]
    assert silent == {
        "uuid": "GPU-9", "driver": "580.1", "name": None, "memory_bytes": None, "power_limit_watts": None,
    }  # fmt: skip


def test_a_window_has_energy_memory_and_clocks() -> None:
    gpus = found(gpu(0), gpu(1))
    before = gpus.read()
    gpus.nvml.gpus[0] |= {"used": 2500 << 20, "sm": 1500, "reasons": 4}
    during = gpus.read()
    gpus.nvml.gpus[0] |= {"used": 500 << 20, "sm": 1980, "reasons": 1, "millijoules": 1_250_000}
    gpus.nvml.gpus[1] |= {"millijoules": 1_010_000}
    window = gpu_between(before, gpus.read(), [during])
    assert (window.joules, window.peak_bytes, window.others) == (260.0, 2000 << 20, 0)
    assert window.sm_mhz == (1500 + 1980) / 2
    # The power cap is the usual state under full load: recorded, and no reason to doubt.
    assert window.throttles == ("power cap",) and not window.contended
    assert (before[0].celsius, before[0].watts, before[0].memory_mhz) == (40, 70.0, 2619)
    stored = json.loads(json.dumps(window.data()))
    assert stored["contended"] is False and GpuWindow.read(stored) == window


@pytest.mark.parametrize(("bit", "name"), [(0x08, "hardware slowdown"), (0x20, "too hot (software)"), (0x40, "too hot (hardware)"), (0x80, "power brake")])  # fmt: skip
def test_throttling_makes_a_sample_contended(bit: int, name: str) -> None:
    gpus = found(gpu())
    before = gpus.read()
    gpus.nvml.gpus[0]["reasons"] = bit | 1
    hot = gpus.read()
    gpus.nvml.gpus[0]["reasons"] = 1
    window = gpu_between(before, gpus.read(), [hot])
    assert window.throttles == (name,) and window.contended
    assert Window(0.0, 0.0, None, None, window).contended


def test_others_on_the_gpu_are_seen() -> None:
    gpus = found(gpu(0), gpu(1, pids=[4711]))
    window = gpu_between(gpus.read(), gpus.read())
    assert window.others == 1 and window.contended
    alone = found(gpu(0), gpu(1, pids=[4711]), visible="0")
    assert not gpu_between(alone.read(), alone.read()).contended


def test_what_a_gpu_does_not_tell_is_unknown() -> None:
    gpus = found({"uuid": "GPU-1"})
    (state,) = gpus.read()
    assert (state.sm_mhz, state.watts, state.joules, state.used, state.processes) == (None,) * 5
    window = gpu_between(gpus.read(), gpus.read(), [gpus.read()])
    assert (window.joules, window.peak_bytes, window.sm_mhz, window.others) == (None, None, None, 0)
    # A driver that was loaded again counts from zero.
    gpus = found(gpu(millijoules=5000))
    before = gpus.read()
    gpus.nvml.gpus[0]["millijoules"] = 10
    assert gpu_between(before, gpus.read()).joules is None


def test_each_process_of_a_run_is_watched(folder: RunFolder, tmp_path: Path) -> None:
    folder.gpus = found(gpu())
    script = tmp_path / "tool"
    script.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(0.6)\n")
    script.chmod(0o755)
    run = folder.launch(Arm(BASE, tmp_path, "v0"), script, [])
    assert run.window.gpu is not None and run.window.gpu.peak_bytes == 0 and run.window.gpu.sm_mhz == 1980
    row = json.loads((folder.path / "processes.jsonl").read_text())
    assert row["gpu"]["before"][0]["uuid"] == "GPU-000" and row["gpu"]["joules"] == 0
    assert row["mhz"] == run.window.mhz
    if cpu_mhz() is not None:
        assert row["mhz"] is not None and row["mhz"] > 100


def test_clock_rates_come_from_cpufreq_then_from_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2})
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("".join(f"processor\t: {i}\ncpu MHz\t\t: {1000 + 500 * i}.5\n\n" for i in range(4)))
    assert cpu_mhz(tmp_path, cpuinfo) == 1500.5
    for core, khz in ((0, 2_000_000), (1, 9_000_000), (2, 3_000_000)):
        (tmp_path / f"cpu{core}" / "cpufreq").mkdir(parents=True)
        (tmp_path / f"cpu{core}" / "cpufreq" / "scaling_cur_freq").write_text(f"{khz}\n")
    assert cpu_mhz(tmp_path, cpuinfo) == 2500
    assert cpu_mhz(tmp_path / "none", tmp_path / "none") is None


def speed(arm: str, joules: float | None, gpu_joules: float | None, peak: int | None) -> Speed:
    window = GpuWindow(gpu_joules, peak, None, 0, (), (), ())
    return Speed(0, arm, {"pp": 1.0}, {"pp": 1.0}, 1.0, 1, joules, False, "", window)


def test_joules_per_token_where_counters_exist() -> None:
    both = [speed(BASE, 10.0, 100.0, 5), speed(BASE, 30.0, 300.0, 7), speed(ON, 5.0, 50.0, 3)]
    assert joules_per_token(both, 10) == {
        "processor packages": {BASE: 2.0, ON: 0.5},
        "GPUs": {BASE: 20.0, ON: 5.0},
    }
    assert (gpu_peak(both, BASE), gpu_peak(both, ON), gpu_peak(both, "off")) == (6, 3, None)
    # A GPU that no process used counts somebody else's work; a counter that one process lacks counts for nobody.
    assert joules_per_token([speed(BASE, 10.0, 100.0, 0), speed(ON, 5.0, 50.0, 0)], 10) == {
        "processor packages": {BASE: 1.0, ON: 0.5}
    }
    assert joules_per_token([speed(BASE, None, None, None), speed(ON, 5.0, None, None)], 10) == {}
    assert gpu_peak([speed(BASE, 1.0, None, None)], BASE) is None
