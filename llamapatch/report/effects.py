"""The marginal effects of patches (waterfall, ablate, bisect) for the terminal and as Markdown."""

from __future__ import annotations

import math
import re
from typing import Literal

import pandas as pd
from rich.console import Console
from rich.text import Text

from llamapatch.judge.gate_result import EffectsResult, PatchEffect
from llamapatch.report.markdown import escape, pipes
from llamapatch.report.tables import Table
from llamapatch.report.terminal import rich_table

TITLES = {
    "ablate": "What each patch gives the whole: the series with it against the series without it",
    "waterfall": "What each patch adds on top of those before it",
    "bisect": "Which patch moves the metric",
}
_HALF_WIDTH = 12


def kind_of(unit: str) -> Literal["speed", "amount"]:
    """Whether more is better: of what is counted per time it is."""
    return "speed" if re.search(r"/(ns|us|ms|s)$", unit) else "amount"


def times(value: float) -> str:
    """A ratio with the digits that matter: ``0.998x``, ``4.71x``, ``79.0x``."""
    return f"{value:.{3 if value < 0.2 or 0.9 <= value < 1.1 else 2 if value < 20 else 1}f}x"


def spoken_effect(effect: PatchEffect) -> str:
    """``1.31x [1.28, 1.35], n=7``."""
    text = times(effect.ratio)
    if effect.low is not None and effect.high is not None:
        text += f" [{times(effect.low)[:-1]}, {times(effect.high)[:-1]}]"
    return f"{text}, n={effect.blocks}"


def running(result: EffectsResult) -> list[float]:
    """The product of the effects so far, patch by patch; only a waterfall's effects multiply."""
    total, products = 1.0, []
    for effect in result.effects:
        total *= effect.ratio
        products.append(total)
    return products


def effects_headline(result: EffectsResult) -> str:
    """The result in a sentence."""
    more = "more is better" if kind_of(result.unit) == "speed" else "less is better"
    about = f"{result.metric} of {result.model} ({result.unit}, {more})"
    if not result.effects:
        return f"{about}: nothing was measured."
    if result.kind == "bisect":
        limit = f" by more than {100 * result.threshold:g} %" if result.threshold is not None else ""
        if result.found is None:
            return f"{about}: no patch moves it{limit}."
        found = next((effect for effect in result.effects if effect.patch == result.found), None)
        said = f": {spoken_effect(found)}" if found else ""
        return f"{about}: {result.found} is the first patch that moves it{limit}{said}."
    if result.kind == "waterfall":
        return f"{about}: {times(running(result)[-1])} after {len(result.effects)} patches."
    most = max(result.effects, key=lambda effect: abs(math.log(effect.ratio)))
    return f"{about}: {most.patch} matters most, {spoken_effect(most)}."


def effects_table(result: EffectsResult) -> Table:
    """One row for each patch; bars stand left of the line for less than before, right for more."""
    widest = max([abs(math.log(effect.ratio)) for effect in result.effects] + [math.log(1.05)])
    rows = []
    for effect, total in zip(result.effects, running(result), strict=True):
        row = {
            "patch": effect.patch,
            "effect": spoken_effect(effect),
            "less | more": _bar(math.log(effect.ratio) / widest),
            "verdict": effect.word,
        }
        if result.kind == "waterfall":
            row["so far"] = times(total)
        row["from"], row["to"] = effect.before, effect.after
        rows.append(row)
    note = f"{result.metric}, {result.model}: times the value before, with the interval over paired blocks."
    return Table(TITLES[result.kind], pd.DataFrame(rows), note)


def effects_markdown(result: EffectsResult) -> str:
    """The whole result; ends with a newline."""
    parts = [
        f"## llamapatch {result.kind}: {escape(result.metric)} on {escape(result.upstream_version)}",
        "",
        escape(effects_headline(result)),
        "",
    ]
    if result.effects:
        table = effects_table(result)
        parts += [f"### {table.title}", "", pipes(table.frame.drop(columns="less | more")), "", escape(table.note), ""]
    parts += [
        "<details><summary>Where these figures come from</summary>",
        "",
        *(f"- {escape(line)}" for line in effects_provenance(result)),
        "",
        "</details>",
        "",
    ]
    return "\n".join(parts)


def print_effects(result: EffectsResult, console: Console, wide: Console) -> None:
    """Print the headline, the table (on `wide`, which must not fold intervals) and where the figures come from."""
    console.print(Text(effects_headline(result)), soft_wrap=True)
    if result.effects:
        wide.print()
        wide.print(rich_table(effects_table(result)))
    for line in effects_provenance(result):
        console.print(Text(line, style="dim"), soft_wrap=True)


def effects_provenance(result: EffectsResult) -> list[str]:
    """Series, machine, command, raw data."""
    machine = result.machine
    return [
        f"llama.cpp {result.upstream_version}, series chain {result.series_chain[:12]}",
        f"machine {machine.get('id')}: {machine.get('cpu')}, {machine.get('cores')} cores",
        f"run {result.id} of {result.started}, {result.seconds:.0f} s",
        f"command: {result.command}",
        f"raw data: {result.raw}",
    ]


def _bar(share: float) -> str:
    cells = round(abs(share) * _HALF_WIDTH)
    left, right = ("", "█" * cells) if share > 0 else ("█" * cells, "")
    return f"{left:>{_HALF_WIDTH}}|{right:<{_HALF_WIDTH}}"
