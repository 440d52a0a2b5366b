"""``llamapatch gate``: whether each patch keeps what it declares, with evidence."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from llamapatch.cli.common import dry_run_option, emit_json, err, json_option, out, say, settings, upstream_option
from llamapatch.config import Settings
from llamapatch.errors import ExitCode, UsageProblem
from llamapatch.judge.gate import GateOptions, collect, gate, line_of, read_lines, run_job, stale_results
from llamapatch.judge.gate_result import GateResult
from llamapatch.judge.jobs import GateJob, find_job, plan_jobs
from llamapatch.judge.selftest import self_test
from llamapatch.report.gate import gate_markdown, print_gate
from llamapatch.report.junit import gate_junit
from llamapatch.report.live import Live
from llamapatch.report.load import record
from llamapatch.series.load import load_series

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--quick", "profile", flag_value="quick", help="Minutes a patch (the default).")
@click.option("--full", "profile", flag_value="full", help="Hours, unattended: synthetic 1B shapes too.")
@click.option("--profile", metavar="NAME", help="A profile of ci/scenarios.toml.")
@click.option("--backend", type=click.Choice(["cpu", "cuda"]), default="cpu", help="What is built and measured.")
@click.option("--plan", "plan_only", is_flag=True, help="Print the jobs with their hashes; run nothing.")
@click.option("--job", "job_hash", metavar="HASH", help="Run one job of the plan; its result goes to -o as jsonl.")
@click.option("-o", "--output", type=_PATH, metavar="DIR", help="Where --job leaves its result (default: here).")
@click.option("--collect", "collect_from", type=_PATH, metavar="DIR", help="Judge the results that --job left in DIR.")
@click.option("--results", type=_PATH, metavar="DIR", help="Committed results (default: ci/results of the series).")
@click.option("--fresh", is_flag=True, help="Ignore stored results and measure again.")
@click.option("--write", is_flag=True, help="Store what passes among the committed results.")
@click.option("--self-test", is_flag=True, help="Let the gate judge fake tools with known faults, in a minute.")
@click.option("--markdown", type=_PATH, metavar="FILE", help="Also write a pull-request comment.")
@click.option("--junit", type=_PATH, metavar="FILE", help="Also write JUnit XML.")
@upstream_option
@json_option
@dry_run_option
def command(
    selectors: tuple[str, ...],
    profile: str | None,
    backend: str,
    plan_only: bool,
    job_hash: str | None,
    output: Path | None,
    collect_from: Path | None,
    results: Path | None,
    fresh: bool,
    write: bool,
    self_test: bool,
    markdown: Path | None,
    junit: Path | None,
    upstream: str | None,
    as_json: bool,
    dry_run: bool,
) -> int:
    """Prove each patch of SELECTOR (default: the whole series): it applies, builds, passes its tests, is upstream when
    switched off, and keeps its budgets and claims; on top of what it requires, and again in the whole series.

    Exit codes: 0 all hold, 6 something failed, 8 not measured, 7 inconclusive.
    """
    if sum(map(bool, (plan_only, job_hash, collect_from, self_test))) > 1:
        raise UsageProblem("--plan, --job, --collect and --self-test exclude each other.", "Choose one.")
    if self_test:
        return _self_test(settings(upstream), as_json)
    here = settings(upstream)
    series = load_series(here)
    options = GateOptions(
        profile=profile or "quick",
        backend=backend,
        fresh=fresh,
        results=results or here.home / "ci" / "results",
        write=write,
        command=shlex.join(["llamapatch", *sys.argv[1:]]),
    )
    jobs = plan_jobs(here, series, selectors, profile=options.profile, backend=backend)
    if plan_only or dry_run:
        _print_plan(jobs, as_json)
        return 0
    if job_hash:
        job = find_job(jobs, job_hash)
        with Live(err) as live:
            done = run_job(here, series, job, options, live.report)
        target = (output or Path()) / f"{job.hash}.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(line_of(done), encoding="utf-8")
        say(f"wrote {target}")
        result = collect(here, series, [done.gated], options)
    elif collect_from:
        result = collect(here, series, read_lines(collect_from, jobs), options)
    else:
        with Live(err) as live:
            result = gate(here, series, jobs, options, live.report)
        if not selectors and options.results is not None:
            for name in stale_results(here, series, jobs, options.results):
                say(f"{options.results / name} belongs to no patch of the series")
    record(here, result)
    return _report(result, as_json, markdown, junit)


def _print_plan(jobs: list[GateJob], as_json: bool) -> None:
    if as_json:
        emit_json({"schema": 1, "jobs": [job.data() for job in jobs]})
        return
    for job in jobs:
        line = f"{job.hash[:16]}  {job.patch} ({job.where}), {job.backend}, {job.profile}: {', '.join(job.applied)}"
        out.print(line, markup=False, soft_wrap=True)


def _report(result: GateResult, as_json: bool, markdown: Path | None, junit: Path | None) -> int:
    for path, render in ((markdown, gate_markdown), (junit, gate_junit)):
        if path is not None:
            path.write_text(render(result), encoding="utf-8")
            say(f"wrote {path}")
    if as_json:
        emit_json(result.data())
    else:
        print_gate(result, out)
    return result.exit_code


def _self_test(here: Settings, as_json: bool) -> int:
    with Live(err) as live:
        outcomes = self_test(here, live.report)
    if as_json:
        emit_json({"schema": 1, "right": all(o.right for o in outcomes), "cases": [o.data() for o in outcomes]})
    for outcome in outcomes if not as_json else ():
        mark = "right" if outcome.right else "WRONG"
        case = outcome.case
        out.print(f"{mark:<7}{case.name:<36}expected {case.expected}, said {outcome.word}", markup=False)
        for name, finding in outcome.steps.items() if not outcome.right else ():
            out.print(f"       {name}: {finding.word}, {finding.said}", markup=False, soft_wrap=True)
    return ExitCode.OK if all(o.right for o in outcomes) else ExitCode.GATE_FAILED
