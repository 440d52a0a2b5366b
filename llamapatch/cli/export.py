"""``llamapatch export``."""

from __future__ import annotations

from pathlib import Path

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings, upstream_option
from llamapatch.errors import UsageProblem
from llamapatch.series.load import load_series
from llamapatch.series.select import select
from llamapatch.tree.exchange.export import Export, Form, export, write_export


@click.command()
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("--without", multiple=True, metavar="ID", help="Leave this patch out, and what requires it. Repeatable.")
@click.option("--mbox", "form", flag_value="mbox", default=True, help="A mailbox for `git am` (the default).")
@click.option("--quilt", "form", flag_value="quilt", help="A folder for `quilt push -a`: series and DEP-3 headers.")
@click.option("--standalone", "form", flag_value="standalone", help="One diff for `git apply` or `patch -p1`.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="PATH", help="A new file, or folder for --quilt."
)
@dry_run_option
@json_option
@upstream_option
def command(
    selectors: tuple[str, ...],
    without: tuple[str, ...],
    form: Form,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
    upstream: str | None,
) -> None:
    """SELECTOR and what it requires as complete patches, kernels inlined, for people without llamapatch.

    They apply to a clean upstream of the pinned version and make the trees that series.lock proves. `llamapatch import`
    gives the same patches back.
    """
    config = settings(upstream=upstream)
    series = load_series(config)
    selection = select(series, selectors, without)
    if selection.pulled_in:
        say(f"pulled in: {', '.join(selection.pulled_in)} (required)")
    if form == "quilt" and output is None:
        raise UsageProblem("a quilt export is a folder.", "Say where it should go: `-o DIR`.")
    if output is None and as_json:
        raise UsageProblem("--json and the export would both go to standard output.", "Add `-o PATH`.")
    found = export(config, series, selection, form, say)
    if output is None:
        if not dry_run:
            click.echo(found.files[""], nl=False)
        return
    paths = write_export(found, output, dry_run=dry_run)
    if as_json:
        emit_json(_as_data(found, output, paths, dry_run))
        return
    word = "would be written" if dry_run else "written"
    out.print(f"{output} {word}: {', '.join(found.ids)}", markup=False)
    out.print(f"makes tree {found.tree} ({found.how}) of a clean upstream", markup=False)


def _as_data(found: Export, output: Path, paths: list[str], dry_run: bool) -> dict[str, object]:
    return {
        "schema": 1,
        "dry_run": dry_run,
        "form": found.form,
        "ids": list(found.ids),
        "tree": found.tree,
        "how": found.how,
        "output": str(output),
        "files": paths,
    }
