"""``llamapatch compare``: what a selection of patches changes, measured against the unpatched build."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click

from llamapatch.cli.common import dry_run_option, emit_json, err, json_option, out, say, settings, upstream_option
from llamapatch.errors import UsageProblem
from llamapatch.judge.compare import compare
from llamapatch.measure.prepare import Request, make_plan
from llamapatch.measure.runs import RunFolder
from llamapatch.report.live import Live
from llamapatch.report.load import record
from llamapatch.report.markdown import to_markdown
from llamapatch.report.plan import print_plan
from llamapatch.report.terminal import print_comparison

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--without", multiple=True, metavar="ID", help="Leave a patch out (repeatable).")
@click.option("--only", multiple=True, metavar="ID", help="Switch on only this patch (repeatable; default: all).")
@click.option(
    "--model", type=_PATH, metavar="GGUF", help="Your own model, measured as it is; `stress`: the twin with outliers."
)
@click.option("--text", type=_PATH, metavar="FILE", help="Your own evaluation text (UTF-8).")
@click.option("--quick", "profile", flag_value="quick", help="Minutes: the reference model, short.")
@click.option("--full", "profile", flag_value="full", help="Hours, unattended: synthetic 1B shapes too.")
@click.option("--profile", metavar="NAME", help="A profile of ci/scenarios.toml (default: standard).")
@click.option("--peer", "peers", multiple=True, metavar="NAME=DIR", help="Another build's bin folder as one more arm.")
@click.option("--blocks", type=int, metavar="N", help="Blocks of interleaved processes (default: the profile's, 7).")
@click.option("--chunks", type=int, metavar="N", help="Windows of text (default: the profile's).")
@click.option(
    "--threads",
    type=int,
    metavar="N",
    help="Threads of every tool (default: all cores; in the quick profile those that are idle).",
)
@click.option("--seed", type=int, metavar="N", help="Seed of the running order (default: random, recorded).")
@click.option("--markdown", type=_PATH, metavar="FILE", help="Also write the report as Markdown.")
@click.option("--keep", type=_PATH, metavar="DIR", help="Keep the raw data in DIR (default: under .llamapatch/runs).")
@click.option("--bin-base", type=_PATH, metavar="DIR", help="Tools of the unpatched build; nothing is built for it.")
@click.option("--bin-patched", type=_PATH, metavar="DIR", help="Tools of the patched build; nothing is built for it.")
@click.option("--resume", type=_PATH, metavar="DIR", help="Go on with an interrupted run; other options are its own.")
@upstream_option
@json_option
@dry_run_option
def command(
    selectors: tuple[str, ...],
    without: tuple[str, ...],
    only: tuple[str, ...],
    model: Path | None,
    text: Path | None,
    profile: str | None,
    peers: tuple[str, ...],
    blocks: int | None,
    chunks: int | None,
    threads: int | None,
    seed: int | None,
    markdown: Path | None,
    keep: Path | None,
    bin_base: Path | None,
    bin_patched: Path | None,
    resume: Path | None,
    upstream: str | None,
    as_json: bool,
    dry_run: bool,
) -> int:
    """Measure what SELECTOR (default: what is applied, else the whole series) changes.

    Builds upstream with and without the patches where needed, then measures both in turns on the same model and text:
    perplexity and KL divergence, bit-identity with every switch off, speed, memory, and each patch's own kernel
    benchmark. Ends with 0, or with 8 when a part could not be measured.
    """
    request = Request(
        selectors=selectors,
        without=without,
        only=only,
        model=model,
        text=text,
        profile=profile or "standard",
        blocks=blocks,
        chunks=chunks,
        threads=threads,
        seed=seed,
        keep=keep,
        bin_base=bin_base,
        bin_patched=bin_patched,
        peers=_peers(peers),
    )
    here = settings(upstream)
    if dry_run:
        plan = make_plan(here, request)
        if as_json:
            emit_json(plan.data(request))
        else:
            print_plan(plan, request, out)
        return 0
    folders: list[RunFolder] = []
    with Live(err) as live:
        try:
            result = compare(
                here,
                request,
                live.report,
                command=shlex.join(["llamapatch", *sys.argv[1:]]),
                opened=folders.append,
                resume=resume,
            )
        except KeyboardInterrupt:
            for folder in folders:
                say(f"what was measured so far: {folder.path}; go on with `llamapatch compare --resume {folder.path}`")
            raise
    record(here, result)
    if markdown is not None:
        markdown.write_text(to_markdown(result), encoding="utf-8")
        say(f"wrote {markdown}")
    if as_json:
        emit_json(result.data())
    else:
        print_comparison(result, out)
    return result.exit_code


def _peers(words: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or not folder or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name in found:
            raise UsageProblem(
                f"--peer {word} is not NAME=DIR with a name of its own.", "For example --peer ik=../ik/bin."
            )
        found[name] = Path(folder)
    return found
