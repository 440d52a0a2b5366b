"""``llamapatch edit``."""

from __future__ import annotations

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings
from llamapatch.errors import UsageProblem
from llamapatch.series.load import load_series
from llamapatch.tree.edit import abort, edit, finish


@click.command()
@click.argument("patch", required=False)
@click.option("--done", is_flag=True, help="End the edit; what was applied before it is applied again.")
@click.option("--abort", "give_up", is_flag=True, help="End it without what was not refreshed (saved as a diff).")
@dry_run_option
@json_option
def command(patch: str | None, done: bool, give_up: bool, dry_run: bool, as_json: bool) -> None:
    """Stop the applied worktree at PATCH, so that it can be edited there; `refresh` takes the edits."""
    if sum((patch is not None, done, give_up)) != 1:
        raise UsageProblem("say what to edit.", "Give a patch id, `--done` or `--abort`.")
    config = settings()
    series = load_series(config)
    if patch is not None:
        found = edit(config, series, patch, dry_run=dry_run, report=say)
    else:
        found = (finish if done else abort)(config, series, dry_run=dry_run, report=say)
    if as_json:
        emit_json(
            {
                "schema": 1,
                "dry_run": found.dry_run,
                "patch": found.patch,
                "applied": list(found.applied),
                "resume": list(found.resume),
                "worktree": str(found.path),
                "saved": str(found.saved) if found.saved else None,
            }
        )
        return
    would = "would be " if dry_run else ""
    if found.saved:
        out.print(f"edits     saved in {found.saved}", markup=False)
    if patch is not None:
        out.print(f"editing   {found.patch}{' (dry run)' if dry_run else ''}", markup=False)
    out.print(f"{would}applied   {', '.join(found.applied) or 'nothing'}", markup=False)
    out.print(f"worktree  {found.path}", markup=False)
    if patch is not None and not dry_run:
        say("edit the files there, then `llamapatch refresh` and `llamapatch edit --done`")
