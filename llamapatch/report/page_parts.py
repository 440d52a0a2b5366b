"""What the page's sections hold, as plain data: its templates decide how that looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamapatch.judge.gate_result import EffectsResult, GatedPatch
from llamapatch.judge.paired import MIN_PAIRS
from llamapatch.judge.result import Comparison, Ratio
from llamapatch.judge.verdict import MARGIN
from llamapatch.measure.arms import AGAIN, OFF, ON
from llamapatch.report.effects import TITLES, effects_headline, kind_of, running, times
from llamapatch.report.history import Row
from llamapatch.report.plots import Axis, Interval, Step, axis_over, interval_on, spread
from llamapatch.report.tables import (
    Table,
    activity_table,
    arm_name,
    cost_table,
    greedy_table,
    kernel_table,
    logits_table,
    provenance,
    quality_table,
    subject,
    verdict_words,
)
from llamapatch.series.model import PatchMeta

_SHAPES = {ON: "dot", OFF: "box", AGAIN: "ring"}
_OFF = {
    "identical": ("logits bit-identical", "to upstream's, at -ub 512 and -ub 1"),
    "different": ("logits NOT identical", "differ from upstream's"),
    "not provable": ("identity not provable", "upstream does not repeat itself"),
}
# More points than this say no more on a phone.
_POINTS = 24


@dataclass(frozen=True)
class Line:
    """A sentence of the summary: what it is about, the figure, the verdict and its word."""

    about: str
    figure: str
    said: str
    word: str


@dataclass(frozen=True)
class ForestRow:
    """A ratio: where its mark stands, and the same in text."""

    metric: str
    arm: str
    shape: str
    ratio: str
    interval: str
    blocks: int
    word: str
    said: str
    place: Interval


@dataclass(frozen=True)
class Forest:
    """A plot of ratios on one axis; `groups` are (title, rows). A `folded` one is detail, shown when asked for."""

    title: str
    less: str
    more: str
    axis: Axis
    band: Step
    one: float
    level: float
    groups: list[tuple[str, list[ForestRow]]]
    folded: bool


@dataclass(frozen=True)
class Bar:
    """A patch's effect as a bar; `so_far` is empty where effects do not multiply."""

    patch: str
    about: str
    effect: str
    interval: str
    word: str
    so_far: str
    bar: Step
    place: Interval


@dataclass(frozen=True)
class Waterfall:
    """Bars on one axis, with a sentence above and the columns' meaning below."""

    title: str
    said: str
    less: str
    more: str
    axis: Axis
    one: float
    bars: list[Bar]
    multiplies: bool


@dataclass
class Card:
    """Everything about one patch."""

    id: str
    title: str = ""
    phase: str = ""
    paper: str = ""
    effect: str = ""
    switch: str = ""
    requires: list[str] = field(default_factory=list)
    upstream: str = ""
    budgets: dict[str, float] = field(default_factory=dict)
    jobs: list[GatedPatch] = field(default_factory=list)
    figures: list[Line] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trend:
    """One figure over the runs of one machine; `points` carry their text, `values` the same as a table."""

    title: str
    machine: str
    axis: Axis
    one: float
    points: list[tuple[float, Interval, Row]]
    latest: str

    @property
    def description(self) -> str:
        first, last = self.points[0][2], self.points[-1][2]
        return (
            f"{len(self.points)} runs from {first.time[:10]} to {last.time[:10]}: first {times(first.ratio or 1)}, "
            f"latest {times(last.ratio or 1)} the unpatched build."
        )


def title(result: Comparison) -> str:
    """What was compared: the patches in question, and those that were built in without being switched on."""
    patches = subject(result)
    beside = [patch for patch in result.asked if patch not in patches]
    named = ", ".join(patches) or "nothing"
    return f"{named}, with {', '.join(beside)} built in" if beside else named


