"""``llamapatch check``."""

from __future__ import annotations

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings, upstream_option
from llamapatch.series.load import load_series
from llamapatch.tree.check import check


@click.command()
@click.option("--fix", is_flag=True, help="Rewrite what has another spelling, and the lock with it.")
@dry_run_option
@json_option
@upstream_option
def command(fix: bool, dry_run: bool, as_json: bool, upstream: str | None) -> None:
    """Write every patch again and compare to the byte; lint; lock and pre-images current. The pre-commit hook.

    Exits with 4 when a file is not what it should be.
    """
    config = settings(upstream=upstream)
    found = check(config, load_series(config), fix=fix, dry_run=dry_run, report=say)
    if as_json:
        emit_json(
            {
                "schema": 1,
                "chain": found.chain,
                "patches": found.patches,
                "fixed": list(found.fixed),
                "written": bool(found.fixed) and not dry_run,
            }
        )
        return
    for name in found.fixed:
        out.print(f"{'would fix' if dry_run else 'fixed'}  {name}", markup=False)
    out.print(f"ok  {found.patches} patches, chain {found.chain}", markup=False)
