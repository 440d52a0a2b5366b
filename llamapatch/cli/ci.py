"""``llamapatch ci``: let a CI system run the gates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO, cast

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, settings
from llamapatch.report.ci_files import Form, matrix, read_plan, write_ci_file


@click.group()
def command() -> None:
    """Set up continuous integration for a project."""


@command.command("init")
@click.option("--github", "form", flag_value="github", help="A GitHub Actions workflow (the default).")
@click.option("--shell", "form", flag_value="shell", help="A POSIX shell script for any other CI system.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The root of the repository (default: the project's folder).",
)
@click.option(
    "--full", "profile", flag_value="full", default="quick", help="Gate with the profile that takes hours, not minutes."
)
@click.option("--force", is_flag=True, help="Overwrite a file that differs.")
@dry_run_option
@json_option
def init(form: str | None, output: Path | None, profile: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Write a workflow that gates each changed patch in a job of its own, judges the whole, and reports nightly what
    upstream's changes do to the series."""
    here = settings()
    chosen = cast(Form, form or "github")
    file = write_ci_file(here, chosen, output or here.root, profile=profile, force=force, dry_run=dry_run)
    if as_json:
        data = {"schema": 1, "file": str(file.path), "text": file.text, "unchanged": file.known, "dry_run": dry_run}
        emit_json(data)
        return
    word = "kept" if file.known else "would write" if dry_run else "wrote"
    out.print(f"{word} {file.path}", markup=False)


@command.command("matrix")
@click.argument("plan", type=click.File(encoding="utf-8"), default="-")
@click.option("--lines", is_flag=True, help="One patch a line, followed by its jobs, instead of JSON.")
def matrix_(plan: TextIO, lines: bool) -> None:
    """Print what PLAN (of `gate --plan --json`; default: standard input) leaves to do, patch by patch.

    JSON on one line, as the matrix of a GitHub Actions job.
    """
    entries = matrix(read_plan(plan.read(), plan.name))
    if lines:
        for entry in entries:
            click.echo(f"{entry['patch']} {entry['jobs']}")
        return
    click.echo(json.dumps(entries))