def says(result: Comparison) -> list[Line]:
    """A comparison in sentences, the most telling first."""
    lines = []
    for kernel in result.kernels:
        for ratio in (r for r in kernel.overall if r.arm == ON):
            lines.append(_line(f"{kernel.patch}, its own kernel benchmark", ratio))
    for found in result.rounds:
        name = f"{found.model.name} {found.model.type}".strip()
        told = [r for r in found.speed if r.arm == ON] or [r for r in found.speed if r.arm == OFF]
        for ratio in told:
            state = "" if ratio.arm == ON else ", switches off"
            lines.append(_line(f"{_test(ratio.metric)} on {name}{state}", ratio))
        for quality in (q for q in found.quality if q.arm == ON and not q.floor):
            lines.append(
                Line(
                    f"Text quality on {name}",
                    f"KL divergence {max(quality.mean_kld, 0.0) + 0.0:.6f}",
                    f"same top token {100 * quality.same_top:.2f} %",
                    "info",
                )
            )
        off = {logits.verdict for logits in found.logits if logits.arm == OFF}
        if off:
            word = next(word for word in ("different", "not provable", "identical") if word in off)
            figure, said = _OFF[word]
            # With every switch off, any difference is a failure.
            lines.append(Line(f"Switched off, {name}", figure, said, "fail" if word == "different" else word))
    for problem in result.problems:
        lines.append(Line(problem.where, "not measured", problem.what, "not measured"))
    return lines


def forests(result: Comparison) -> list[Forest]:
    """The ratios of a comparison: speeds and kernels on one axis, amounts on another."""
    speeds, amounts, cases = [], [], []
    for found in result.rounds:
        name = f"{found.model.name} {found.model.type}".strip()
        speeds.append((name, found.speed))
        amounts.append((name, found.cost))
    for kernel in result.kernels:
        speeds.append((f"Kernel benchmark of {kernel.patch}", kernel.overall))
        cases.append((kernel.patch, [ratio for ratio in kernel.cases if ratio.arm == ON]))
    return [
        _forest(title, words, groups, result.level, folded=groups is cases)
        for title, words, groups in (
            ("Speed", ("slower", "faster"), speeds),
            ("Kernel benchmarks, case by case", ("slower", "faster"), cases),
            ("Memory, processor time and energy", ("less", "more"), amounts),
        )
        if any(ratios for _, ratios in groups)
    ]


def waterfall(result: EffectsResult) -> Waterfall:
    """Measured marginal effects. A waterfall's bars start where the one before ended, the others' at 1."""
    multiplies = result.kind == "waterfall"
    totals = running(result)
    starts = [1.0, *totals[:-1]] if multiplies else [1.0] * len(totals)
    spans = [
        (start * e.ratio, None if e.low is None else start * e.low, None if e.high is None else start * e.high)
        for start, e in zip(starts, result.effects, strict=True)
    ]
    axis = axis_over(spans)
    speed = kind_of(result.unit) == "speed"
    bars = []
    for effect, start, span, total in zip(result.effects, starts, spans, totals, strict=True):
        found = result.kind == "bisect" and effect.patch == result.found
        bars.append(
            Bar(
                patch=effect.patch,
                about="the patch that moves it" if found else f"{effect.before} to {effect.after}",
                effect=times(effect.ratio),
                interval=_interval(effect.low, effect.high),
                word=effect.word,
                so_far=times(total) if multiplies else "",
                bar=Step(axis.at(start), axis.at(span[0])),
                place=interval_on(axis, *span),
            )
        )
    return Waterfall(
        title=TITLES[result.kind],
        said=effects_headline(result),
        less="slower" if speed else "less",
        more="faster" if speed else "more",
        axis=axis,
        one=axis.at(1.0),
        bars=bars,
        multiplies=multiplies,
    )


def alone(comparisons: Iterable[Comparison]) -> list[Waterfall]:
    """Without measured effects: what each patch that was compared by itself does to speed."""
    found: list[tuple[str, str, Ratio]] = []
    for result in comparisons:
        patches = subject(result)
        if len(patches) == 1:
            also = "" if patches == result.asked else ", others built in"
            for kernel in result.kernels:
                found += [(patches[0], f"own kernel benchmark{also}", r) for r in kernel.overall if r.arm == ON]
            for round_ in result.rounds:
                about = f"{round_.model.type}{also}"
                found += [(patches[0], f"{r.metric}, {about}", r) for r in round_.speed if r.arm == ON]
    if not found:
        return []
    axis = axis_over((r.ratio, r.low, r.high) for _, _, r in found)
    bars = [
        Bar(
            patch=patch,
            about=about,
            effect=times(r.ratio),
            interval=_interval(r.low, r.high),
            word=r.word,
            so_far="",
            bar=Step(axis.at(1.0), axis.at(r.ratio)),
            place=interval_on(axis, r.ratio, r.low, r.high),
        )
        for patch, about, r in found
    ]
    return [
        Waterfall(
            title="Each patch by itself, against the unpatched build",
            said="These effects were measured apart and do not multiply; ablate and bisect measure what a patch adds "
            "to the others.",
            less="slower",
            more="faster",
            axis=axis,
            one=axis.at(1.0),
            bars=bars,
            multiplies=False,
        )
    ]


