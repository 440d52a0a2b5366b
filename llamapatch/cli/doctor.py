"""``llamapatch doctor``."""

from __future__ import annotations

import click
from rich.table import Table

from llamapatch.build.doctor import Diagnosis, State, diagnose
from llamapatch.cli.common import emit_json, json_option, out, settings
from llamapatch.errors import ExitCode

_STYLE = {State.OK: "green", State.ABSENT: "yellow", State.MISSING: "bold red"}


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """What is found on this machine, what is missing, and what to install.

    Exits with 0 when everything that building and measuring on the CPU needs is there, with 1 otherwise.
    """
    diagnosis = diagnose(settings())
    if as_json:
        emit_json(_as_data(diagnosis))
    else:
        _print(diagnosis)
    ctx.exit(ExitCode.OK if diagnosis.healthy else ExitCode.ERROR)


def _print(diagnosis: Diagnosis) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in diagnosis.findings:
        style = _STYLE[finding.state]
        table.add_row(finding.name, f"[{style}]{finding.state.value}[/]", _escaped(finding.detail))
        if finding.remedy:
            table.add_row("", "", _escaped(finding.remedy))
    out.print(table, soft_wrap=False)
    out.print(
        "Ready to build and measure on the CPU." if diagnosis.healthy else "Not ready: see what is missing above."
    )


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


def _as_data(diagnosis: Diagnosis) -> dict[str, object]:
    return {
        "schema": 1,
        "healthy": diagnosis.healthy,
        "findings": [
            {"name": f.name, "state": f.state.value, "detail": f.detail, "remedy": f.remedy} for f in diagnosis.findings
        ],
    }
