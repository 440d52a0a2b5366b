"""``llamapatch verify``."""

from __future__ import annotations

import click

from llamapatch.cli.common import emit_json, json_option, out, say, settings, upstream_option
from llamapatch.series.load import load_series
from llamapatch.tree.verify import verify


@click.command()
@json_option
@upstream_option
def command(as_json: bool, upstream: str | None) -> None:
    """Prove the lock, every prefix tree, the applied state and every file of the worktrees."""
    config = settings(upstream=upstream)
    found = verify(config, load_series(config), report=say)
    if as_json:
        emit_json(
            {
                "schema": 1,
                "chain": found.chain,
                "prefixes": [{"id": patch_id, "tree": tree} for patch_id, tree in found.prefixes],
                "applied": {"ids": list(found.applied), "how": found.how},
                "worktrees": [{"name": name, "tree": tree} for name, tree in found.worktrees],
            }
        )
        return
    for patch_id, tree in found.prefixes:
        out.print(f"ok  tree {tree}  after {patch_id}", markup=False)
    out.print(f"ok  series.lock, chain {found.chain}", markup=False)
    if found.how is not None:
        out.print(f"ok  applied: {', '.join(found.applied) or 'nothing'} ({found.how})", markup=False)
    for name, tree in found.worktrees:
        out.print(f"ok  worktree {name}, every file, tree {tree}", markup=False)