def cards(comparisons: Sequence[Comparison], jobs: Sequence[GatedPatch], metas: Mapping[str, PatchMeta]) -> list[Card]:
    """A card for each patch that was asked for or gated, in series order where the series knows it."""
    asked = dict.fromkeys([*(job.patch for job in jobs), *(patch for c in comparisons for patch in subject(c))])
    ordered = [*(patch for patch in metas if patch in asked), *(patch for patch in asked if patch not in metas)]
    return [_card(patch, comparisons, jobs, metas.get(patch)) for patch in ordered]


def again(comparisons: Iterable[Comparison]) -> list[dict[str, Any]]:
    """The A/A arm: the unpatched build against itself, metric by metric."""
    rows = []
    for result in comparisons:
        groups = [(f"{f.model.name} {f.model.type}".strip(), [*f.speed, *f.cost]) for f in result.rounds]
        groups += [(f"kernel benchmark of {kernel.patch}", kernel.overall) for kernel in result.kernels]
        for where, ratios in groups:
            for ratio in (r for r in ratios if r.arm == AGAIN):
                rows.append(
                    {
                        "run": result.id,
                        "where": where,
                        "metric": ratio.metric,
                        "ratio": times(ratio.ratio),
                        "interval": _interval(ratio.low, ratio.high),
                        "blocks": ratio.blocks,
                        "word": ratio.word if ratio.word == "unfit" else "info",
                        "said": _self_words(ratio),
                    }
                )
    return rows


def tables(result: Comparison) -> dict[str, list[Table]]:
    """The tables of a comparison by section; those without rows are left out."""
    found: dict[str, list[Table]] = {"quality": [], "cost": [], "kernels": [], "activity": [activity_table(result)]}
    for round_ in result.rounds:
        name = f"{round_.model.name}, {round_.model.type}"
        found["quality"] += [
            quality_table(round_, f"Text quality, {name}"),
            greedy_table(round_, f"Greedy text, {name}"),
            logits_table(round_, f"Logits, {name}"),
        ]
        found["cost"].append(cost_table(round_, f"Memory, processor time and energy, {name}"))
    found["kernels"] = [kernel_table(kernel) for kernel in result.kernels]
    return {section: [t for t in shown if not t.frame.empty] for section, shown in found.items()}


def facts(result: Comparison) -> list[tuple[str, str]]:
    """Where the figures come from, as names and values."""
    lines = [line.partition(": ") for line in provenance(result)]
    found = [(name, value) for name, _, value in lines if not name.startswith(("machine", "command"))]
    found.append(("raw data", result.raw))
    return found


