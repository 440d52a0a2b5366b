"""What every verb shares: options, data on stdout, talk on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console

from llamapatch.config import Settings, load_settings

F = TypeVar("F", bound=Callable[..., Any])

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)


def json_option(f: F) -> F:
    """``--json``: machine-readable data on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")(f)


def dry_run_option(f: F) -> F:
    """``--dry-run``: say what would be done, change nothing."""
    return click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")(f)


def upstream_option(f: F) -> F:
    """``--upstream PATH``."""
    return click.option(
        "--upstream",
        metavar="PATH",
        help="Your own llama.cpp: a checkout, a bare repository or a tarball. It is only read.",
    )(f)


def settings(upstream: str | None = None, jobs: int | None = None) -> Settings:
    """The settings of this invocation; a change of the series that was interrupted is finished or undone first."""
    config = load_settings(upstream=upstream, jobs=jobs)
    if config.intent.is_file():
        from llamapatch.tree.write import recover_project  # slow to import, seldom needed

        recover_project(config)
    return config


def emit_json(data: Any) -> None:
    """Print `data` (of dicts, lists, strings, numbers) as JSON with sorted keys."""
    click.echo(json.dumps(data, indent=2, sort_keys=True, allow_nan=False))


def say(text: str) -> None:
    """Talk: a line on standard error."""
    err.print(text, markup=False, soft_wrap=True)


def complain(message: str, remedy: str = "") -> None:
    """An error as one paragraph on standard error."""
    err.print("[bold red]error:[/] ", end="")
    err.print(f"{message} {remedy}".strip(), markup=False, soft_wrap=True)
