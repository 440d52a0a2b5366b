"""``llamapatch history``: what was measured before."""

from __future__ import annotations

import click
import pandas as pd
from rich.console import Console

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings
from llamapatch.errors import UsageProblem
from llamapatch.report.effects import times
from llamapatch.report.history import HISTORY_NAME, Row, append, as_data, read
from llamapatch.report.load import kept, read_file, rows_of
from llamapatch.report.tables import Table
from llamapatch.report.terminal import WIDTH, rich_table


@click.command()
@click.option("--metric", metavar="NAME", help="Only this figure: tg128, peak memory, mean_kld c512, speed, gate, ...")
@click.option("--patch", metavar="ID", help="Only runs of this patch.")
@click.option("--limit", type=click.IntRange(min=1), default=40, show_default=True, metavar="N", help="The newest N.")
@click.option("--rebuild", is_flag=True, help="Add what the kept runs hold; what is known already stays as it is.")
@dry_run_option
@json_option
def command(metric: str | None, patch: str | None, limit: int, rebuild: bool, dry_run: bool, as_json: bool) -> None:
    """Print the newest figures of the history, oldest first.

    The history is one table of .llamapatch/history.sqlite, to which each compare, gate, ablate and bisect adds; any
    SQLite tool can query it (docs/how-to.md has the columns and examples).
    """
    here = settings()
    path = here.state / HISTORY_NAME
    if rebuild:
        found: list[Row] = []
        for file in kept(here):
            try:
                found += [row for result in read_file(file) for row in rows_of(result)]
            except UsageProblem as problem:
                say(f"left out: {problem}")
        if dry_run:
            say(f"would add what is new of {len(found)} figures to {path}")
        else:
            say(f"{append(path, found)} new of {len(found)} figures in {path}")
    rows = read(path, metric=metric, patch=patch, limit=limit)
    if as_json:
        emit_json({"schema": 1, "file": str(path), "rows": as_data(rows)})
        return
    if not rows:
        out.print(f"nothing of that kind in {path}", markup=False)
        return
    wide = out if out.is_terminal else Console(file=out.file, width=WIDTH, highlight=False)
    wide.print(rich_table(Table(f"History, {path}", pd.DataFrame([_shown(row) for row in rows]))))


def _shown(row: Row) -> dict[str, str]:
    figure = "" if row.value is None else f"{row.value:.6g} {row.unit}".strip()
    if row.ratio is not None:
        figure = times(row.ratio)
    if row.low is not None and row.high is not None:
        low, high = (times(v)[:-1] if row.ratio is not None else f"{v:.3g}" for v in (row.low, row.high))
        figure += f" [{low}, {high}]"
    return {
        "time": row.time[:16].replace("T", " "),
        "build": row.label or row.run[:12],
        "patch": row.patch,
        "metric": row.metric,
        "arm": row.arm,
        "on": row.model,
        "figure": figure,
        "verdict": row.word if row.word != "info" else "",
        "machine": row.machine,
    }
