"""``llamapatch list``."""

from __future__ import annotations

from dataclasses import asdict

import click

from llamapatch.cli.common import emit_json, json_option, out, settings
from llamapatch.series.load import load_series
from llamapatch.series.overview import rows
from llamapatch.tree.state import applied_ids


@click.command(name="list")
@json_option
def command(as_json: bool) -> None:
    """The series by phase: each patch, its effect class, and whether it is applied."""
    config = settings()
    series = load_series(config)
    table = rows(series, applied_ids(config))
    if as_json:
        emit_json(
            {
                "schema": 1,
                "upstream": {"version": series.pin.version, "tree": series.pin.tree},
                "phases": [
                    {"id": p.id, "title": p.title, "patches": [asdict(r) for r in table if r.phase == p.id]}
                    for p in series.file.phase
                ],
            }
        )
        return
    width = max((len(row.id) for row in table), default=0)
    for phase in series.file.phase:
        out.print(f"{phase.id}  {phase.title}", style="bold", markup=False)
        for row in table:
            if row.phase == phase.id:
                mark = "applied" if row.applied else "-"
                out.print(f"  {row.id:<{width}}  {row.effect:<10}  {mark:<7}  {row.title}", markup=False)
        if not phase.patches:
            out.print("  (no patch yet)", style="dim", markup=False)
