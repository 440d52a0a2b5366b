"""``llamapatch drift``."""

from __future__ import annotations

import click

from llamapatch.cli.common import emit_json, json_option, out, say, settings, upstream_option
from llamapatch.errors import ExitCode, UsageProblem
from llamapatch.report.rebase import drift_data, drift_markdown, print_drift
from llamapatch.series.load import load_series
from llamapatch.tree.drift import drift
from llamapatch.upstream.onto import find_target


@click.command()
@click.option(
    "--onto", multiple=True, metavar="REF|PATH|SOURCE", help="An upstream to try, as for `rebase`. Repeatable."
)
@click.option("--markdown", is_flag=True, help="Print Markdown, for the summary of a nightly CI job.")
@json_option
@upstream_option
def command(onto: tuple[str, ...], markdown: bool, as_json: bool, upstream: str | None) -> int:
    """How the series would fare on other upstreams: the status of each patch, how far behind, ids that collide.

    Changes nothing. Exits with 0 when everything would go through, with 3 when a patch would stop or an id collides.
    """
    if not onto:
        raise UsageProblem("say what to compare with: --onto REF, PATH or SOURCE.", "It may be given several times.")
    if markdown and as_json:
        raise UsageProblem("--markdown and --json exclude each other.")
    config = settings(upstream=upstream)
    series = load_series(config)
    found = drift(config, series, [find_target(config, series.pin, spec, report=say) for spec in onto])
    if as_json:
        emit_json(drift_data(series, found))
    elif markdown:
        out.print(drift_markdown(series, found), markup=False, end="")
    else:
        print_drift(series, found, out)
    return ExitCode.OK if all(one.clean for one in found) else ExitCode.CONFLICT
