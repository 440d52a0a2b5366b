"""A run folder: every process of a comparison, what it printed, what it cost, what the patches counted.

``samples.jsonl`` gets one line for each measurement as soon as it exists, ``processes.jsonl`` one for each process, and
``out/`` each process's whole output, so an interrupted or doubted run can be read again without the machine. A run that
is resumed takes the finished processes from there instead of running them again.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llamapatch.errors import NotMeasured, UsageProblem
from llamapatch.measure.arms import Arm
from llamapatch.measure.gpu import Gpus, GpuWindow
from llamapatch.measure.machine import Load, Window, between
from llamapatch.measure.sampler import Sampler
from llamapatch.measure.stats import Activity, read_stats
from llamapatch.process import Completed, run


@dataclass(frozen=True)
class Run:
    """One finished process of one arm."""

    number: int
    arm: str
    tool: str
    done: Completed
    window: Window
    stats: dict[str, Activity] | None


@dataclass
class RunFolder:
    """Where one comparison keeps its raw data."""

    path: Path
    runs: list[Run] = field(default_factory=list)
    # What an earlier session finished: step key -> its line of processes.jsonl.
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)
    gpus: Gpus | None = None

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """An interrupted run's folder, to go on with it. Raises `UsageProblem` when it is none, or is complete."""
        if not (path / "request.json").is_file():
            raise UsageProblem(f"{path} is no run folder.", "Name one of .llamapatch/runs/.")
        if (path / "comparison.json").is_file():
            raise UsageProblem(f"{path} is complete: nothing is left to measure.", "Start a new comparison.")
        finished: dict[str, dict[str, Any]] = {}
        processes = path / "processes.jsonl"
        for line in processes.read_text(encoding="utf-8").splitlines() if processes.is_file() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the last line of a killed session
            if row.get("key") and row["code"] == 0:
                finished[row["key"]] = row
        for name in ("samples.jsonl", "processes.jsonl"):
            if (path / name).is_file():
                (path / name).replace(path / f"{name}.before-resume")
        return cls(path.resolve(), finished=finished)

    @classmethod
    def create(cls, parent: Path, keep: Path | None = None) -> RunFolder:
        """A fresh folder: `keep` itself when given (it must be empty), else a new one under `parent`."""
        name = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)
        path = keep if keep is not None else parent / name
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageProblem(f"{path} is not an empty folder, and raw data are never overwritten.", "Name a new one.")
        (path / "out").mkdir(parents=True)
        (path / "stats").mkdir()
        return cls(path.resolve())

    @property
    def name(self) -> str:
        return self.path.name

    def launch(
        self,
        arm: Arm,
        program: Path,
        args: Sequence[str],
        *,
        what: str = "",
        timeout: float | None = None,
        key: str = "",
    ) -> Run:
        """Run `program` as a process of `arm`, keep everything about it, and return it whatever its exit status.

        A step whose `key` an earlier session of this run finished, with the same command and switches, is not run
        again: its kept output is returned. Raises `NotMeasured` when the unpatched arm turns out to have loaded patched
        libraries.
        """
        number = len(self.runs) + 1
        if key and (known := self._recall(number, arm, program, args, key)) is not None:
            self.runs.append(known)
            return known
        stem = f"{number:04d}-{arm.name}-{what or program.name}"
        if (self.path / "out" / f"{stem}.out").exists():  # a step that an earlier session did not finish
            stem += f"-{secrets.token_hex(2)}"
        stats_file = self.path / "stats" / f"{stem}.json"
        before = Load.now()
        with Sampler(self.gpus) as sampler:
            done = run([program, *args], env=arm.environment(stats_file), check=False, timeout=timeout)
        window = between(before, Load.now(), done.seconds, done.cpu_seconds)
        window = replace(window, mhz=sampler.mhz, gpu=sampler.gpu)
        (self.path / "out" / f"{stem}.out").write_text(done.stdout, encoding="utf-8")
        (self.path / "out" / f"{stem}.err").write_text(done.stderr, encoding="utf-8")
        if not arm.patched and stats_file.is_file():
            raise NotMeasured(
                f"the {arm.name} arm loaded a patched library ({done.command} wrote patch statistics).",
                f"Look at the rpath of {program} and at what {arm.bin} holds; raw output: {self.path}.",
            )
        finished = Run(number, arm.name, program.name, done, window, read_stats(stats_file) if arm.patched else None)
        self.runs.append(finished)
        self._append(
            "processes.jsonl",
            {
                "number": number,
                "key": key,
                "arm": arm.name,
                "label": arm.label,
                "switches": dict(arm.switches),
                "argv": list(done.argv),
                "code": done.code,
                "seconds": done.seconds,
                "cpu_seconds": done.cpu_seconds,
                "peak_rss": done.peak_rss,
                "other_cores": window.other_cores,
                "steal_cores": window.steal_cores,
                "joules": window.joules,
                "mhz": window.mhz,
                "gpu": window.gpu.data() if window.gpu is not None else None,
                "output": f"out/{stem}.out",
            },
        )
        return finished

    def _recall(self, number: int, arm: Arm, program: Path, args: Sequence[str], key: str) -> Run | None:
        """The finished process of step `key`, rebuilt from what was kept; its lines move to the new session's files."""
        row = self.finished.get(key)
        wanted = [str(program), *args]
        if row is None or row["argv"] != wanted or row["label"] != arm.label or row["switches"] != dict(arm.switches):
            return None
        out = self.path / row["output"]
        stats = self.path / "stats" / f"{out.stem}.json"
        if not out.is_file() or not out.with_suffix(".err").is_file():
            return None
        done = Completed(
            argv=tuple(row["argv"]),
            code=row["code"],
            stdout=out.read_text(encoding="utf-8"),
            stderr=out.with_suffix(".err").read_text(encoding="utf-8"),
            seconds=row["seconds"],
            cpu_seconds=row["cpu_seconds"],
            peak_rss=row["peak_rss"],
        )
        gpu = GpuWindow.read(row["gpu"]) if row.get("gpu") else None
        window = Window(row["other_cores"], row["steal_cores"], row["joules"], row.get("mhz"), gpu)
        self._append("processes.jsonl", row | {"number": number})
        return Run(number, arm.name, program.name, done, window, read_stats(stats) if arm.patched else None)

    def record(self, kind: str, **values: Any) -> None:
        """Append one measurement to ``samples.jsonl``."""
        self._append("samples.jsonl", {"kind": kind, **values})

    def write_json(self, name: str, data: Any) -> None:
        """Keep `data` as a file of the folder."""
        text = json.dumps(_finite(data), indent=2, sort_keys=True, allow_nan=False) + "\n"
        (self.path / name).write_text(text, encoding="utf-8")

    def _append(self, name: str, data: dict[str, Any]) -> None:
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(data), sort_keys=True, allow_nan=False) + "\n")


def failed(run: Run, why: str) -> NotMeasured:
    """The error for a process that measured nothing, with the end of what it said."""
    said = (run.done.stderr.strip() or run.done.stdout.strip()).splitlines()[-4:]
    tail = " Its last words: " + " / ".join(line.strip()[-200:] for line in said) if said else ""
    return NotMeasured(f"{run.tool} of the {run.arm} arm (process {run.number}): {why}.{tail}")


def _finite(data: Any) -> Any:
    """JSON has no NaN: such a number is kept as text, so that raw data still show it."""
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data
