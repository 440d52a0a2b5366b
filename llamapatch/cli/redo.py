"""``llamapatch redo``."""

from __future__ import annotations

import click

from llamapatch.cli.common import dry_run_option, json_option, settings
from llamapatch.cli.undo import report_step
from llamapatch.tree.history import redo


@click.command()
@click.argument("count", type=click.IntRange(min=1), default=1, metavar="[N]")
@dry_run_option
@json_option
def command(count: int, dry_run: bool, as_json: bool) -> None:
    """Bring back what `undo` took (or the last N of it)."""
    report_step(redo(settings(), count, dry_run=dry_run), "redone", as_json)
