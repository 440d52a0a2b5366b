"""One self-contained HTML page of everything that was found: verdicts first, evidence behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from llamapatch import __version__
from llamapatch.config import packaged_home
from llamapatch.judge.gate_result import EffectsResult, GateResult
from llamapatch.judge.result import Comparison
from llamapatch.report import page_parts as parts
from llamapatch.report.gate import reason, verdict
from llamapatch.report.history import Row
from llamapatch.report.load import Results
from llamapatch.report.marks import mark_of
from llamapatch.report.tables import arm_name
from llamapatch.series.model import PatchMeta

GENERATOR = "llamapatch report"


def render_page(
    results: Results, *, metas: Mapping[str, PatchMeta], history: Sequence[Row], templates: Path, now: str
) -> str:
    """The page as text. `metas` describes patches by id (those of the present series), `now` is printed as its date.

    A template of the project's own, ``templates/report/page.html.j2``, is taken before the one that came with the
    package.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates / "report", packaged_home() / "templates" / "report"]),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(mark_of=mark_of, arm_name=arm_name, reason=reason)
    return environment.get_template("page.html.j2").render(_context(results, metas, history, now)) + "\n"


def _context(results: Results, metas: Mapping[str, PatchMeta], history: Sequence[Row], now: str) -> dict[str, Any]:
    comparisons = sorted(results.comparisons.values(), key=lambda found: (found.started, found.id))
    jobs = list(results.jobs.values())
    effects = list(results.effects.values())
    whole: list[Comparison | GateResult | EffectsResult] = [*comparisons, *results.gates.values(), *effects]
    versions = dict.fromkeys(found.upstream_version for found in whole)
    chains = dict.fromkeys(found.series_chain[:12] for found in whole if found.series_chain)
    cards = parts.cards(comparisons, jobs, metas)
    shown = {card.id for card in cards}
    told = [row for row in history if not shown or shown & set(row.patch.split(","))]
    return {
        "generator": f"{GENERATOR} {__version__}",
        "now": now,
        "versions": list(versions),
        "chains": list(chains),
        "comparisons": [_comparison(found) for found in comparisons],
        "gate": verdict(jobs) if jobs else "",
        "jobs": jobs,
        "waterfalls": [parts.waterfall(found) for found in effects] or parts.alone(comparisons),
        "measured_waterfall": bool(effects),
        "effects": effects,
        "cards": cards,
        "again": parts.again(comparisons),
        "machines": parts.machines([found.machine for found in comparisons] + [job.machine for job in jobs]),
        "history": parts.trends(told),
        "history_rows": len(told),
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "result": found,
        "title": parts.title(found),
        "says": parts.says(found),
        "forests": parts.forests(found),
        "tables": parts.tables(found),
        "provenance": parts.facts(found),
    }
