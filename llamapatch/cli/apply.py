"""``llamapatch apply``."""

from __future__ import annotations

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings, upstream_option
from llamapatch.series.load import load_series
from llamapatch.series.select import select
from llamapatch.tree.change import Outcome, apply


@click.command()
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("--without", multiple=True, metavar="ID", help="Leave this patch out, and what requires it. Repeatable.")
@dry_run_option
@json_option
@upstream_option
def command(
    selectors: tuple[str, ...], without: tuple[str, ...], dry_run: bool, as_json: bool, upstream: str | None
) -> None:
    """Make the applied set exactly SELECTOR and what it requires; without one, the whole series.

    A SELECTOR is a phase, a patch id, a range a..b, or all.
    """
    config = settings(upstream=upstream)
    series = load_series(config)
    selection = select(series, selectors, without)
    if selection.pulled_in:
        say(f"pulled in: {', '.join(selection.pulled_in)} (required)")
    if selection.left_out:
        say(f"left out: {', '.join(selection.left_out)}")
    outcome = apply(config, series, selection, dry_run=dry_run, report=say)
    if as_json:
        emit_json(
            outcome_data(outcome)
            | {
                "asked": list(selection.asked),
                "pulled_in": list(selection.pulled_in),
                "left_out": list(selection.left_out),
            }
        )
    else:
        print_outcome(outcome)


def print_outcome(outcome: Outcome) -> None:
    """What changed, as text on standard output."""
    would = "would be " if outcome.dry_run else ""
    for word, ids in (("removed", outcome.removed), ("added", outcome.added)):
        if ids:
            out.print(f"{would + word:<17}{', '.join(ids)}", markup=False)
    out.print(f"{would + 'applied':<17}{', '.join(outcome.after) or 'nothing'}", markup=False)
    out.print(f"{'tree':<17}{outcome.tree} ({outcome.how})", markup=False)
    out.print(f"{'commit':<17}{outcome.commit}", markup=False)
    if not outcome.dry_run:
        changed = f"{outcome.files} files written" if outcome.files else "unchanged"
        out.print(f"{'worktree':<17}{outcome.path}, {changed}", markup=False)


def outcome_data(outcome: Outcome) -> dict[str, object]:
    """What changed, as data."""
    return {
        "schema": 1,
        "dry_run": outcome.dry_run,
        "before": list(outcome.before),
        "applied": list(outcome.after),
        "added": list(outcome.added),
        "removed": list(outcome.removed),
        "how": outcome.how,
        "tree": outcome.tree,
        "commit": outcome.commit,
        "worktree": str(outcome.path),
        "files": outcome.files,
    }
