"""``llamapatch rollback``."""

from __future__ import annotations

import click

from llamapatch.cli.apply import outcome_data, print_outcome
from llamapatch.cli.common import dry_run_option, emit_json, json_option, say, settings
from llamapatch.series.load import load_series
from llamapatch.tree.change import plan_removal, rollback


@click.command()
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@dry_run_option
@json_option
def command(selectors: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Take SELECTOR away, and whatever requires it; without one, everything."""
    config = settings()
    series = load_series(config)
    removal = plan_removal(config, series, selectors)
    if not removal.asked:
        say("nothing to roll back: none of it is applied")
    if removal.dependents:
        say(f"taken away as well: {', '.join(removal.dependents)} (require what goes)")
    outcome = rollback(config, series, removal, dry_run=dry_run, report=say)
    if as_json:
        emit_json(outcome_data(outcome) | {"asked": list(removal.asked), "dependents": list(removal.dependents)})
    else:
        print_outcome(outcome)
