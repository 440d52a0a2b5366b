"""The verb ``compare``: prepare, measure, judge; one call that returns everything a report needs."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from llamapatch import __version__
from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.judge.comparison import activities, judge_kernels, judge_round, undecided
from llamapatch.judge.result import ArmInfo, Comparison, ProblemInfo, TextInfo
from llamapatch.judge.verdict import level_of
from llamapatch.measure.gpu import Gpus
from llamapatch.measure.machine import describe_machine, read_joules
from llamapatch.measure.prepare import Plan, Request, make_plan, prepare
from llamapatch.measure.progress import Progress
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.scenario import Profile
from llamapatch.measure.session import Job, Measurements, collect
from llamapatch.series.load import load_series
from llamapatch.series.lock import series_chain

Report = Callable[[str], None]


def compare(
    settings: Settings,
    request: Request,
    report: Report,
    *,
    command: str = "",
    opened: Callable[[RunFolder], None] | None = None,
    resume: Path | None = None,
) -> Comparison:
    """Measure the request and judge it; or go on with the interrupted run in folder `resume`, whose stored request
    replaces `request`.

    `report` gets progress sentences; `opened` the run folder as soon as it exists, so that an interrupted caller can
    say where the raw data are. Raises for bad input and a broken environment; what could not be measured is in the
    result's `problems`.
    """
    started = time.monotonic()
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if resume is not None:
        folder = RunFolder.reopen(resume)
        request = _stored_request(settings, folder)
    plan = make_plan(settings, request)
    if resume is None:
        folder = RunFolder.create(settings.state / "runs", request.keep)
    if opened is not None:
        opened(folder)
    folder.gpus = Gpus.find()
    machine = describe_machine(folder.gpus)
    folder.write_json("machine.json", machine)
    folder.write_json(
        "request.json",
        {
            "command": command,
            "request": replace(request, seed=plan.seed, threads=plan.threads).data(),
            "series_chain": series_chain(plan.series),
            "selected": list(plan.selection.ids),
            "switches": plan.switches,
        },
    )
    job = prepare(settings, request, plan, folder, report)
    found = collect(job, folder, Progress(report), lambda round_: undecided(round_, looks_of(job.profile)))
    result = judge_all(
        plan,
        job,
        found,
        folder=folder,
        machine=machine,
        command=command,
        started=stamp,
        seconds=time.monotonic() - started,
    )
    folder.write_json("comparison.json", result.data())
    return result


def looks_of(profile: Profile) -> int:
    """How often the data of a profile may be judged: at first, and after each extension."""
    return 1 + profile.extend


def _stored_request(settings: Settings, folder: RunFolder) -> Request:
    """What the interrupted run was asked for; `UsageProblem` when the series is no longer the same."""
    stored = json.loads((folder.path / "request.json").read_text(encoding="utf-8"))
    if stored["series_chain"] != series_chain(load_series(settings)):
        raise UsageProblem(f"the series changed since {folder.name} began.", "Start a new comparison.")
    return Request.from_data(stored["request"])


def judge_all(
    plan: Plan,
    job: Job,
    found: Measurements,
    *,
    folder: RunFolder,
    machine: dict[str, object],
    command: str,
    started: str,
    seconds: float,
) -> Comparison:
    """Turn measurements into the published result."""
    looks = looks_of(job.profile)
    kernels = [judge_kernels(kernel) for kernel in found.kernels]
    return Comparison(
        schema=1,
        tool=__version__,
        id=folder.name,
        started=started,
        seconds=seconds,
        command=command,
        profile=plan.profile_name,
        blocks=job.profile.blocks,
        level=level_of(looks),
        seed=job.seed,
        threads=job.threads,
        upstream_version=plan.series.pin.version,
        upstream_tree=plan.series.pin.tree,
        series_chain=series_chain(plan.series),
        selected=list(plan.selection.ids),
        asked=list(plan.selection.asked),
        pulled_in=list(plan.selection.pulled_in),
        arms=[
            ArmInfo(name=arm.name, label=arm.label, commit=arm.commit, switches=dict(arm.switches)) for arm in job.arms
        ],
        text=TextInfo(name=job.text.name, sha256=job.text.sha256, bytes=job.text.bytes),
        machine=machine,
        contended_share=found.contended / found.watched if found.watched else None,
        energy=read_joules() is not None,
        rounds=[judge_round(round_, looks) for round_ in found.rounds],
        kernels=[kernel for kernel in kernels if kernel is not None],
        activity=activities(found),
        problems=[ProblemInfo(where=problem.where, what=problem.what) for problem in found.problems],
        raw=str(folder.path),
        exit_code=8 if found.problems else 0,
    )
