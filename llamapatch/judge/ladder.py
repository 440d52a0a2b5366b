"""The gate's ladder: one job from lint to memory, each step with its evidence.

Lint, apply, compile and the tests come first, cheapest first; the first of them that fails ends the job, because what
follows would measure something else than the patch. The last four steps read one comparison.
"""

from __future__ import annotations

import datetime
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llamapatch.build.builder import Build, BuildOptions, build
from llamapatch.build.check import check_cuda
from llamapatch.build.cuda import probe_cuda
from llamapatch.build.kernels import test_kernels
from llamapatch.config import Settings
from llamapatch.errors import (
    ConflictError,
    EnvironmentProblem,
    LlamapatchError,
    MismatchError,
    NotMeasured,
    UsageProblem,
)
from llamapatch.judge import rules
from llamapatch.judge.compare import compare
from llamapatch.judge.gate_result import STEPS, GatedPatch, Step, StepWord
from llamapatch.judge.jobs import GateJob, families
from llamapatch.judge.result import Comparison
from llamapatch.measure.arms import OFF, ON, Arm
from llamapatch.measure.machine import describe_machine
from llamapatch.measure.prepare import Request
from llamapatch.process import run
from llamapatch.series.load import Patch, Series
from llamapatch.series.select import Selection, select
from llamapatch.tree.relock import check_lock
from llamapatch.tree.variants import selected_variant

Report = Callable[[str], None]
# An upstream test that runs longer is stuck: the slowest takes minutes.
TEST_TIMEOUT = 3600.0


@dataclass
class Done:
    """A job's outcome: what is published, and the comparison behind it (None when no step needed one)."""

    gated: GatedPatch
    comparison: Comparison | None


@dataclass
class _Rung:
    """A step under way: what it will say, the commands that repeat it, and its evidence."""

    name: str
    word: StepWord = "not measured"
    said: str = "it did not run."
    commands: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)

    def ends(self, word: StepWord, said: str) -> None:
        self.word, self.said = word, said


