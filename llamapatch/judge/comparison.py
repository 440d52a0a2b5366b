"""From raw measurements to a `Comparison`: pair, estimate, judge."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llamapatch.judge.paired import Estimate, estimate
from llamapatch.judge.result import (
    KernelResult,
    LogitsResult,
    Memory,
    ModelInfo,
    PatchActivity,
    Quality,
    Ratio,
    RoundResult,
)
from llamapatch.judge.verdict import Verdict, agrees_with_itself, judge
from llamapatch.judge.windows import Interval, paired_difference
from llamapatch.measure.arms import AGAIN, BASE, OFF, ON
from llamapatch.measure.bench import Load
from llamapatch.measure.kernels import KernelSample
from llamapatch.measure.session import KernelRound, Measurements, Round

MIB = float(1 << 20)
# (block, arm, positive value): one process's figure for one metric.
Samples = Sequence[tuple[int, str, float]]


def paired_log_ratios(samples: Samples, arm: str, *, inverse: bool) -> list[float]:
    """One log-ratio per block: of `arm` to the unpatched build, or the other way round when `inverse`.

    A block's figure of an arm is the mean logarithm of its processes. The unpatched build's is that of both of its
    arms, except for the A/A arm, which is set against the other alone. Blocks that lack an arm are left out.
    """
    references = (BASE,) if arm == AGAIN else (BASE, AGAIN)
    ratios = []
    for block in sorted({sample[0] for sample in samples}):
        logs: dict[str, list[float]] = {}
        for at, name, value in samples:
            if at == block:
                logs.setdefault(name, []).append(math.log(value))
        if arm not in logs or BASE not in logs:
            continue
        reference = [value for name in references for value in logs.get(name, [])]
        difference = statistics.fmean(logs[arm]) - statistics.fmean(reference)
        ratios.append(-difference if inverse else difference)
    return ratios


@dataclass(frozen=True)
class Metric:
    """One figure of every process. `convert` turns a sample into `unit` for display."""

    name: str
    samples: Samples
    unit: str
    convert: Callable[[float], float]


def ratios_of(metrics: Sequence[Metric], arms: Sequence[str], kind: Literal["speed", "amount"]) -> list[Ratio]:
    """Judge a family of primary metrics, arm by arm (each arm is a family of its own).

    The samples of a speed are durations, whose ratio is inverted: more is better.
    """
    speed = kind == "speed"
    measured = [metric for metric in metrics if metric.samples]
    fits = []
    for metric in measured:
        again = paired_log_ratios(metric.samples, AGAIN, inverse=speed)
        fits.append(agrees_with_itself(estimate(again)) if again else True)
    out = []
    for arm in arms:
        logs = [paired_log_ratios(metric.samples, arm, inverse=speed) for metric in measured]
        kept = [index for index, found in enumerate(logs) if found]
        estimates = [estimate(logs[index]) for index in kept]
        verdicts = judge(estimates, faster_is_more=speed, fit=[fits[index] for index in kept])
        for index, found, verdict in zip(kept, estimates, verdicts, strict=True):
            # The A/A arm is what verdicts rest on; it has none itself.
            shown = Verdict("info" if fits[index] else "unfit") if arm == AGAIN else verdict
            out.append(_ratio(measured[index], arm, kind, found=found, verdict=shown))
    return out


def judge_round(found: Round, load: Load, context: int) -> RoundResult:
    """All figures of one model."""
    speeds = found.speeds
    arms = [arm for arm in (AGAIN, OFF, ON) if any(speed.arm == arm for speed in speeds)]
    tests = [
        Metric(test, [(s.block, s.arm, s.ns[test]) for s in speeds], "tokens/s", _rate(1e9 * load.tokens(test)))
        for test in load.tests
    ]
    costs = [
        Metric("CPU time", [(s.block, s.arm, s.cpu_seconds) for s in speeds], "s", float),
        Metric("peak memory", [(s.block, s.arm, s.peak_rss / MIB) for s in speeds], "MiB", float),
    ]
    if speeds and all(s.joules for s in speeds):
        costs.append(Metric("energy", [(s.block, s.arm, s.joules or 0.0) for s in speeds], "J", float))
    model = found.plan.model
    return RoundResult(
        model=ModelInfo(
            name=model.name, type=model.type, sha256=model.sha256, bytes=model.bytes, source_sha256=model.source_sha256
        ),
        patches=list(found.plan.patches),
        quality=_quality(found, context),
        logits=_logits(found),
        speed=ratios_of(tests, arms, "speed"),
        cost=ratios_of(costs, arms, "amount"),
        memory=_memory(found),
        cpu_seconds_per_token={
            arm: statistics.median(s.cpu_seconds for s in found.speeds if s.arm == arm) / load.tokens_per_process
            for arm in (BASE, *arms)
            if any(s.arm == arm for s in found.speeds)
        },
    )


def judge_kernels(found: KernelRound) -> KernelResult | None:
    """The geometric mean over the cases decides; single cases are shown without a verdict, since many intervals at
    once would find something by luck."""
    samples = found.samples
    if not samples:
        return None
    arms = [arm for arm in (AGAIN, OFF, ON) if any(sample.arm == arm for sample in samples)]
    names = list(samples[0].ns)
    overall = ratios_of([Metric("all cases", _geometric(samples), "calls/s", _rate(1e9))], arms, "speed")
    cases = []
    for name in names:
        amount, unit = samples[0].work[name], samples[0].unit[name]
        metric = Metric(name, [(s.block, s.arm, s.ns[name]) for s in samples], f"{unit}/ns", _rate(amount))
        cases += [
            ratio.model_copy(update={"word": "info", "p": None, "blocks_needed": None})
            for ratio in ratios_of([metric], arms, "speed")
        ]
    plan = found.plan
    return KernelResult(patch=plan.patch, target=plan.program.name, args=list(plan.args), overall=overall, cases=cases)


def activities(found: Measurements) -> list[PatchActivity]:
    """The counters of the ``on`` arm by patch and by where they were counted."""
    sources = [(f"{r.plan.model.name} {r.plan.model.type}", r.activity) for r in found.rounds]
    sources += [(f"kernel benchmark of {k.plan.patch}", k.activity) for k in found.kernels]
    return [
        PatchActivity(
            patch=patch, where=where, handled=seen.handled, differs=seen.differs, fallback=dict(seen.fallback)
        )
        for where, activity in sources
        for patch, seen in sorted(activity.items())
    ]


def _geometric(samples: Sequence[KernelSample]) -> Samples:
    return [(s.block, s.arm, float(np.exp(np.mean([math.log(v) for v in s.ns.values()])))) for s in samples]


def _rate(amount: float) -> Callable[[float], float]:
    """From a duration to `amount` per duration."""
    return lambda duration: amount / duration


def _ratio(metric: Metric, arm: str, kind: Literal["speed", "amount"], *, found: Estimate, verdict: Verdict) -> Ratio:
    middle = {at: statistics.median(value for _, who, value in metric.samples if who == at) for at in (BASE, arm)}
    return Ratio(
        metric=metric.name,
        arm=arm,
        kind=kind,
        ratio=found.ratio,
        low=found.low,
        high=found.high,
        blocks=found.n,
        p=verdict.p,
        robust=found.robust,
        word=verdict.word,
        blocks_needed=verdict.blocks_needed,
        base=metric.convert(middle[BASE]),
        value=metric.convert(middle[arm]),
        unit=metric.unit,
    )


def _quality(found: Round, context: int) -> list[Quality]:
    floor = found.divergences.get(AGAIN)
    if floor is None:
        return []
    out = []
    for arm, result in found.divergences.items():
        own = arm == AGAIN
        nothing = Interval(0.0, None, None, 0)
        ln_ratio = nothing if own else paired_difference([r[1] for r in result.rows], [r[1] for r in floor.rows])
        kld = nothing if own else paired_difference([r[2] for r in result.rows], [r[2] for r in floor.rows])
        out.append(
            Quality(
                arm=arm,
                floor=own,
                perplexity=result.perplexity,
                ln_ratio=result.ln_ratio if own else result.ln_ratio - floor.ln_ratio,
                ln_ratio_low=ln_ratio.low,
                ln_ratio_high=ln_ratio.high,
                mean_kld=result.mean_kld,
                mean_kld_low=kld.low,
                mean_kld_high=kld.high,
                p999_kld=result.p999_kld,
                max_kld=result.max_kld,
                same_top=result.same_top,
                windows=len(result.rows),
                context=context,
            )
        )
    return out


def _logits(found: Round) -> list[LogitsResult]:
    out = []
    for identity in found.identity:
        for arm, diff in identity.against_base.items():
            out.append(
                LogitsResult(
                    arm=arm,
                    ubatch=identity.ubatch,
                    verdict=identity.verdict(arm),
                    positions=identity.positions,
                    vocabulary=identity.vocabulary,
                    nmse=_finite(diff.nmse),
                    mean_kld=_finite(diff.mean_kld),
                    max_abs=_finite(diff.max_abs),
                    same_top=diff.same_top,
                    sha256=identity.digests[arm],
                )
            )
    return out


def _memory(found: Round) -> list[Memory]:
    out = []
    for arm in (BASE, OFF, ON):
        peaks = [speed.peak_rss for speed in found.speeds if speed.arm == arm]
        # The unpatched build's own quality run is the A/A one.
        told = found.divergences.get(AGAIN if arm == BASE else arm)
        if not peaks and told is None:
            continue
        out.append(
            Memory(
                arm=arm,
                peak_rss=statistics.median(peaks) / MIB if peaks else None,
                buffers={kind: sum(sizes.values()) for kind, sizes in (told.buffers if told else {}).items()},
            )
        )
    return out


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
