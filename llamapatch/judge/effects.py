"""The verbs ``waterfall``, ``ablate`` and ``bisect``: what each patch does to one metric.

``waterfall`` and ``ablate`` work on ONE build, the whole selection, with the switches as the only difference between
its states, so that nothing but the patch's own code is measured: ``waterfall`` turns one switch on after the other (its
first row is the patched build with all of them off), ``ablate`` turns each off alone while the others stay on. Patches
without a switch have no state of their own. ``bisect`` builds prefixes of the series and halves the range; it assumes
that a metric that has moved stays moved.
"""

from __future__ import annotations

import datetime
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from llamapatch import __version__
from llamapatch.build.builder import BuildOptions, build
from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.judge.gate_result import EffectsResult, PatchEffect
from llamapatch.judge.paired import estimate
from llamapatch.judge.verdict import MARGIN, judge
from llamapatch.judge.windows import Interval, paired_difference
from llamapatch.measure.arms import BASE, ON, Arm
from llamapatch.measure.bench import Speed, measure_speed
from llamapatch.measure.machine import describe_machine
from llamapatch.measure.perplexity import Divergence, TextLoad, measure_divergence, save_base_logits
from llamapatch.measure.prepare import TARGETS, Plan, Request, make_plan, prepare
from llamapatch.measure.progress import Progress
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.scenario import Scenario
from llamapatch.measure.schedule import interleave
from llamapatch.measure.session import Job, RoundPlan
from llamapatch.series.lock import series_chain
from llamapatch.series.select import select
from llamapatch.tree.variants import selected_variant

Report = Callable[[str], None]
Kind = Literal["waterfall", "ablate", "bisect"]
COSTS = {"CPU time": "s", "peak memory": "MiB"}
PERPLEXITY = "perplexity"


@dataclass(frozen=True)
class Wanted:
    """What is asked: the metric (a test such as ``tg16``, a cost, or ``perplexity``), the type of the model (empty: the
    first that has it), and for ``bisect`` the threshold as a fraction."""

    metric: str
    type_name: str = ""
    threshold: float = 0.03


def effects(
    settings: Settings, kind: Kind, request: Request, wanted: Wanted, report: Report, command: str
) -> EffectsResult:
    """Measure and judge. Raises `UsageProblem` for an unknown metric, `NotMeasured` when a state measured nothing."""
    began = time.monotonic()
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    plan = make_plan(settings, request)
    _check_metric(plan, wanted)
    folder = RunFolder.create(settings.state / "runs", request.keep)
    job = prepare(settings, request, plan, folder, report)
    meter = _Meter(job, folder, Progress(report), *_place(job, wanted), wanted.metric)
    found: str | None = None
    undecided = False
    if kind == "bisect":
        rows, found, undecided = _bisect(settings, plan, job, meter, wanted.threshold, report)
    else:
        rows = _switched(plan, job, meter, kind)
    result = EffectsResult(
        schema=1,
        kind=kind,
        tool=__version__,
        id=folder.name,
        started=stamp,
        seconds=round(time.monotonic() - began, 3),
        command=command,
        metric=wanted.metric,
        unit=meter.unit,
        model=f"{meter.round.model.name} {meter.round.model.type}",
        upstream_version=plan.series.pin.version,
        series_chain=series_chain(plan.series),
        machine=describe_machine(),
        effects=rows,
        found=found,
        threshold=wanted.threshold if kind == "bisect" else None,
        raw=str(folder.path),
        exit_code=7 if undecided else 0,
    )
    folder.write_json("effects.json", result.data())
    return result


def _check_metric(plan: Plan, wanted: Wanted) -> None:
    """Before anything is built."""
    tests = {
        test: None
        for (_, type_name), scenarios in plan.models.items()
        if wanted.type_name in ("", type_name)
        for scenario in scenarios.values()
        for test in scenario.tests
    }
    known = [*tests, *COSTS, PERPLEXITY]
    if not tests:
        types = ", ".join(dict.fromkeys(type_name for _, type_name in plan.models))
        raise UsageProblem(f"no model of type `{wanted.type_name}` is measured.", f"Known: {types}.")
    if wanted.metric not in known:
        raise UsageProblem(f"there is no metric `{wanted.metric}` in this profile.", f"Known: {', '.join(known)}.")


