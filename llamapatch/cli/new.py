"""``llamapatch new``."""

from __future__ import annotations

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings, upstream_option
from llamapatch.series.load import load_series
from llamapatch.tree.new import new_patch


@click.command()
@click.argument("patch", metavar="ID")
@click.option("--phase", default="", metavar="N", help="The phase that it goes to, at its end.")
@click.option("--phase-title", default="", metavar="TEXT", help="Make that phase, with this title, if it is not there.")
@click.option("--before", default="", metavar="ID", help="Put it before this patch.")
@click.option("--after", default="", metavar="ID", help="Put it after this patch.")
@click.option("--title", default="", metavar="TEXT", help="One line that says what it does.")
@click.option("--reason", default="", metavar="TEXT", help="Why it exists and why upstream does not have it. Required.")
@click.option(
    "--class",
    "effect",
    type=click.Choice(["identical", "equivalent", "lossy"]),
    default="lossy",
    show_default=True,
    help="What it may do to results; the weakest claim until you measure.",
)
@click.option("--requires", multiple=True, metavar="ID", help="A patch that it needs. Repeatable.")
@click.option("--author", default="", metavar="NAME <MAIL>", help="Whose it is; else what git knows of you.")
@dry_run_option
@json_option
@upstream_option
def command(
    patch: str,
    phase: str,
    phase_title: str,
    before: str,
    after: str,
    title: str,
    reason: str,
    effect: str,
    requires: tuple[str, ...],
    author: str,
    dry_run: bool,
    as_json: bool,
    upstream: str | None,
) -> None:
    """Start the patch ID: patch.toml, README.md and an empty change from the templates, its place, the lock."""
    config = settings(upstream=upstream)
    found = new_patch(
        config,
        load_series(config),
        patch,
        phase=phase,
        phase_title=phase_title,
        before=before,
        after=after,
        title=title,
        reason=reason,
        effect=effect,
        requires=requires,
        author=author,
        dry_run=dry_run,
        report=say,
    )
    if as_json:
        emit_json(
            {"schema": 1, "id": found.id, "phase": found.phase, "files": list(found.files), "dry_run": found.dry_run}
        )
        return
    for name in found.files:
        out.print(f"{'would write' if dry_run else 'wrote'}  {name}", markup=False)