def machines(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each machine once, by its id."""
    known = {str(machine.get("id", "")): machine for machine in found if machine}
    return list(known.values())


def trends(history: Sequence[Row]) -> list[Trend]:
    """Ratios with at least two runs on one machine, newest last; the plot of each figure has its own axis."""
    series: dict[tuple[str, ...], list[Row]] = {}
    for row in history:
        if row.verb == "compare" and row.arm == ON and row.kind == "speed" and row.ratio is not None:
            series.setdefault((row.patch, row.model, row.metric, row.machine), []).append(row)
    out = []
    for (patch, model, metric, machine), rows in series.items():
        shown = rows[-_POINTS:]
        if len(shown) < 2:
            continue
        axis = axis_over((row.ratio or 1.0, row.low, row.high) for row in shown)
        points = [
            (x, interval_on(axis, row.ratio or 1.0, row.low, row.high), row)
            for x, row in zip(spread([0.0] * len(shown)), shown, strict=True)
        ]
        out.append(
            Trend(
                f"{patch.replace(',', ', ')}: {metric}, {model}",
                machine,
                axis,
                axis.at(1.0),
                points,
                times(shown[-1].ratio or 1.0),
            )
        )
    return out


def _forest(
    title: str, words: tuple[str, str], groups: Sequence[tuple[str, Sequence[Ratio]]], level: float, *, folded: bool
) -> Forest:
    axis = axis_over(((r.ratio, r.low, r.high) for _, ratios in groups for r in ratios), MARGIN)
    return Forest(
        title=title,
        less=words[0],
        more=words[1],
        axis=axis,
        band=Step(axis.at(1 - MARGIN), axis.at(1 + MARGIN)),
        one=axis.at(1.0),
        level=level,
        groups=[
            (name, [_forest_row(r, axis) for r in sorted(ratios, key=_order(ratios))])
            for name, ratios in groups
            if ratios
        ],
        folded=folded,
    )


def _order(ratios: Sequence[Ratio]) -> Any:
    """Metrics in their own order; in each the arm that matters first."""
    metrics = list(dict.fromkeys(ratio.metric for ratio in ratios))
    arms = [ON, OFF, AGAIN]
    return lambda r: (metrics.index(r.metric), arms.index(r.arm) if r.arm in arms else len(arms))


def _forest_row(ratio: Ratio, axis: Axis) -> ForestRow:
    return ForestRow(
        metric=ratio.metric,
        arm=arm_name(ratio.arm),
        shape=_SHAPES.get(ratio.arm, "peak"),
        ratio=times(ratio.ratio),
        interval=_interval(ratio.low, ratio.high),
        blocks=ratio.blocks,
        word=ratio.word,
        said=verdict_words(ratio),
        place=interval_on(axis, ratio.ratio, ratio.low, ratio.high),
    )


def _card(patch: str, comparisons: Sequence[Comparison], jobs: Sequence[GatedPatch], meta: PatchMeta | None) -> Card:
    card = Card(patch, jobs=[job for job in jobs if job.patch == patch])
    if meta is not None:
        card.title, card.phase, card.paper = meta.title, meta.phase, meta.paper
        card.effect, card.requires = meta.effect.effect_class, list(meta.requires)
        card.upstream = f"{meta.upstream.status}: {meta.upstream.reason}"
        if meta.switch is not None:
            card.switch = f"{meta.switch.env}={'|'.join(meta.switch.values)}"
    for job in card.jobs:
        card.title, card.phase = job.title or card.title, job.phase or card.phase
        card.paper, card.effect = job.paper or card.paper, job.effect or card.effect
        card.budgets = {**card.budgets, **job.budgets}
        card.commands += [command for step in job.steps for command in step.commands]
    for result in comparisons:
        if result.asked == [patch]:
            card.figures += says(result)
        elif patch in subject(result) and len(subject(result)) > 1:
            card.figures += [line for line in says(result) if line.about.startswith(f"{patch},")]
        if patch in subject(result) and result.command:
            card.commands.append(result.command)
    card.commands = list(dict.fromkeys(card.commands))
    return card


def _line(about: str, ratio: Ratio) -> Line:
    bounds = _interval(ratio.low, ratio.high)
    return Line(about, times(ratio.ratio) + (f" ({bounds})" if bounds else ""), verdict_words(ratio), ratio.word)


def _test(metric: str) -> str:
    """``tg128`` as a reader calls it."""
    names = {"pp": "Prompt processing", "tg": "Generation"}
    known = names.get(metric[:2]) if metric[2:3].isdigit() else None
    return f"{known} ({metric})" if known else metric


def _self_words(ratio: Ratio) -> str:
    """What the A/A arm says of a metric; few blocks cannot show that a program differs from itself."""
    if ratio.word == "unfit":
        return "differs from itself: no verdict rests on it"
    return "agrees with itself" if ratio.blocks >= MIN_PAIRS else "too few blocks to tell"


def _interval(low: float | None, high: float | None) -> str:
    return f"{times(low)[:-1]} to {times(high)[:-1]}" if low is not None and high is not None else ""
