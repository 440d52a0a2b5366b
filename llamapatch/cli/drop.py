"""``llamapatch drop``."""

from __future__ import annotations

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings
from llamapatch.report.restack import print_restack, raise_stops, restack_data
from llamapatch.series.load import load_series
from llamapatch.tree.rework import Reworked, drop


@click.command()
@click.argument("patch")
@click.option("--with-dependents", is_flag=True, help="Drop those that require it, too.")
@click.option("--keep-kernels", is_flag=True, help="Leave its files in ggml_kernels/.")
@click.option("--accept", multiple=True, metavar="ID", help="Agree that this patch behind it is relocated.")
@dry_run_option
@json_option
def command(
    *, patch: str, with_dependents: bool, keep_kernels: bool, accept: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Take PATCH out of the series, and carry those behind it along."""
    config = settings()
    done = drop(
        config,
        load_series(config),
        patch,
        dependents=with_dependents,
        keep_kernels=keep_kernels,
        accept=accept,
        dry_run=dry_run,
        report=say,
    )
    report_rework(done, "drop", as_json)


def report_rework(done: Reworked, verb: str, as_json: bool) -> None:
    """What a drop or a move did; raises `ConflictError` when a patch behind stopped it."""
    if as_json:
        emit_json(
            {
                "schema": 1,
                "dry_run": done.dry_run,
                "dropped": list(done.gone),
                "order": list(done.order),
                "carried": restack_data(done.behind),
                "files": list(done.files),
                "kept": dict(done.kept),
                "applied": list(done.applied) if done.applied is not None else None,
            }
        )
    else:
        print_restack(done.behind, out)
    raise_stops(done.behind, verb)
    if as_json:
        return
    would = "would be " * done.dry_run
    if done.gone:
        out.print(f"{would}dropped: {', '.join(done.gone)}", markup=False)
    for source, why in done.kept:
        out.print(f"{would}kept: ggml_kernels/{source} ({why})", markup=False)
    out.print(f"order: {', '.join(done.order) or 'no patch'}", markup=False)
    if done.applied is not None:
        out.print(f"{would}applied: {', '.join(done.applied) or 'nothing'}", markup=False)
