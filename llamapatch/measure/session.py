"""One comparison from prepared arms to raw measurements: what runs, in which order, and what went wrong.

A part that measured nothing (`NotMeasured`) becomes a `Problem` and the others go on: a comparison reports everything
it could learn and then ends with exit code 8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llamapatch.errors import NotMeasured
from llamapatch.measure.arms import BASE, OFF, ON, Arm
from llamapatch.measure.bench import Load, Speed, measure_speed
from llamapatch.measure.identity import Identity, measure_identity
from llamapatch.measure.inputs import ModelFile, TextFile, cut_prompt
from llamapatch.measure.kernels import KernelSample, measure_kernels
from llamapatch.measure.perplexity import BaseLogits, Divergence, TextLoad, measure_divergence, save_base_logits
from llamapatch.measure.progress import Progress
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.schedule import interleave
from llamapatch.measure.stats import Activity, total

# Fewer blocks can never reject anything once Holm's correction over three metrics is paid.
MIN_BLOCKS = 7


@dataclass(frozen=True)
class Size:
    """How much is measured. `windows` of `context` tokens (None: the whole text), `prompt_bytes` of text for the
    identity of logits, `blocks` of every arm twice."""

    load: Load
    blocks: int
    context: int
    windows: int | None
    prompt_bytes: int
    quick: bool


def quick_size(threads: int, blocks: int | None = None, windows: int | None = None) -> Size:
    """Minutes on two cores; two blocks support no verdict on speed."""
    return Size(Load(256, 32, threads), blocks or 2, 512, windows or 16, 600, True)


def full_size(threads: int, blocks: int | None = None, windows: int | None = None) -> Size:
    """The whole text and enough blocks for a verdict."""
    return Size(Load(512, 128, threads), blocks or MIN_BLOCKS, 512, windows, 1500, False)


@dataclass(frozen=True)
class RoundPlan:
    """One model and the patches whose declared type of model it is."""

    model: ModelFile
    patches: tuple[str, ...]


@dataclass(frozen=True)
class KernelPlan:
    """A patch's own benchmark: the built program and its arguments."""

    patch: str
    program: Path
    args: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """Everything that is decided before the first process runs. `switched` are the selected patches that have a
    switch."""

    arms: tuple[Arm, ...]
    rounds: tuple[RoundPlan, ...]
    kernels: tuple[KernelPlan, ...]
    text: TextFile
    size: Size
    seed: int
    switched: tuple[str, ...]
    logits_cache: Path


@dataclass(frozen=True)
class Problem:
    """A part of the comparison that measured nothing, and why."""

    where: str
    what: str


@dataclass
class Round:
    """The measurements on one model. `activity` are the patches' counters of the ``on`` arm."""

    plan: RoundPlan
    logits: BaseLogits | None = None
    divergences: dict[str, Divergence] = field(default_factory=dict)
    identity: list[Identity] = field(default_factory=list)
    speeds: list[Speed] = field(default_factory=list)
    activity: dict[str, Activity] = field(default_factory=dict)


@dataclass
class KernelRound:
    """The measurements of one kernel benchmark."""

    plan: KernelPlan
    samples: list[KernelSample] = field(default_factory=list)
    activity: dict[str, Activity] = field(default_factory=dict)


@dataclass
class Measurements:
    """All that a comparison measured."""

    rounds: list[Round] = field(default_factory=list)
    kernels: list[KernelRound] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    contended: int = 0
    watched: int = 0


def collect(job: Job, folder: RunFolder, progress: Progress) -> Measurements:
    """Run the whole job. Raises only for bad input and a broken environment; see `Measurements.problems`."""
    collector = _Collector(job, folder, progress)
    progress.expect(collector.weights.total(job))
    found = collector.found
    for plan in job.rounds:
        found.rounds.append(collector.round(plan))
    for kernel in job.kernels:
        found.kernels.append(collector.kernels(kernel))
    _check_reached(job, found)
    watched = [run.window for run in folder.runs if run.window.other_cores is not None]
    found.watched = len(watched)
    found.contended = sum(window.contended for window in watched)
    return found


