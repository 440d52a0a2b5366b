"""``llamapatch undo``."""

from __future__ import annotations

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, settings
from llamapatch.tree.history import Step, undo


@click.command()
@click.argument("count", type=click.IntRange(min=1), default=1, metavar="[N]")
@dry_run_option
@json_option
def command(count: int, dry_run: bool, as_json: bool) -> None:
    """Take the last change back (or the last N): files of the series, applied patches and worktree."""
    report_step(undo(settings(), count, dry_run=dry_run), "undone", as_json)


def report_step(step: Step, word: str, as_json: bool) -> None:
    """What an undo or redo did."""
    if as_json:
        emit_json(
            {
                "schema": 1,
                "dry_run": step.dry_run,
                "covers": [{"id": e.number, "reason": e.reason} for e in step.covers],
                "files": list(step.files),
                "before": list(step.before),
                "applied": list(step.after),
            }
        )
        return
    for entry in step.covers:
        out.print(f"{'would be ' if step.dry_run else ''}{word}: {entry.number}  {entry.reason}", markup=False)
    for name in step.files:
        out.print(f"file     {name}", markup=False)
    if step.before != step.after:
        out.print(f"applied  {', '.join(step.after) or 'nothing'}", markup=False)