def _place(job: Job, wanted: Wanted) -> tuple[RoundPlan, str, Scenario]:
    """The model and the scenario that have the metric."""
    for plan in job.rounds:
        if wanted.type_name not in ("", plan.model.type):
            continue
        for name, scenario in plan.scenarios.items():
            if wanted.metric in scenario.tests or wanted.metric in COSTS or wanted.metric == PERPLEXITY:
                return plan, name, scenario
    raise UsageProblem(f"no model has the metric `{wanted.metric}`.", "See `llamapatch compare --dry-run`.")


class _Meter:
    """Measures one metric in any number of states, interleaved."""

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        progress: Progress,
        plan: RoundPlan,
        name: str,
        scenario: Scenario,
        metric: str,
    ) -> None:
        self.job = job
        self.folder = folder
        self.progress = progress
        self.round = plan
        self.name = name
        self.scenario = scenario
        self.metric = metric
        self.speeds: list[Speed] = []
        self.divergences: dict[str, Divergence] = {}

    @property
    def unit(self) -> str:
        if self.metric == PERPLEXITY:
            return "per token"
        return COSTS.get(self.metric, "tokens/s")

    @property
    def is_speed(self) -> bool:
        return self.metric in self.scenario.tests

    def measure(self, states: Sequence[Arm]) -> None:
        """Measure every state; a later call replaces what an earlier one found."""
        arms = {arm.name: arm for arm in states}
        if self.metric == PERPLEXITY:
            self._perplexity(list(arms.values()))
            return
        self.speeds = []
        blocks = self.job.profile.blocks
        self.progress.expect(2 * blocks * len(arms) * self.scenario.seconds)
        for block, name in interleave(list(arms), blocks, self.job.seed):
            self.progress.step(f"{self.metric}: block {block + 1} of {blocks}, {name}", self.scenario.seconds)
            self.speeds.append(
                measure_speed(
                    self.folder,
                    arms[name],
                    block,
                    self.round.model.path,
                    self.scenario,
                    name=self.name,
                    threads=self.job.threads,
                )
            )

    def effect(self, patch: str, before: str, after: str) -> PatchEffect:
        """How the metric changed from state `before` to state `after`."""
        if self.metric == PERPLEXITY:
            change = self._change(before, after)
            low, high = change.low, change.high
            word = "inconclusive"
            if low is not None and high is not None:
                word = "more" if low > 0 else "less" if high < 0 else "same" if max(-low, high) < MARGIN else word
            return PatchEffect(
                patch=patch,
                before=before,
                after=after,
                ratio=math.exp(change.mean),
                low=None if low is None else math.exp(low),
                high=None if high is None else math.exp(high),
                blocks=change.windows,
                word=word,
            )
        found = estimate(self._log_ratios(before, after))
        (verdict,) = judge([found], faster_is_more=self.is_speed)
        return PatchEffect(
            patch=patch,
            before=before,
            after=after,
            ratio=found.ratio,
            low=found.low,
            high=found.high,
            blocks=found.n,
            word=verdict.word,
        )

    def _value(self, speed: Speed) -> float:
        if self.metric == "CPU time":
            return speed.cpu_seconds
        return float(speed.peak_rss) if self.metric == "peak memory" else speed.ns[self.metric]

    def _log_ratios(self, before: str, after: str) -> list[float]:
        sign = -1 if self.is_speed else 1
        ratios = []
        for block in sorted({speed.block for speed in self.speeds}):
            logs = {
                name: [math.log(self._value(s)) for s in self.speeds if s.block == block and s.arm == name]
                for name in (before, after)
            }
            ratios.append(sign * (statistics.fmean(logs[after]) - statistics.fmean(logs[before])))
        return ratios

    def _perplexity(self, states: Sequence[Arm]) -> None:
        job, profile, model = self.job, self.job.profile, self.round.model
        load = TextLoad(job.text.path, job.text.sha256, profile.context, profile.windows or None, job.threads)
        base = next(arm for arm in job.arms if arm.name == BASE)
        logits = save_base_logits(self.folder, base, model.path, model.sha256, load, cache=job.logits_cache)
        for arm in states:
            if arm.name not in self.divergences:
                self.progress.step(f"perplexity of {arm.name}", 1)
                self.divergences[arm.name] = measure_divergence(self.folder, arm, model.path, logits, job.threads)

    def _change(self, before: str, after: str) -> Interval:
        rows = [[row[1] for row in self.divergences[name].rows] for name in (after, before)]
        return paired_difference(rows[0], rows[1])