class Ladder:
    """Climbs one job; `folder` receives its evidence."""

    def __init__(self, settings: Settings, series: Series, job: GateJob, folder: Path, report: Report) -> None:
        self.settings = settings
        self.series = series
        self.job = job
        self.folder = folder
        self.report = report
        self.patch: Patch = series.get(job.patch)
        self.steps: list[Step] = []
        self.comparison: Comparison | None = None

    def climb(self) -> Done:
        """Take every step; raises only for Ctrl-C and a broken environment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        measured_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._climb()
        meta = self.patch.meta
        gate = meta.gate
        budgets = {
            "max_kld": gate.max_kld,
            "max_delta_ln_ppl": gate.max_delta_ln_ppl,
            "min_top1": gate.min_top1,
            "max_slowdown": gate.max_slowdown,
            "max_memory_growth": gate.max_memory_growth,
        } | {f"{claim.metric} {claim.model}".strip() + " at least": claim.min for claim in gate.claim}
        gated = GatedPatch(
            job=self.job.hash,
            patch=meta.id,
            title=meta.title,
            phase=meta.phase,
            effect=meta.effect.effect_class,
            paper=meta.paper,
            budgets={name: value for name, value in budgets.items() if value is not None},
            where=self.job.where,
            applied=list(self.job.applied),
            backend=self.job.backend,
            scenario=self.job.profile,
            word=rules.applicable([step.word for step in self.steps]),
            steps=self.steps,
            comparison=self.comparison.id if self.comparison else None,
            cached=False,
            measured_at=measured_at,
            machine=describe_machine(),
        )
        return Done(gated, self.comparison)

    def _climb(self) -> None:
        for name, step in (("lint", self._lint), ("apply", self._apply)):
            if not self._step(name, step):
                return
        if not self._step("compile", self._compile):
            return
        self._step("compile-cuda", self._compile_cuda)
        self._step("kernel tests", self._kernel_tests)
        self._step("upstream tests", self._upstream_tests)
        if any(step.word == "fail" for step in self.steps):
            return
        self._measure()

    def _step(self, name: str, action: Callable[[_Rung], None]) -> bool:
        with self._rung(name) as rung:
            action(rung)
        return self.steps[-1].word != "fail"

    @contextmanager
    def _rung(self, name: str) -> Iterator[_Rung]:
        assert name in STEPS
        self.report(f"{self.job.patch} ({self.job.where}): {name}")
        rung, began = _Rung(name), time.monotonic()
        try:
            yield rung
        except (EnvironmentProblem, NotMeasured) as error:
            rung.ends("not measured", error.message)
        except LlamapatchError as error:
            rung.ends("fail", error.message)
        self.steps.append(
            Step(
                name=name,
                word=rung.word,
                said=rung.said,
                seconds=round(time.monotonic() - began, 3),
                commands=rung.commands,
                evidence=rung.evidence,
            )
        )

    def _selection(self) -> Selection:
        return select(self.series, (self.job.patch,) if self.job.where == "closure" else ("all",))

    def _lint(self, rung: _Rung) -> None:
        rung.commands = ["llamapatch lock --check"]
        try:
            lock = check_lock(self.settings, self.series, self.report)
        except (UsageProblem, MismatchError) as error:
            rung.ends("fail", error.message)
            return
        changed = self.patch.diff.count(b"\n+") + self.patch.diff.count(b"\n-")
        rung.ends(
            "pass", f"schema, lint and canonical form hold; chain {lock.chain[:12]}; about {changed} changed lines."
        )

    def _apply(self, rung: _Rung) -> None:
        selector = self.job.patch if self.job.where == "closure" else "all"
        rung.commands = [f"llamapatch apply {selector}", "llamapatch verify"]
        try:
            self.variant = selected_variant(self.settings, self.series, self._selection(), self.report)
        except (ConflictError, MismatchError) as error:
            rung.ends("fail", error.message)
            return
        how = "exactly" if self._is_prefix() else "merged three ways (not a prefix of the series)"
        rung.ends("pass", f"{', '.join(self.variant.ids)} apply {how}: tree {self.variant.tree}.")

    def _is_prefix(self) -> bool:
        return self.series.ids[: len(self.job.applied)] == self.job.applied

    def _compile(self, rung: _Rung) -> None:
        rung.commands = [f"llamapatch build --variant {self.job.patch if self.job.where == 'closure' else 'all'}"]
        self.build: Build = build(
            self.settings, self.variant, BuildOptions(cuda=self.job.backend == "cuda"), self.report
        )
        rung.evidence = [_shown(self.settings, self.build.folder / "build.log")]
        rung.ends(
            "pass", f"{self.variant.label} builds ({len(self.build.steps)} steps, {self.build.cpu_seconds:.0f} CPU s)."
        )

    def _compile_cuda(self, rung: _Rung) -> None:
        units = self.patch.meta.cuda_units
        if not units:
            rung.ends("not applicable", "the patch names no CUDA files.")
            return
        rung.commands = [f"llamapatch build --variant {self.job.patch} --cuda --check"]
        if not any(toolkit.complete for toolkit in probe_cuda()):
            rung.ends("not applicable", "no complete CUDA toolkit is installed here.")
            return
        options = BuildOptions(cuda=True, cuda_arch="80;90")
        done = check_cuda(self.settings, self.variant, options, units, self.report)
        rung.ends("pass", f"{', '.join(done.units)} compile for sm_80 and sm_90.")

    def _kernel_tests(self, rung: _Rung) -> None:
        names = families(self.patch)
        if not names:
            rung.ends("not applicable", "the patch has no kernels of its own.")
            return
        rung.commands = [f"ctest -R '^({'|'.join(names)})-' in a build of ggml_kernels"]
        done = test_kernels(self.settings, self.build, self.report, families=names)
        rung.evidence = [_shown(self.settings, done.log)]
        rung.ends("pass", f"{done.passed} tests of {', '.join(names)} passed in {done.seconds:.0f} s.")

    def _upstream_tests(self, rung: _Rung) -> None:
        tests = self.patch.meta.gate.upstream_tests
        if not tests:
            rung.ends("not applicable", "no upstream test touches it (`[gate] upstream_tests` is empty).")
            return
        switch = self.patch.meta.switch
        arms = [("off", OFF)] if switch is None else [("off", OFF), ("on", ON)]
        failures, count = [], 0
        for line in tests:
            program, *args = shlex.split(line)
            for value, name in arms:
                switches = {} if switch is None else {switch.env: value}
                arm = Arm(name, self.build.bin, self.variant.label, patched=True, switches=switches)
                said = " ".join([*(f"{k}={v}" for k, v in switches.items()), line])
                rung.commands.append(said)
                self.report(f"{self.job.patch} ({self.job.where}): {said}")
                done = run(
                    [arm.tool(program), *args],
                    env=arm.environment(),
                    check=False,
                    timeout=TEST_TIMEOUT,
                    cwd=self.folder,
                )
                path = self.folder / f"{count:02d}-{program}-{value}.txt"
                path.write_text(done.stdout + done.stderr, encoding="utf-8")
                rung.evidence.append(_shown(self.settings, path))
                count += 1
                if done.code != 0:
                    failures.append(f"{said} ended with status {done.code}")
        if failures:
            rung.ends("fail", f"{'; '.join(failures)}.")
        else:
            rung.ends(
                "pass", f"{', '.join(shlex.split(t)[0] for t in tests)} pass, {' and '.join(v for v, _ in arms)}."
            )

    def _measure(self) -> None:
        series = self.job.where == "series"
        request = Request(
            selectors=("all",) if series else (self.job.patch,),
            only=self.job.on if series else (),
            profile=self.job.profile,
        )
        words = ["llamapatch", "compare", *request.selectors]
        words += [word for patch_id in request.only for word in ("--only", patch_id)]
        command = shlex.join([*words, "--profile", request.profile])
        try:
            self.comparison = found = compare(self.settings, request, self.report, command=command)
        except (EnvironmentProblem, NotMeasured, UsageProblem) as error:
            for name in STEPS[STEPS.index("off-identity") :]:
                with self._rung(name) as rung:
                    rung.ends("not measured", error.message)
            return
        for name, finding in rules.measured(found, self.patch.meta).items():
            with self._rung(name) as rung:
                rung.ends(finding.word, finding.said)
                rung.commands = [command]
                rung.evidence = [f"{_shown(self.settings, Path(found.raw))}/samples.jsonl"]


def _shown(settings: Settings, path: Path) -> str:
    """A path as results show it: below the project, never a name of this machine."""
    return path.relative_to(settings.root).as_posix() if path.is_relative_to(settings.root) else path.name
