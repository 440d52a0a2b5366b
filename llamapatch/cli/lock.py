"""``llamapatch lock``."""

from __future__ import annotations

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings, upstream_option
from llamapatch.series.load import load_series
from llamapatch.tree.relock import check_lock, relock


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 4 when series.lock is out of date.")
@dry_run_option
@json_option
@upstream_option
def command(check: bool, dry_run: bool, as_json: bool, upstream: str | None) -> None:
    """Apply the whole series on the pinned tree and record what comes out in series.lock.

    The pre-images beside it, preimages.bundle, are written too: upstream's version of each file that a patch touches.
    """
    config = settings(upstream=upstream)
    series = load_series(config)
    found = check_lock(config, series, say) if check else relock(config, series, dry_run=dry_run, report=say)
    if as_json:
        emit_json(
            {
                "schema": 1,
                "path": str(found.path),
                "chain": found.chain,
                "changed": list(found.changed),
                "stale": list(found.stale),
                "current": found.current,
                "written": found.written,
            }
        )
        return
    if found.current:
        out.print(f"{found.path} is current, chain {found.chain}", markup=False)
    else:
        word = "written" if found.written else "would change"
        out.print(f"{found.path} {word} ({', '.join(found.changed or found.stale)}), chain {found.chain}", markup=False)
