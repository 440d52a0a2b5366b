"""``llamapatch report``: one HTML page of what was measured."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, settings
from llamapatch.errors import UsageProblem
from llamapatch.files import write_atomically
from llamapatch.report.history import HISTORY_NAME, read
from llamapatch.report.load import load
from llamapatch.report.page import GENERATOR, render_page
from llamapatch.series.load import load_series


@click.command()
@click.argument("runs", metavar="[RUN|FILE]...", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    metavar="FILE",
    show_default=True,
    help="Where the page goes.",
)
@click.option("--force", is_flag=True, help="Overwrite a file that is no earlier report.")
@dry_run_option
@json_option
def command(runs: tuple[str, ...], output: Path, force: bool, dry_run: bool, as_json: bool) -> None:
    """Write one self-contained HTML page: verdicts, plots, patches, machine, history.

    RUN is the id of a run below .llamapatch/runs, a run's folder, or a JSON file that compare, gate, ablate or bisect
    wrote. Without any: the newest of each kind.
    """
    here = settings()
    results = load(here, runs)
    metas = {patch.id: patch.meta for patch in load_series(here).patches}
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = render_page(results, metas=metas, history=read(here.state / HISTORY_NAME), templates=here.templates, now=now)
    if output.exists() and not force and GENERATOR not in output.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise UsageProblem(f"{output} exists and is no report of llamapatch.", "Name another file, or add --force.")
    if not output.absolute().parent.is_dir():
        raise UsageProblem(f"there is no folder {output.absolute().parent}.", "Make it first.")
    if not dry_run:
        write_atomically(output.absolute(), page.encode())
    data = {
        "schema": 1,
        "file": str(output),
        "bytes": len(page.encode()),
        "comparisons": sorted(results.comparisons),
        "jobs": sorted(results.jobs),
        "effects": sorted(results.effects),
        "dry_run": dry_run,
    }
    if as_json:
        emit_json(data)
        return
    shown = [
        f"{len(ids)} {one if len(ids) == 1 else many}"
        for ids, one, many in (
            (results.comparisons, "comparison", "comparisons"),
            (results.jobs, "gate job", "gate jobs"),
            (results.effects, "set of effects", "sets of effects"),
        )
        if ids
    ]
    word = "would write" if dry_run else "wrote"
    out.print(f"{word} {output} ({len(page.encode()):,} bytes): {', '.join(shown)}", markup=False)
