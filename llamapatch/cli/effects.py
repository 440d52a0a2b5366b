"""What ``waterfall``, ``ablate`` and ``bisect`` share: one command each, made here."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from llamapatch.cli.common import dry_run_option, emit_json, err, json_option, out, say, settings, upstream_option
from llamapatch.judge.effects import Kind, Wanted, effects
from llamapatch.measure.prepare import Request, make_plan
from llamapatch.report.effects import effects_markdown, print_effects
from llamapatch.report.live import Live
from llamapatch.report.load import record
from llamapatch.report.plan import print_plan
from llamapatch.report.terminal import wide_console


def make_command(kind: Kind, text: str) -> click.Command:
    """The command of one verb; `text` is its help."""

    @click.command(kind, help=text)
    @click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
    @click.option(
        "--metric", required=True, metavar="M", help="A test (tg16), 'CPU time', 'peak memory' or perplexity."
    )
    @click.option("--type", "type_name", default="", metavar="T", help="Type of the model (default: the first).")
    @click.option(
        "--profile", default="quick", show_default=True, metavar="NAME", help="A profile of ci/scenarios.toml."
    )
    @click.option("--threshold", type=click.FloatRange(0.1, 100), default=3.0, show_default=True, metavar="PERCENT",
                  help="bisect: what counts as moved.", hidden=kind != "bisect")  # fmt: skip
    @click.option("--blocks", type=int, metavar="N", help="Blocks of interleaved processes (default: the profile's).")
    @click.option("--threads", type=int, metavar="N", help="Threads of every tool.")
    @click.option("--seed", type=int, metavar="N", help="Seed of the running order (default: random, recorded).")
    @click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Also write it as Markdown.")
    @upstream_option
    @json_option
    @dry_run_option
    def command(
        selectors: tuple[str, ...],
        metric: str,
        type_name: str,
        profile: str,
        threshold: float,
        blocks: int | None,
        threads: int | None,
        seed: int | None,
        markdown: Path | None,
        upstream: str | None,
        as_json: bool,
        dry_run: bool,
    ) -> int:
        here = settings(upstream)
        request = Request(selectors=selectors, profile=profile, blocks=blocks, threads=threads, seed=seed)
        if dry_run:
            plan = make_plan(here, request)
            if as_json:
                emit_json(plan.data(request))
            else:
                print_plan(plan, request, out)
            return 0
        command_line = shlex.join(["llamapatch", *sys.argv[1:]])
        with Live(err) as live:
            result = effects(here, kind, request, Wanted(metric, type_name, threshold / 100), live.report, command_line)
        record(here, result)
        if markdown is not None:
            markdown.write_text(effects_markdown(result), encoding="utf-8")
            say(f"wrote {markdown}")
        if as_json:
            emit_json(result.data())
        else:
            print_effects(result, out, wide_console(out))
        return result.exit_code

    return command
