"""``llamapatch log``."""

from __future__ import annotations

import click

from llamapatch.cli.common import emit_json, json_option, out, settings
from llamapatch.tree.history import Line, read_log


@click.command()
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many entries.")
@json_option
def command(limit: int, as_json: bool) -> None:
    """What was done to this project, newest first; `undo` and `redo` go along it."""
    lines = read_log(settings(), limit)
    if as_json:
        emit_json({"schema": 1, "entries": [_as_data(line) for line in lines]})
        return
    if not lines:
        out.print("nothing was done yet", markup=False)
    for line in lines:
        entry = line.entry
        out.print(f"{entry.number:>4}  {entry.time}  {line.state:<7} {entry.reason}: {_changed(line)}", markup=False)


def _changed(line: Line) -> str:
    files = list(line.entry.files)
    parts = []
    if files:
        shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        parts.append(shown)
    if line.before != line.after:
        parts.append(f"applied {', '.join(line.before) or 'nothing'} -> {', '.join(line.after) or 'nothing'}")
    return "; ".join(parts) or "the applied patches, made anew"


def _as_data(line: Line) -> dict[str, object]:
    entry = line.entry
    return {
        "id": entry.number,
        "time": entry.time,
        "verb": entry.verb,
        "reason": entry.reason,
        "state": line.state,
        "files": {
            name: {"before": s.before.oid if s.before else None, "after": s.after.oid if s.after else None}
            for name, s in entry.files.items()
        },
        "applied": {
            "before": {"commit": entry.before.applied, "ids": list(line.before)},
            "after": {"commit": entry.after.applied, "ids": list(line.after)},
        },
        "editing": entry.after.session.patch if entry.after.session else None,
        "covers": list(entry.covers),
    }
