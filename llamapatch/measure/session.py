"""One comparison from prepared arms to raw measurements: what runs, in which order, and what went wrong.

A part that measured nothing (`NotMeasured`) becomes a `Problem` and the others go on: a comparison reports everything
it could learn and then ends with exit code 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llamapatch.errors import NotMeasured
from llamapatch.measure.arms import BASE, OFF, ON, PEER, Arm
from llamapatch.measure.bench import Speed, measure_speed
from llamapatch.measure.greedy import Agreement, Writing, cut_prompts, measure_greedy
from llamapatch.measure.identity import Identity, measure_identity
from llamapatch.measure.inputs import ModelFile, TextFile, cut_prompt
from llamapatch.measure.kernels import KernelSample, measure_kernels
from llamapatch.measure.perplexity import Divergence, TextLoad, measure_divergence, save_base_logits
from llamapatch.measure.progress import Progress
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.scenario import Profile, Scenario
from llamapatch.measure.schedule import interleave
from llamapatch.measure.stats import Activity, total


@dataclass(frozen=True)
class RoundPlan:
    """One model, the patches whose declared type of model it is, and the scenarios that run on it. Random weights have
    no text quality: `quality` is for models that were trained."""

    model: ModelFile
    patches: tuple[str, ...]
    scenarios: Mapping[str, Scenario]
    quality: bool = True


@dataclass(frozen=True)
class KernelPlan:
    """A patch's own benchmark: the built program and its arguments."""

    patch: str
    program: Path
    args: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """Everything that is decided before the first process runs. `switched` are the selected patches that have a
    switch; `profile` says how much, on `threads` threads."""

    arms: tuple[Arm, ...]
    rounds: tuple[RoundPlan, ...]
    kernels: tuple[KernelPlan, ...]
    text: TextFile
    profile: Profile
    threads: int
    seed: int
    switched: tuple[str, ...]
    logits_cache: Path

    @property
    def own_arms(self) -> tuple[Arm, ...]:
        """The arms that are this series or its upstream: all but the peers."""
        return tuple(arm for arm in self.arms if not arm.name.startswith(PEER))


@dataclass(frozen=True)
class Problem:
    """A part of the comparison that measured nothing, and why."""

    where: str
    what: str


@dataclass
class Round:
    """The measurements on one model: `divergences` by context and arm, `speeds` by scenario. `activity` are the
    patches' counters of the ``on`` arm."""

    plan: RoundPlan
    divergences: dict[int, dict[str, Divergence]] = field(default_factory=dict)
    identity: list[Identity] = field(default_factory=list)
    greedy: list[Agreement] = field(default_factory=list)
    speeds: dict[str, list[Speed]] = field(default_factory=dict)
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


# Whether more blocks would settle what a round has not settled yet; the judging room decides.
Undecided = Callable[[Round], bool]


