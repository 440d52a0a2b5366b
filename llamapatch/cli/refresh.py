"""``llamapatch refresh``."""

from __future__ import annotations

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings
from llamapatch.errors import UsageProblem
from llamapatch.report.restack import print_restack, raise_stops, restack_data
from llamapatch.series.load import load_series
from llamapatch.tree.edit import refresh


@click.command()
@click.option("--overlay", multiple=True, metavar="PATH=SOURCE", help="A new file that goes to ggml_kernels/SOURCE.")
@click.option("--diff", multiple=True, metavar="PATH", help="A new file that goes to change.patch. Repeatable.")
@click.option("--accept", multiple=True, metavar="ID", help="Agree that this patch behind it is relocated.")
@dry_run_option
@json_option
def command(
    *, overlay: tuple[str, ...], diff: tuple[str, ...], accept: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Take the worktree's edits into the patch that is being edited.

    Overlay files go to ggml_kernels/, the rest to change.patch; the patches behind it are carried along.
    """
    pairs = [item.partition("=") for item in overlay]
    if any(not (path and source) for path, _, source in pairs):
        raise UsageProblem("`--overlay` takes PATH=SOURCE.", "For example `--overlay ggml/src/x.cpp=family/x.cpp`.")
    config = settings()
    done = refresh(
        config,
        load_series(config),
        overlay={path: source for path, _, source in pairs},
        diff=diff,
        accept=accept,
        dry_run=dry_run,
        report=say,
    )
    if as_json:
        emit_json(
            {
                "schema": 1,
                "dry_run": done.dry_run,
                "patch": done.patch,
                "edits": done.edits,
                "carried": restack_data(done.behind),
                "files": list(done.files),
            }
        )
    else:
        if not done.edits:
            out.print(f"nothing was edited in {done.patch}", markup=False)
        for path, to in done.edits.items():
            out.print(f"{path} -> {to}", markup=False)
        print_restack(done.behind, out)
    raise_stops(done.behind, "refresh")
    if done.edits and not as_json:
        out.print(f"{done.patch} {'would be ' * dry_run}refreshed, {len(done.files)} files", markup=False)
