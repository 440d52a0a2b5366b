"""From raw measurements to a `Comparison`: pair, estimate, judge."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llamapatch.judge.energy import gpu_peak, joules_per_token
from llamapatch.judge.paired import Estimate, estimate
from llamapatch.judge.result import (
    GreedyResult,
    KernelResult,
    LogitsResult,
    Memory,
    ModelInfo,
    PatchActivity,
    Quality,
    Ratio,
    RoundResult,
)
from llamapatch.judge.verdict import Verdict, agrees_with_itself, judge, level_of
from llamapatch.judge.windows import Interval, interval, paired_difference
from llamapatch.measure.arms import AGAIN, BASE, OFF, ON
from llamapatch.measure.kernels import KernelSample
from llamapatch.measure.perplexity import Divergence
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
    """One figure of every process. `convert` turns a sample into `unit` for display; `typical` are the same processes'
    figures by another estimator, as information; what is not `primary` gets no verdict."""

    name: str
    samples: Samples
    unit: str
    convert: Callable[[float], float]
    typical: Samples = ()
    primary: bool = True


def ratios_of(
    metrics: Sequence[Metric], arms: Sequence[str], kind: Literal["speed", "amount"], looks: int = 1
) -> list[Ratio]:
    """Judge a family of metrics: the primary ones of one arm together (each arm is a family of its own).

    The samples of a speed are durations, whose ratio is inverted: more is better. `looks` as in `judge`.
    """
    level = level_of(looks)
    speed = kind == "speed"
    measured = [metric for metric in metrics if metric.samples]
    fits = []
    for metric in measured:
        again = paired_log_ratios(metric.samples, AGAIN, inverse=speed)
        fits.append(agrees_with_itself(estimate(again)) if again else True)
    out = []
    for arm in arms:
        logs = [paired_log_ratios(metric.samples, arm, inverse=speed) for metric in measured]
        estimates = {index: estimate(found, level) for index, found in enumerate(logs) if found}
        judged = [index for index in estimates if measured[index].primary and arm != AGAIN]
        words = dict(
            zip(
                judged,
                judge([estimates[i] for i in judged], faster_is_more=speed, fit=[fits[i] for i in judged], looks=looks),
                strict=True,
            )
        )
        for index, found in estimates.items():
            # The A/A arm is what verdicts rest on; it has none itself.
            own = Verdict("info" if fits[index] or arm != AGAIN else "unfit")
            out.append(_ratio(measured[index], arm, kind, found=found, verdict=words.get(index, own)))
    return out


def speed_metrics(found: Round) -> list[Metric]:
    """The tests of every scenario that ran in a round."""
    metrics = []
    for name, speeds in found.speeds.items():
        scenario = found.plan.scenarios[name]
        for test in scenario.tests:
            metrics.append(
                Metric(
                    test,
                    [(s.block, s.arm, s.ns[test]) for s in speeds],
                    "tokens/s",
                    _rate(1e9 * scenario.tokens(test)),
                    typical=[(s.block, s.arm, s.typical_ns[test]) for s in speeds],
                    primary=scenario.primary,
                )
            )
    return metrics


def undecided(found: Round, looks: int) -> bool:
    """Whether a primary speed of the ``on`` or ``off`` arm is still inconclusive."""
    arms = {speed.arm for speeds in found.speeds.values() for speed in speeds}
    ratios = ratios_of(speed_metrics(found), [arm for arm in (OFF, ON) if arm in arms], "speed", looks)
    return any(ratio.word == "inconclusive" for ratio in ratios)


def judge_round(found: Round, looks: int = 1) -> RoundResult:
    """All figures of one model; `looks` as in `judge`."""
    every = [speed for speeds in found.speeds.values() for speed in speeds]
    arms = [arm for arm in dict.fromkeys(speed.arm for speed in every) if arm != BASE]
    arms.sort(key=lambda arm: ([AGAIN, OFF, ON].index(arm) if arm in (AGAIN, OFF, ON) else 3, arm))
    return RoundResult(
        model=_model(found),
        patches=list(found.plan.patches),
        scenarios={name: scenario.title for name, scenario in found.plan.scenarios.items()},
        trained=found.plan.quality,
        quality=[q for context, told in found.divergences.items() for q in _quality(told, context)],
        logits=_logits(found),
        greedy=[
            GreedyResult(arm=a.arm, tokens=a.tokens, equal=a.equal, mean_agreed=a.mean_agreed, agreed=list(a.agreed))
            for a in found.greedy
        ],
        speed=ratios_of(speed_metrics(found), arms, "speed", looks),
        cost=ratios_of(_costs(found), arms, "amount", looks),
        memory=_memory(found),
        cpu_seconds_per_token=_cpu_per_token(found, [BASE, *arms]),
        joules_per_token=_joules_per_token(found),
    )


def _model(found: Round) -> ModelInfo:
    model = found.plan.model
    return ModelInfo(
        name=model.name, type=model.type, sha256=model.sha256, bytes=model.bytes, source_sha256=model.source_sha256
    )


def _costs(found: Round) -> list[Metric]:
    """What each process of a scenario costs besides its time."""
    metrics = []
    several = len(found.speeds) > 1
    for name, speeds in found.speeds.items():
        primary = found.plan.scenarios[name].primary
        tail = f" ({name})" if several else ""
        metrics += [
            Metric(f"CPU time{tail}", [(s.block, s.arm, s.cpu_seconds) for s in speeds], "s", float, primary=primary),
            Metric(
                f"peak memory{tail}",
                [(s.block, s.arm, s.peak_rss / MIB) for s in speeds],
                "MiB",
                float,
                primary=primary,
            ),
        ]
        if speeds and all(s.joules for s in speeds):
            energy = [(s.block, s.arm, s.joules or 0.0) for s in speeds]
            metrics.append(Metric(f"energy{tail}", energy, "J", float, primary=primary))
    return metrics


def _cpu_per_token(found: Round, arms: Sequence[str]) -> dict[str, float]:
    """Median CPU seconds per token of the first scenario."""
    for name, speeds in found.speeds.items():
        tokens = found.plan.scenarios[name].tokens_per_process
        return {
            arm: statistics.median(s.cpu_seconds for s in speeds if s.arm == arm) / tokens
            for arm in arms
            if any(s.arm == arm for s in speeds)
        }
    return {}


def _joules_per_token(found: Round) -> dict[str, dict[str, float]]:
    """Of the first scenario, as the CPU seconds."""
    for name, speeds in found.speeds.items():
        return joules_per_token(speeds, found.plan.scenarios[name].tokens_per_process)
    return {}


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
        flip_p=found.flip_p,
        robust=found.robust,
        typical=_typical(metric, arm, kind),
        word=verdict.word,
        blocks_needed=verdict.blocks_needed,
        base=metric.convert(middle[BASE]),
        value=metric.convert(middle[arm]),
        unit=metric.unit,
    )


def _typical(metric: Metric, arm: str, kind: Literal["speed", "amount"]) -> float | None:
    """The same ratio from the median repetitions, or None where there is only one estimator."""
    logs = paired_log_ratios(metric.typical, arm, inverse=kind == "speed")
    return math.exp(statistics.fmean(logs)) if logs else None


def _quality(divergences: Mapping[str, Divergence], context: int) -> list[Quality]:
    floor = divergences.get(AGAIN)
    if floor is None:
        return []
    out = []
    for arm, result in divergences.items():
        own = arm == AGAIN
        nothing = Interval(0.0, None, None, 0, 1)
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
        # Upstream's other path stands beside the arms: how far it is from itself bounds what "equivalent" can ask for.
        compared = [(arm, diff, identity.verdict(arm)) for arm, diff in identity.against_base.items()]
        if identity.own is not None:
            word: Literal["identical", "different"] = "identical" if identity.own.identical else "different"
            compared.append((BASE, identity.own, word))
        for arm, diff, verdict in compared:
            kld = interval(diff.klds) if diff.klds else Interval(0.0, None, None, 0, 1)
            out.append(
                LogitsResult(
                    arm=arm,
                    ubatch=identity.ubatch,
                    verdict=verdict,
                    positions=identity.positions,
                    vocabulary=identity.vocabulary,
                    nmse=_finite(diff.nmse),
                    mean_kld=_finite(diff.mean_kld),
                    mean_kld_low=kld.low,
                    mean_kld_high=kld.high,
                    max_abs=_finite(diff.max_abs),
                    same_top=diff.same_top,
                    sha256=identity.digests[arm],
                )
            )
    return out


def _memory(found: Round) -> list[Memory]:
    out = []
    first = next(iter(found.divergences.values()), {})
    every = [speed for speeds in found.speeds.values() for speed in speeds]
    for arm in (BASE, OFF, ON):
        peaks = [speed.peak_rss for speeds in found.speeds.values() for speed in speeds if speed.arm == arm]
        # The unpatched build's own quality run is the A/A one.
        told = first.get(AGAIN if arm == BASE else arm)
        if not peaks and told is None:
            continue
        out.append(
            Memory(
                arm=arm,
                peak_rss=statistics.median(peaks) / MIB if peaks else None,
                peak_gpu=None if (gpu := gpu_peak(every, arm)) is None else gpu / MIB,
                buffers={kind: sum(sizes.values()) for kind, sizes in (told.buffers if told else {}).items()},
            )
        )
    return out


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
