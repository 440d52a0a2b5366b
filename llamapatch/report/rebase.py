"""What a rebase, or a dry one on several upstreams, made of each patch: terminal table, Markdown, data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from llamapatch.series.load import Series
from llamapatch.tree.drift import Drift
from llamapatch.tree.merge import Conflict, Fate, Place
from llamapatch.tree.plan import show_conflict
from llamapatch.tree.rebase import LEAVES, Attempt
from llamapatch.tree.thread import FileOutcome, PatchOutcome, Status

COLUMNS = ("patch", "status", "files", "hunks", "what happened")
_STYLE = {
    Status.EXACT: "green",
    Status.MERGED: "green",
    Status.RENAMED: "yellow",
    Status.ALREADY: "cyan",
    Status.EMPTY: "cyan",
    Status.RELOCATED: "bold yellow",
    Status.CONFLICT: "bold red",
    Status.MISSING: "bold red",
    Status.BLOCKED: "red",
}


def rows(attempt: Attempt) -> list[tuple[str, ...]]:
    """One row of text for each patch, also for those that were not tried because an earlier one stopped."""
    tried = [(o.id, said(o), _files(o), str(attempt.hunks[o.id]), what(attempt, o)) for o in attempt.outcomes]
    rest = [change.id for change in attempt.changes[len(tried) :]]
    return [*tried, *((i, "not tried", "-", str(attempt.hunks[i]), "add --keep-going to try it") for i in rest)]


def said(outcome: PatchOutcome) -> str:
    """The status and what a person made of it."""
    word = (
        ", skipped" if outcome.skipped else ", decided" if outcome.decided else ", accepted" if outcome.accepted else ""
    )
    return f"{outcome.status}{word}"


def what(attempt: Attempt, outcome: PatchOutcome) -> str:
    """One line: why, what was reused, what follows."""
    parts = [outcome.why] if outcome.why else []
    if outcome.reused:
        parts.append(f"{outcome.reused} resolution{'s' * (outcome.reused > 1)} reused")
    if outcome.id in attempt.gone:
        parts.append("leaves the series" if not attempt.needs_word(outcome) else "would leave the series")
    moved = [p for f in outcome.files if f.merge for p in f.merge.places if p.line_before != p.line_now]
    if not parts and moved:
        parts.append(", ".join(f"line {p.line_before} -> {p.line_now}" for p in moved[:4]) + ", ..." * (len(moved) > 4))
    return "; ".join(parts)


def _files(outcome: PatchOutcome) -> str:
    changed = sum(f.status is not Status.EXACT for f in outcome.files)
    return f"{len(outcome.files)} ({changed} changed)" if changed else str(len(outcome.files) or "-")


def print_attempt(attempt: Attempt, console: Console) -> None:
    """The table, and below it every place that needs a look."""
    target = attempt.target
    console.print(f"onto llama.cpp {target.version}, tree {target.tree}{_behind(attempt)}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    styles = {o.id: _STYLE[o.status] for o in attempt.outcomes}
    for row in rows(attempt):
        cells = [cell.replace("[", "\\[") for cell in row]
        cells[1] = f"[{styles[row[0]]}]{cells[1]}[/]" if row[0] in styles else cells[1]
        table.add_row(*cells)
    console.print(table, soft_wrap=False)
    for line in details(attempt):
        console.print(line, markup=False)


def print_drift(series: Series, found: Sequence[Drift], console: Console) -> None:
    """A table for each upstream, the ids that collide below it."""
    for number, one in enumerate(found):
        if number:
            console.print()
        print_attempt(one.attempt, console)
        console.print(_distance(series, one), markup=False)
        for collision in one.collisions:
            console.print(f"id collision: {collision}", markup=False)


def drift_markdown(series: Series, found: Sequence[Drift]) -> str:
    """The summary of a nightly job."""
    lines = [f"## Drift of the series on llama.cpp {series.pin.version}", ""]
    for one in found:
        mark = "goes through" if one.clean else "**needs a person**"
        lines.append(f"* {one.attempt.target.version}: {mark}; {_distance(series, one)}")
    text = "\n".join(lines) + "\n"
    for one in found:
        text += "\n" + attempt_markdown(one.attempt)
        text += "".join(f"\n* id collision: {collision}\n" for collision in one.collisions)
    return text


def drift_data(series: Series, found: Sequence[Drift]) -> dict[str, Any]:
    """Everything, as data."""
    return {
        "schema": 1,
        "pin": {"version": series.pin.version, "tree": series.pin.tree},
        "clean": all(one.clean for one in found),
        "upstreams": [
            attempt_data(one.attempt)
            | {
                "clean": one.clean,
                "collisions": [
                    {"patch": c.patch or None, "name": c.name, "value": c.value, "other": c.other}
                    for c in one.collisions
                ],
            }
            for one in found
        ],
    }


def _distance(series: Series, one: Drift) -> str:
    target = one.attempt.target
    if target.tree == series.pin.tree:
        return "this is the pinned tree"
    if target.behind is None:
        return f"how far {series.pin.version} is behind is unknown (no history of the two)"
    return f"{series.pin.version} is {target.behind} commits and {target.releases} tags behind"


def _behind(attempt: Attempt) -> str:
    behind = attempt.target.behind
    return f", {behind} commits after the pin" if behind is not None else ""


def details(attempt: Attempt) -> Iterator[str]:
    """Conflicts with all three versions, relocations with both places; nothing for what went well."""
    for outcome in attempt.outcomes:
        for file in outcome.files:
            if file.merge is None or outcome.status in LEAVES or outcome.decided or outcome.skipped:
                continue
            for place in file.merge.places:
                if place.fate in (Fate.SUSPICIOUS, Fate.REUSED):
                    yield ""
                    yield from _place(outcome, file, place)
            for conflict in file.merge.conflicts:
                yield ""
                yield from _conflict(outcome, file, conflict)


def _place(outcome: PatchOutcome, file: FileOutcome, place: Place) -> Iterator[str]:
    verb = "a recorded resolution was reused" if place.fate is Fate.REUSED else f"relocated: {place.why}"
    yield f"{outcome.id}: {file.to}: {verb}"
    yield f"    before  line {place.line_before}, {_in(place.function_before)}"
    yield f"    now     line {place.line_now}, {_in(place.function_now)}"


def _conflict(outcome: PatchOutcome, file: FileOutcome, conflict: Conflict) -> Iterator[str]:
    yield f"{outcome.id}: {file.to}: conflict {_in(conflict.function)}"
    yield f"    {changed_upstream(conflict)}"
    yield from show_conflict(conflict, outcome.id, limit=40, now="upstream").split("\n")


def changed_upstream(conflict: Conflict) -> str:
    """Which lines upstream changed, before and now."""
    now, before = (conflict.line_now, len(conflict.now)), (conflict.line_before, len(conflict.before))
    return f"upstream made {_span(*now)} of {_span(*before)}"


def _span(start: int, count: int) -> str:
    if count == 0:
        return f"nothing at line {start}"
    return f"line {start}" if count == 1 else f"lines {start}-{start + count - 1}"


def _in(function: str) -> str:
    return f"in `{function}`" if function else "outside any function"


def attempt_markdown(attempt: Attempt) -> str:
    """The table for a job summary or a pull request, the details in a fold."""
    target = attempt.target
    lines = [f"### onto llama.cpp {target.version}", "", f"Tree `{target.tree}`{_behind(attempt)}.", ""]
    lines += _table(COLUMNS, rows(attempt))
    shown = list(details(attempt))
    if shown:
        lines += [
            "",
            "<details><summary>conflicts and relocations</summary>",
            "",
            "```",
            *shown[1:],
            "```",
            "",
            "</details>",
        ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in body]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]


def attempt_data(attempt: Attempt) -> dict[str, Any]:
    """Everything, as data."""
    target = attempt.target
    stop = attempt.stop
    return {
        "onto": {
            "spec": target.spec,
            "version": target.version,
            "tree": target.tree,
            "behind": {"commits": target.behind, "releases": target.releases},
        },
        "stopped": stop.id if stop else None,
        "leaves": list(attempt.gone),
        "patches": [_outcome_data(attempt, o) for o in attempt.outcomes],
        "not_tried": [change.id for change in attempt.changes[len(attempt.outcomes) :]],
    }


def _outcome_data(attempt: Attempt, outcome: PatchOutcome) -> dict[str, Any]:
    return {
        "id": outcome.id,
        "status": outcome.status.value,
        "why": outcome.why,
        "blockers": list(outcome.blockers),
        "accepted": outcome.accepted,
        "decided": outcome.decided,
        "skipped": outcome.skipped,
        "reused": outcome.reused,
        "hunks": attempt.hunks[outcome.id],
        "tree": outcome.after,
        "files": [
            {
                "path": file.path,
                "to": file.to,
                "status": file.status.value,
                "why": file.why,
                "changes": [_place_data(p) for p in (file.merge.places if file.merge else ())],
                "conflicts": [_conflict_data(c) for c in (file.merge.conflicts if file.merge else ())],
            }
            for file in outcome.files
        ],
    }


def _place_data(place: Place) -> dict[str, Any]:
    return {
        "fate": place.fate.value,
        "why": place.why,
        "before": {"line": place.line_before, "function": place.function_before},
        "now": {"line": place.line_now, "function": place.function_now},
    }


def _conflict_data(conflict: Conflict) -> dict[str, Any]:
    sides = {"before": conflict.before, "upstream": conflict.now, "patch": conflict.patch}
    return {
        "function": conflict.function,
        "line_before": conflict.line_before,
        "line_now": conflict.line_now,
        **{name: [line.decode("utf-8", "replace") for line in lines] for name, lines in sides.items()},
    }
