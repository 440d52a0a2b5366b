"""``llamapatch init``."""

from __future__ import annotations

from pathlib import Path

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, settings
from llamapatch.series.load import load_series
from llamapatch.series.scaffold import start_project


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".", metavar="[DIR]")
@click.option("--empty", is_flag=True, help="Start without patches, on the same upstream.")
@dry_run_option
@json_option
def command(folder: Path, empty: bool, dry_run: bool, as_json: bool) -> None:
    """Start a project in DIR: a copy of the series to edit, with its kernels, templates and gates."""
    config = settings()
    found = start_project(config, load_series(config), folder, empty=empty, dry_run=dry_run)
    if as_json:
        emit_json({"schema": 1, "folder": str(found.folder), "made": list(found.made), "dry_run": found.dry_run})
        return
    word = "would make" if found.dry_run else "made"
    out.print(f"{word} {', '.join(found.made)} in {found.folder}", markup=False)