class _Collector:
    """Runs the parts of one job and gathers what they found."""

    def __init__(self, job: Job, folder: RunFolder, progress: Progress) -> None:
        self.job = job
        self.folder = folder
        self.progress = progress
        self.found = Measurements()
        self.weights = _Weights.of(job)
        self.arms = {arm.name: arm for arm in job.arms}

    def round(self, plan: RoundPlan) -> Round:
        """Quality, identity and speed on one model."""
        result = Round(plan)
        first = len(self.folder.runs)
        where = f"{plan.model.name} {plan.model.type}"
        with self._part(f"quality, {where}"):
            self._quality(result, where)
        with self._part(f"logits, {where}"):
            size = self.job.size
            prompt = cut_prompt(self.job.text, size.prompt_bytes, self.folder)
            result.identity = measure_identity(
                self.folder,
                self.job.arms,
                plan.model.path,
                prompt,
                size.load.threads,
                step=lambda text: self.progress.step(f"{where}: {text}", self.weights.logits),
            )
        with self._part(f"speed, {where}"):
            result.speeds = self._speed(plan, where)
        result.activity = self._counters(first, where)
        return result

    def kernels(self, plan: KernelPlan) -> KernelRound:
        """A patch's own benchmark."""
        result = KernelRound(plan)
        first = len(self.folder.runs)
        where = f"kernel benchmark of {plan.patch}"
        blocks = self.job.size.blocks
        with self._part(where):
            samples = []
            for block, name in interleave(list(self.arms), blocks, self.job.seed):
                self.progress.step(f"{where}, block {block + 1} of {blocks}, {name}", self.weights.kernel)
                samples.append(measure_kernels(self.folder, self.arms[name], block, plan.program, plan.args))
            if len({frozenset(sample.ns) for sample in samples}) != 1:
                raise NotMeasured(f"the {where} did not print the same cases each time.")
            result.samples = samples
        result.activity = self._counters(first, where)
        return result

    def _quality(self, result: Round, where: str) -> None:
        job, model, weight = self.job, result.plan.model, self.weights.window * self.weights.windows
        load = TextLoad(job.text.path, job.text.sha256, job.size.context, job.size.windows, job.size.load.threads)
        self.progress.step(f"{where}: perplexity of base", weight)
        result.logits = save_base_logits(
            self.folder, self.arms[BASE], model.path, model.sha256, load, cache=job.logits_cache
        )
        for arm in job.arms:
            if arm.name == BASE:
                continue
            self.progress.step(f"{where}: KL divergence of {arm.name}", weight)
            result.divergences[arm.name] = measure_divergence(self.folder, arm, model.path, result.logits, load.threads)

    def _speed(self, plan: RoundPlan, where: str) -> list[Speed]:
        size = self.job.size
        speeds = []
        for block, name in interleave(list(self.arms), size.blocks, self.job.seed):
            self.progress.step(f"{where}: speed, block {block + 1} of {size.blocks}, {name}", self.weights.speed)
            speeds.append(measure_speed(self.folder, self.arms[name], block, plan.model.path, size.load))
        _check_builds(speeds)
        return speeds

    def _counters(self, first: int, where: str) -> dict[str, Activity]:
        """The ``on`` arm's counters since process `first`; counters of the other arms must be silent."""
        runs = self.folder.runs[first:]
        silent = [run for run in runs if run.arm in (OFF, ON) and run.stats is None]
        if silent:
            self.found.problems.append(
                Problem(
                    where, f"{len(silent)} processes of the patched build wrote no statistics: has it the foundation?"
                )
            )
        # A patch that works although its switch is off makes the off arm something else than it claims.
        for patch, activity in total(run.stats for run in runs if run.arm == OFF).items():
            if activity.handled:
                what = f"{patch} handled {activity.handled} calls in the off arm: its switch does not hold."
                self.found.problems.append(Problem(where, what))
        return total(run.stats for run in runs if run.arm == ON)

    @contextmanager
    def _part(self, where: str) -> Iterator[None]:
        try:
            yield
        except NotMeasured as error:
            self.found.problems.append(Problem(where, str(error)))


def _check_builds(speeds: Sequence[Speed]) -> None:
    """Every process of an arm must name the same build."""
    commits: dict[str, set[str]] = {}
    for speed in speeds:
        commits.setdefault(speed.arm, set()).add(speed.build_commit)
    for arm, names in commits.items():
        if len(names) != 1:
            raise NotMeasured(f"the {arm} arm ran several builds: {', '.join(sorted(names))}.")


def _check_reached(job: Job, found: Measurements) -> None:
    """An ``on`` arm that handled nothing has measured nothing: each switched patch must have been reached, by
    upstream's tools or by its own benchmark."""
    if not any(arm.name == ON for arm in job.arms):
        return
    sources = [r.activity for r in found.rounds] + [k.activity for k in found.kernels]
    for patch in job.switched:
        seen = [activity[patch] for activity in sources if patch in activity]
        if any(activity.handled for activity in seen):
            continue
        if not seen:
            why = "no process of the on arm registered it"
        else:
            reasons: dict[str, int] = {}
            for activity in seen:
                for reason, count in activity.fallback.items():
                    reasons[reason] = reasons.get(reason, 0) + count
            listed = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items()))
            why = f"it handled no call; fallbacks: {listed or 'none counted'}"
        found.problems.append(Problem(f"patch {patch}", f"switched on, yet nothing of it was measured: {why}."))


@dataclass(frozen=True)
class _Weights:
    """Expected seconds of the steps, for the estimate of time left; only ratios matter."""

    window: float
    windows: int
    logits: float
    speed: float
    kernel: float

    @classmethod
    def of(cls, job: Job) -> _Weights:
        scale = max(1.0, sum(plan.model.bytes for plan in job.rounds) / max(len(job.rounds), 1) / 12e6)
        size = job.size
        windows = size.windows or max(2, math.ceil(job.text.bytes / 3 / size.context))
        return cls(
            window=0.2 * scale,
            windows=windows,
            logits=2.0 * scale,
            speed=(size.load.tokens_per_process * 0.0006 + size.load.generate * 0.02) * scale,
            kernel=5.0,
        )

    def total(self, job: Job) -> float:
        arms, blocks = len(job.arms), job.size.blocks
        per_round = self.window * self.windows * arms + 2 * self.logits * arms + self.speed * 2 * arms * blocks
        return per_round * len(job.rounds) + self.kernel * 2 * arms * blocks * len(job.kernels)
