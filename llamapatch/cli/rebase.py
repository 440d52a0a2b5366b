"""``llamapatch rebase``."""

from __future__ import annotations

import click

from llamapatch.cli.common import (
    complain,
    dry_run_option,
    emit_json,
    json_option,
    out,
    say,
    settings,
    upstream_option,
)
from llamapatch.errors import ExitCode, UsageProblem
from llamapatch.report.rebase import attempt_data, print_attempt
from llamapatch.series.load import load_series
from llamapatch.tree.rebase import Rebased, abort, proceed, rebase, skip, try_onto
from llamapatch.upstream.onto import find_target


@click.command()
@click.option(
    "--onto", metavar="REF|PATH|SOURCE", help="A tag, a checkout or archive, or npm:NAME@VERSION and the like."
)
@click.option("--as", "version", default="", metavar="NAME", help="What to call that upstream, if not by its ref.")
@click.option("--keep-going", is_flag=True, help="Try every patch, not only up to the first that stops.")
@click.option("--accept", multiple=True, metavar="ID", help="Agree to what this patch became. Repeatable.")
@click.option("--continue", "go_on", is_flag=True, help="Take what the parked worktree holds, and go on.")
@click.option("--skip", "leave_out", is_flag=True, help="Leave the patch that stopped out of the series, and go on.")
@click.option("--abort", "give_up", is_flag=True, help="End the rebase; nothing was changed.")
@dry_run_option
@json_option
@upstream_option
def command(
    *,
    onto: str | None,
    version: str,
    keep_going: bool,
    accept: tuple[str, ...],
    go_on: bool,
    leave_out: bool,
    give_up: bool,
    dry_run: bool,
    as_json: bool,
    upstream: str | None,
) -> int:
    """Carry the series over to another llama.cpp: each patch merged three ways, or stopped where it is in doubt.

    The series changes when every patch went through, in one step. A patch that stops (exit 3) waits in a worktree of
    its own: settle it there and --continue, or --skip it, or --abort.
    """
    if [onto is not None, go_on, leave_out, give_up].count(True) != 1:
        raise UsageProblem("give one of --onto, --continue, --skip and --abort.", "See `llamapatch rebase --help`.")
    if dry_run and onto is None:
        raise UsageProblem("--dry-run goes with --onto.", "See `llamapatch rebase --help`.")
    config = settings(upstream=upstream)
    if give_up:
        state = abort(config)
        if as_json:
            emit_json({"schema": 1, "aborted": state.spec})
        else:
            out.print(f"the rebase onto {state.version} is ended; the series is as it was", markup=False)
        return ExitCode.OK
    series = load_series(config)
    if onto is not None:
        target = find_target(config, series.pin, onto, version=version, report=say)
        if dry_run:
            attempt = try_onto(config, series, target, keep_going=keep_going, accept=accept)
            done = Rebased(attempt, dry_run=True)
        else:
            done = rebase(config, series, target, keep_going=keep_going, accept=accept, report=say)
    elif go_on:
        done = proceed(config, series, accept=accept, report=say)
    else:
        done = skip(config, series, report=say)
    if as_json:
        emit_json(_data(done))
    else:
        _print(done)
    if done.attempt.stop is None:
        return ExitCode.OK
    _explain(done)
    return ExitCode.CONFLICT


def _print(done: Rebased) -> None:
    print_attempt(done.attempt, out)
    if not done.done:
        return
    out.print()
    if done.dry_run:
        out.print("every patch would go through; nothing was changed", markup=False)
        return
    out.print(f"rebased: {len(done.files)} files of the series written", markup=False)
    if done.learned:
        out.print(f"resolutions recorded: {done.learned}", markup=False)
    for path in done.unlearned:
        out.print(f"not recorded: {path} was edited beyond its conflicts", markup=False)
    out.print("`llamapatch apply` brings the worktree there", markup=False)


def _explain(done: Rebased) -> None:
    stop = done.attempt.stop
    assert stop is not None
    message = f"`{stop.id}` stopped: {stop.status}{f' ({stop.why})' if stop.why else ''}."
    accept = f", or agree with `--accept {stop.id}`" if done.attempt.can_accept(stop) else ""
    if done.parked is None:
        complain(message, f"Nothing was changed{accept and '; agree to it with `--accept ' + stop.id + '`'}.")
        return
    complain(
        f"{message} The series is unchanged; the patch waits in {done.parked}.",
        f"Settle it there and run `llamapatch rebase --continue`{accept}, or leave it out with `--skip`, "
        "or end with `--abort`.",
    )


def _data(done: Rebased) -> dict[str, object]:
    return {
        "schema": 1,
        "dry_run": done.dry_run,
        "done": done.done,
        "files": list(done.files),
        "parked": str(done.parked) if done.parked else None,
        "learned": done.learned,
        "unlearned": list(done.unlearned),
        **attempt_data(done.attempt),
    }
