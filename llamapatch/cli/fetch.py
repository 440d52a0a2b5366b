"""``llamapatch fetch``."""

from __future__ import annotations

import time

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings, upstream_option
from llamapatch.series.load import load_series
from llamapatch.upstream.fetch import check_contents, ensure_upstream, plan


@click.command()
@upstream_option
@dry_run_option
@json_option
def command(upstream: str | None, dry_run: bool, as_json: bool) -> None:
    """Get the pinned llama.cpp and prove it: tree hash, every object, every byte.

    Sources are tried in the order of series.toml, unless --upstream names your own. What was fetched before is
    hashed again.
    """
    config = settings(upstream=upstream)
    pin = load_series(config).pin
    ahead = plan(config, pin)
    facts: dict[str, object] = {"schema": 1, "version": pin.version, "tree": pin.tree, "dry_run": dry_run}
    facts |= {"cached": ahead.cached, "sources": list(ahead.sources)}
    if not dry_run:
        started = time.monotonic()
        found = ensure_upstream(config, pin, say)
        check_contents(config, found)
        facts |= {"source": found.source, "git_dir": str(found.git_dir), "seconds": time.monotonic() - started}
    if as_json:
        emit_json(facts)
        return
    out.print(f"version   {pin.version}\ntree      {pin.tree}", markup=False)
    if dry_run:
        out.print(f"cached    {'yes, nothing to fetch' if ahead.cached else 'no'}", markup=False)
        for source in ahead.sources:
            out.print(f"source    {source}", markup=False)
        return
    was = ", cached before" if ahead.cached else ""
    out.print(f"source    {found.source}{was}\nstored    {found.git_dir}", markup=False)
    out.print(f"verified  in {facts['seconds']:.1f} s", markup=False)
