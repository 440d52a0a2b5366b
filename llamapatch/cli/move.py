"""``llamapatch move``."""

from __future__ import annotations

import click

from llamapatch.cli.common import dry_run_option, json_option, say, settings
from llamapatch.cli.drop import report_rework
from llamapatch.series.load import load_series
from llamapatch.tree.rework import move


@click.command()
@click.argument("patch")
@click.option("--before", default="", metavar="ID", help="Right before this patch.")
@click.option("--after", default="", metavar="ID", help="Right after this patch.")
@click.option("--phase", default="", metavar="PHASE", help="To the end of this phase.")
@click.option("--phase-title", default="", metavar="TEXT", help="The title of a phase that is not there yet.")
@click.option("--accept", multiple=True, metavar="ID", help="Agree that this patch is relocated.")
@dry_run_option
@json_option
def command(
    *,
    patch: str,
    before: str,
    after: str,
    phase: str,
    phase_title: str,
    accept: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put PATCH in another place of the series, and carry along what it crosses."""
    config = settings()
    done = move(
        config,
        load_series(config),
        patch,
        before=before,
        after=after,
        phase=phase,
        phase_title=phase_title,
        accept=accept,
        dry_run=dry_run,
        report=say,
    )
    report_rework(done, "move", as_json)
