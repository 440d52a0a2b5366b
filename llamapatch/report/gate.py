"""A gate's result in words, for the terminal and for a pull request: the verdict first, the evidence behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from llamapatch.judge.gate_result import GatedPatch, GateResult, Step, worst
from llamapatch.report.markdown import escape
from llamapatch.report.marks import STYLES, mark_of, printable

WHERE = {"closure": "on top of what it requires", "series": "in the whole series"}
_SAID = {"pass": "passed", "fail": "failed", "not measured": "not measured", "inconclusive": "inconclusive"}
# What a reader wants to know of a patch that passed, in this order.
_TELLING = ("speed", "quality", "off-identity")
# GitHub refuses comments of more than 65,536 characters; the rest is left for what a comment's author adds.
COMMENT_LIMIT = 60_000
_CELL = 240


def verdict(jobs: Sequence[GatedPatch]) -> str:
    """``fail: 1 failed, 2 passed``."""
    word = worst([job.word for job in jobs])
    counts: Counter[str] = Counter(job.word for job in jobs)
    order = ("fail", "not measured", "inconclusive", "pass", "not applicable")
    said = ", ".join(f"{counts[w]} {_SAID.get(w, w)}" for w in order if counts[w])
    return f"{word}: {said}" if said else "nothing was asked"


def deciding(job: GatedPatch) -> Step | None:
    """The step that made the job's word: the first of that word, or of those that passed the most telling."""
    if job.word == "pass":
        named = {step.name: step for step in job.steps if step.word == "pass"}
        return next((named[name] for name in _TELLING if name in named), job.steps[-1] if job.steps else None)
    return next((step for step in job.steps if step.word == job.word), None)


def reason(job: GatedPatch) -> str:
    """One sentence for the job's word."""
    step = deciding(job)
    return f"{step.name}: {step.said}" if step else "it was never run."


def gate_markdown(result: GateResult, limit: int = COMMENT_LIMIT) -> str:
    """A pull-request comment or job summary of at most `limit` characters; ends with a newline.

    When everything does not fit, the steps of passing jobs are left out first, then those of all jobs.
    """
    keep: list[Sequence[GatedPatch]] = [result.jobs, [job for job in result.jobs if job.word != "pass"], []]
    texts = (_markdown(result, detailed) for detailed in keep)
    return next((text for text in texts if len(text) <= limit), _markdown(result, [])[: limit - 1].rstrip() + "\n")


def print_gate(result: GateResult, console: Console) -> None:
    """Print every job with its steps, the evidence of what did not pass, and the verdict last, where eyes are."""
    for job in result.jobs:
        mark = mark_of(job.word)
        note = f" (stored result of {job.measured_at})" if job.cached else ""
        head = Text(f"{mark.sign} {job.patch}", style=f"bold {STYLES[mark.tone]}".strip())
        head.append(f", {WHERE[job.where]}, {job.backend}, {job.scenario}: {job.word}{note}", style="not bold")
        console.print(head, soft_wrap=True)
        for step in job.steps:
            sign = mark_of(step.word)
            line = Text("  ").append(f"{sign.sign} {step.name:<15}", style=STYLES[sign.tone])
            line.append(f"{'' if step.word in ('pass', 'fail') else step.word + ': '}{printable(step.said)}")
            console.print(line, soft_wrap=True)
            if step.word in ("fail", "not measured", "inconclusive"):
                for name, values in (("again", step.commands), ("evidence", step.evidence)):
                    for value in values:
                        console.print(Text(f"      {name}: {value}", style="dim"), soft_wrap=True)
        if not job.steps:
            console.print(Text(f"  {reason(job)}"), soft_wrap=True)
    console.print(Text(f"evidence: {result.raw}", style="dim"), soft_wrap=True)
    mark = mark_of(worst([job.word for job in result.jobs]))
    console.print(Text(f"{mark.sign} gate {verdict(result.jobs)}", style=f"bold {STYLES[mark.tone]}"), soft_wrap=True)


def _markdown(result: GateResult, detailed: Sequence[GatedPatch]) -> str:
    word = worst([job.word for job in result.jobs])
    machine = result.machine
    parts = [
        f"## {mark_of(word).sign} llamapatch gate: {escape(verdict(result.jobs))}",
        "",
        f"llama.cpp {escape(result.upstream_version)}, series `{result.series_chain[:12]}`, profile "
        f"{escape(result.profile)}, {escape(str(machine.get('cpu', 'unknown machine')))}.",
        "",
        "| | patch | where | class | because |",
        "| --- | --- | --- | --- | --- |",
    ]
    for job in result.jobs:
        stored = " (stored)" if job.cached else ""
        parts.append(
            f"| {mark_of(job.word).sign} {job.word}{stored} | `{escape(job.patch)}` | {WHERE[job.where]} | "
            f"{escape(job.effect)} | {escape(_short(reason(job)))} |"
        )
    for job in detailed:
        parts += _details(job)
    if len(detailed) < len(result.jobs):
        parts += ["", f"The steps of {len(result.jobs) - len(detailed)} jobs are left out: they do not fit here."]
    parts += [
        "",
        "<details><summary>Where this comes from</summary>",
        "",
        f"- run {escape(result.id)} of {result.started}, {result.seconds:.0f} s, llamapatch {escape(result.tool)}",
        f"- upstream tree `{result.upstream_tree}`, series chain `{result.series_chain}`",
        f"- machine {escape(str(machine.get('id', '?')))}: {escape(str(machine.get('cpu', '?')))}, "
        f"{machine.get('cores', '?')} cores",
        f"- command: `{result.command}`",
        "",
        "</details>",
        "",
    ]
    return "\n".join(parts)


def _details(job: GatedPatch) -> list[str]:
    parts = [
        "",
        f"<details><summary>{mark_of(job.word).sign} {escape(job.patch)} {WHERE[job.where]}: every step</summary>",
        "",
        f"{escape(job.title)}. {_budgets(job)}Measured {job.measured_at or 'never'}; "
        f"job `{job.job[:16]}`; tree holds {escape(', '.join(job.applied)) or 'nothing'}.",
        "",
        "| step | | what was found | seconds |",
        "| --- | --- | --- | ---: |",
    ]
    parts += [
        f"| {step.name} | {mark_of(step.word).sign} {step.word} | {escape(step.said)} | {step.seconds:.1f} |"
        for step in job.steps
    ]
    commands = [command for step in job.steps if step.word != "pass" for command in step.commands]
    if commands:
        parts += ["", "```sh", *dict.fromkeys(command.replace("```", "") for command in commands), "```"]
    return [*parts, "", "</details>"]


def _short(text: str) -> str:
    return text if len(text) <= _CELL else text[: _CELL - 2].rstrip() + " …"


def _budgets(job: GatedPatch) -> str:
    if not job.budgets:
        return ""
    return f"Declared: {escape(', '.join(f'{name} {value:g}' for name, value in job.budgets.items()))}. "