def _switched(plan: Plan, job: Job, meter: _Meter, kind: Kind) -> list[PatchEffect]:
    """The rows of ``waterfall`` and ``ablate``."""
    arms = {arm.name: arm for arm in job.arms}
    if ON not in arms:
        raise UsageProblem(f"no selected patch has a switch, so there is nothing to {kind}.", "Select others.")
    full = arms[ON]
    env_of = {i: s.env for i in plan.switched if (s := plan.series.get(i).meta.switch) is not None}

    def state(name: str, on: Sequence[str]) -> Arm:
        return replace(full, name=name, switches={env: "on" if i in on else "off" for i, env in env_of.items()})

    if kind == "ablate":
        every = state("all on", plan.switched)
        states = {i: state(f"all but {i}", [j for j in plan.switched if j != i]) for i in plan.switched}
        meter.measure([every, *states.values()])
        return [meter.effect(i, arm.name, every.name) for i, arm in states.items()]
    steps = [replace(arms[BASE], name="unpatched"), state("all off", ())]
    steps += [state(f"+ {i}", plan.switched[: n + 1]) for n, i in enumerate(plan.switched)]
    meter.measure(steps)
    names = ["(all off)", *plan.switched]
    return [meter.effect(i, a.name, b.name) for i, a, b in zip(names, steps, steps[1:], strict=False)]


def _bisect(
    settings: Settings, plan: Plan, job: Job, meter: _Meter, threshold: float, report: Report
) -> tuple[list[PatchEffect], str | None, bool]:
    """Rows of the probes, the first patch that moves the metric (or None), and whether a probe was undecided."""
    ids = plan.selection.ids
    base = next(arm for arm in job.arms if arm.name == BASE)
    rows: list[PatchEffect] = []

    def moved(count: int) -> bool | None:
        name = f"up to {ids[count - 1]}"
        meter.measure([base, _prefix(settings, plan, count, name, report)])
        row = meter.effect(ids[count - 1], BASE, name)
        rows.append(row)
        if row.low is None or row.high is None:
            return None
        if row.high < 1 - threshold or row.low > 1 + threshold:
            return True
        return False if row.low >= 1 - threshold and row.high <= 1 + threshold else None

    whole = moved(len(ids))
    if whole is not True:
        return rows, None, whole is None
    still, gone = 0, len(ids)  # not moved after `still` patches, moved after `gone`
    while gone - still > 1:
        middle = (still + gone) // 2
        answer = moved(middle)
        if answer is None:
            return rows, None, True
        still, gone = (still, middle) if answer else (middle, gone)
    return rows, ids[gone - 1], False


def _prefix(settings: Settings, plan: Plan, count: int, name: str, report: Report) -> Arm:
    """The first `count` patches of the selection, built, with all their switches on."""
    series, ids = plan.series, plan.selection.ids[:count]
    made = build(
        settings, selected_variant(settings, series, select(series, ids), report), BuildOptions(targets=TARGETS), report
    )
    switches = {s.env: "on" for i in ids if (s := series.get(i).meta.switch) is not None}
    return Arm(name, made.bin, made.variant.label, made.variant.commit, True, switches)