def collect(job: Job, folder: RunFolder, progress: Progress, undecided: Undecided | None = None) -> Measurements:
    """Run the whole job. Raises only for bad input and a broken environment; see `Measurements.problems`.

    While a round is `undecided` its blocks are repeated, at most ``profile.extend`` times.
    """
    collector = _Collector(job, folder, progress, undecided or (lambda _: False))
    progress.expect(expected_seconds(job))
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

    def __init__(self, job: Job, folder: RunFolder, progress: Progress, undecided: Undecided) -> None:
        self.job = job
        self.folder = folder
        self.progress = progress
        self.undecided = undecided
        self.found = Measurements()
        self.arms = {arm.name: arm for arm in job.arms}

    def round(self, plan: RoundPlan) -> Round:
        """Quality, identity and speed on one model."""
        result = Round(plan)
        first = len(self.folder.runs)
        where = f"{plan.model.name} {plan.model.type}"
        if plan.quality:
            self._trained(result, where)
        with self._part(f"speed, {where}"):
            self._speed(result, where)
        result.activity = self._counters(first, where)
        return result

    def kernels(self, plan: KernelPlan) -> KernelRound:
        """A patch's own benchmark."""
        result = KernelRound(plan)
        first = len(self.folder.runs)
        where = f"kernel benchmark of {plan.patch}"
        blocks = self.job.profile.blocks
        arms = {arm.name: arm for arm in self.job.own_arms}
        with self._part(where):
            samples = []
            for step, (block, name) in enumerate(interleave(list(arms), blocks, self.job.seed)):
                self.progress.step(f"{where}, block {block + 1} of {blocks}, {name}", KERNEL_SECONDS)
                key = f"kernel {plan.patch} {step}"
                samples.append(measure_kernels(self.folder, arms[name], block, plan.program, plan.args, key=key))
            if len({frozenset(sample.ns) for sample in samples}) != 1:
                raise NotMeasured(f"the {where} did not print the same cases each time.")
            result.samples = samples
        result.activity = self._counters(first, where)
        return result

    def _trained(self, result: Round, where: str) -> None:
        job, plan = self.job, result.plan
        profile = job.profile
        for context in (profile.context, *profile.long_contexts):
            with self._part(f"quality, {where}, context {context}"):
                windows = profile.windows * profile.context // context if profile.windows else None
                load = TextLoad(job.text.path, job.text.sha256, context, windows, job.threads)
                self._divergences(plan, load, result.divergences.setdefault(context, {}), where)
        with self._part(f"logits, {where}"):
            result.identity = measure_identity(
                self.folder,
                job.own_arms,
                plan.model.path,
                cut_prompt(job.text, profile.prompt_bytes, self.folder),
                job.threads,
                step=lambda text: self.progress.step(f"{where}: {text}", LOGITS_SECONDS),
            )
        if not profile.greedy_prompts:
            return
        with self._part(f"greedy text, {where}"):
            result.greedy = measure_greedy(
                self.folder,
                job.arms,
                plan.model.path,
                cut_prompts(job.text, profile.greedy_prompts, self.folder),
                Writing(profile.greedy_tokens, job.threads),
                step=lambda text: self.progress.step(f"{where}: {text}", GREEDY_SECONDS * (1 + len(job.arms))),
            )

    def _divergences(self, plan: RoundPlan, load: TextLoad, out: dict[str, Divergence], where: str) -> None:
        """Fill `out` arm by arm, so that what was measured before a failure counts."""
        job, model = self.job, plan.model
        weight = WINDOW_SECONDS * (load.windows or all_windows(job.text, load.context))
        self.progress.step(f"{where}: perplexity of base at {load.context}", weight)
        base = save_base_logits(self.folder, self.arms[BASE], model.path, model.sha256, load, cache=job.logits_cache)
        for arm in job.arms:
            if arm.name != BASE:
                self.progress.step(f"{where}: KL divergence of {arm.name} at {load.context}", weight)
                out[arm.name] = measure_divergence(self.folder, arm, model.path, base, load.threads)

    def _speed(self, result: Round, where: str) -> None:
        """The blocks of each scenario; the ones that stay undecided once more, as often as the profile says."""
        plan, profile = result.plan, self.job.profile
        for repeat in range(1 + profile.extend):
            if repeat and not self.undecided(result):
                break
            for name, scenario in plan.scenarios.items():
                if repeat and not scenario.primary:
                    continue
                if repeat:
                    self.progress.expect(_scenario_seconds(scenario, profile, len(self.arms)))
                self._blocks(result, name, scenario, repeat, where)
        _check_builds([speed for speeds in result.speeds.values() for speed in speeds])

    def _blocks(self, result: Round, name: str, scenario: Scenario, repeat: int, where: str) -> None:
        plan, job = result.plan, self.job
        blocks = scenario.blocks or job.profile.blocks
        speeds = result.speeds.setdefault(name, [])
        for step, (at, arm) in enumerate(interleave(list(self.arms), blocks, job.seed + repeat)):
            block = repeat * blocks + at
            self.progress.step(
                f"{where}: {name}, block {block + 1} of {(repeat + 1) * blocks}, {arm}", scenario.seconds
            )
            key = f"speed {plan.model.sha256[:12]} {name} {repeat} {step}"
            speeds.append(
                measure_speed(
                    self.folder,
                    self.arms[arm],
                    block,
                    plan.model.path,
                    scenario,
                    name=name,
                    threads=job.threads,
                    key=key,
                )
            )

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
        if speed.build_commit:  # llama-batched-bench does not say
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


# Expected seconds of a step on two idle cores, for the estimate of time left; a scenario states its own.
WINDOW_SECONDS = 0.15
LOGITS_SECONDS = 1.5
KERNEL_SECONDS = 3.0
GREEDY_SECONDS = 0.3


def expected_seconds(job: Job) -> float:
    """How long the job would take on two idle cores, without extensions."""
    profile, own = job.profile, len(job.own_arms)
    total_seconds = KERNEL_SECONDS * 2 * own * profile.blocks * len(job.kernels)
    for plan in job.rounds:
        if plan.quality:
            for context in (profile.context, *profile.long_contexts):
                windows = profile.windows * profile.context // context or all_windows(job.text, context)
                total_seconds += WINDOW_SECONDS * windows * len(job.arms)
            total_seconds += LOGITS_SECONDS * 2 * own
            total_seconds += GREEDY_SECONDS * (1 + len(job.arms)) * profile.greedy_prompts
        total_seconds += sum(_scenario_seconds(s, profile, len(job.arms)) for s in plan.scenarios.values())
    return total_seconds


def _scenario_seconds(scenario: Scenario, profile: Profile, arms: int) -> float:
    return scenario.seconds * 2 * arms * (scenario.blocks or profile.blocks)


def all_windows(text: TextFile, context: int) -> int:
    """About how many windows a whole text has: a token is some three bytes of source code."""
    return max(2, math.ceil(text.bytes / 3 / context))
