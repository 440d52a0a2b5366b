"""What became of the patches behind a change: table and data."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from llamapatch.errors import ConflictError
from llamapatch.tree.plan import show_conflict
from llamapatch.tree.restack import Restack


def print_restack(behind: Restack, console: Console) -> None:
    """One row for each patch that was carried along, and the conflicts in full; nothing when there was none."""
    if not behind.outcomes:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("carried along", "status", "what happened"):
        table.add_column(column, overflow="fold")
    for outcome in behind.outcomes:
        table.add_row(outcome.id, str(outcome.status), outcome.why.replace("[", "\\["))
    console.print(table, soft_wrap=False)
    for line in _conflicts(behind):
        console.print(line, markup=False)


def restack_data(behind: Restack) -> list[dict[str, object]]:
    """The same as data."""
    stops = {o.id for o in behind.stops}
    return [
        {"id": o.id, "status": str(o.status), "why": o.why, "stops": o.id in stops, "tree": o.after}
        for o in behind.outcomes
    ]


def raise_stops(behind: Restack, verb: str) -> None:
    """Raise `ConflictError` when a patch behind the change cannot be carried along."""
    if not behind.stops:
        return
    names = ", ".join(f"`{o.id}`" for o in behind.stops)
    accept = "".join(f" --accept {o.id}" for o in behind.stops if str(o.status) == "relocated")
    hint = f"; agree to a relocation with `{accept.strip()}`" if accept else ""
    raise ConflictError(f"{names} cannot be carried along.", f"Nothing was written by `{verb}`{hint}.")


def _conflicts(behind: Restack) -> Iterator[str]:
    for outcome in behind.stops:
        for file in outcome.files:
            for conflict in file.merge.conflicts if file.merge else ():
                yield f"\n{outcome.id}, {file.to}:{conflict.line_now}"
                yield show_conflict(conflict, outcome.id)
