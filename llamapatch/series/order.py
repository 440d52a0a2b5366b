"""Edit the order of the series: pure functions from the text of ``series.toml`` to its new text.

tomlkit carries everything that is not touched; only the one array that changes is written anew, with one id per line.
A comment behind an id belongs to it and goes where it goes; a comment on a line of its own stays where it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import tomlkit
from pydantic import TypeAdapter, ValidationError
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT

from llamapatch.errors import UsageProblem
from llamapatch.series.model import PatchId, SeriesFile

# What an array of ids is made of: a string, a comment, the end of a line; commas and spaces carry nothing.
_TOKEN = re.compile(r"""(?P<id>"[^"\n]*"|'[^'\n]*')|(?P<comment>\#[^\n]*)|(?P<end>\n)""")
_INDENT = "    "


@dataclass
class _Row:
    """One line of an array: an id with its comment, a comment alone, or nothing."""

    id: str = ""
    comment: str = ""

    def format(self, indent: str) -> str:
        words = [f'"{self.id}",'] if self.id else []
        return (indent + " ".join([*words, *([self.comment] if self.comment else [])])).rstrip()


def insert_id(
    text: str,
    patch_id: str,
    *,
    phase: str = "",
    before: str = "",
    after: str = "",
    title: str = "",
    ahead_of: str = "",
) -> str:
    """`text` with `patch_id` added: at the end of `phase`, or next to another id (whose phase is then meant).

    A phase that does not exist is made when `title` names it: at the end, or before the phase `ahead_of`. Raises
    `UsageProblem` for an id that is malformed or there already, an unknown phase or neighbour, and a neighbour that is
    not in `phase`.
    """
    document = _parse(text)
    try:
        TypeAdapter(PatchId).validate_python(patch_id)
    except ValidationError:
        raise UsageProblem(
            f"`{patch_id}` is no patch id.",
            "Use lower-case letters and digits, in words joined by single dashes.",
        ) from None
    if patch_id in _phases(document):
        raise UsageProblem(f"`{patch_id}` is in the series already.", "Choose another id; see `llamapatch list`.")
    _insert(document, _Row(patch_id), phase, before, after, title, ahead_of)
    return _dump(document, text)


def remove_id(text: str, patch_id: str) -> str:
    """`text` without `patch_id`; its phase stays, even when it is empty. Raises `UsageProblem` for an unknown id."""
    document = _parse(text)
    _take(document, patch_id)
    return _dump(document, text)


def move_id(text: str, patch_id: str, *, phase: str = "", before: str = "", after: str = "", title: str = "") -> str:
    """`text` with `patch_id` in another place, given as for `insert_id`; errors likewise."""
    document = _parse(text)
    if patch_id in (before, after):
        raise UsageProblem(f"`{patch_id}` cannot be moved next to itself.", "Name another patch.")
    row = _take(document, patch_id)
    _insert(document, row, phase, before, after, title)
    return _dump(document, text)


def phase_of(text: str, patch_id: str) -> str:
    """The phase that lists `patch_id`, empty when none does."""
    return _phases(_parse(text)).get(patch_id, "")


def _parse(text: str) -> tomlkit.TOMLDocument:
    try:
        document = tomlkit.parse(text)
        SeriesFile.model_validate(document.unwrap())
    except (TOMLKitError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageProblem(
            f"series.toml cannot be edited: {reason}.", "Mend it first; `llamapatch list` says where."
        ) from error
    if not isinstance(document["phase"], AoT):
        raise UsageProblem("series.toml cannot be edited: its phases are inline.", "Write each as a `[[phase]]` table.")
    return document


def _dump(document: tomlkit.TOMLDocument, old: str) -> str:
    text = tomlkit.dumps(document)
    # What is new has line feeds; a file that has only the other kind of line end keeps to it.
    only_crlf = "\r\n" in old and old.count("\r\n") == old.count("\n")
    return text.replace("\r\n", "\n").replace("\n", "\r\n") if only_crlf else text


def _phases(document: tomlkit.TOMLDocument) -> dict[str, str]:
    """Patch id -> id of its phase."""
    return {str(i): str(phase["id"]) for phase in _tables(document) for i in phase.get("patches", [])}


def _tables(document: tomlkit.TOMLDocument) -> list[Any]:
    return list(document["phase"])


def _insert(
    document: tomlkit.TOMLDocument, row: _Row, phase: str, before: str, after: str, title: str, ahead_of: str = ""
) -> None:
    neighbour = before or after
    if before and after:
        raise UsageProblem("both `before` and `after` are given.", "Keep one of them.")
    if neighbour:
        home = _phases(document).get(neighbour)
        if home is None:
            raise UsageProblem(f"there is no patch `{neighbour}`.", "See `llamapatch list`.")
        if phase and phase != home:
            raise UsageProblem(f"`{neighbour}` is in {home}, not in {phase}.", "Name one or the other.")
        phase = home
    table = _table(document, phase, title, ahead_of)
    rows, indent = _read(table)
    if neighbour:
        at = next(i for i, r in enumerate(rows) if r.id == neighbour) + (1 if after else 0)
    else:
        at = len(rows)
        while at and rows[at - 1] == _Row():
            at -= 1
    rows.insert(at, row)
    _write(table, rows, indent)


def _table(document: tomlkit.TOMLDocument, phase: str, title: str, ahead_of: str) -> Any:
    known = {str(table["id"]): table for table in _tables(document)}
    if phase in known:
        return known[phase]
    if not title or not phase:
        raise UsageProblem(
            f"there is no phase `{phase}`." if phase else "no phase is named.",
            f"The series has {', '.join(known)}; give a title for the new phase to add one.",
        )
    added = tomlkit.table()
    added["id"], added["title"], added["patches"] = phase, title, tomlkit.array()
    phases: Any = document["phase"]
    if ahead_of in known:
        at = list(known).index(ahead_of)
        added.add(tomlkit.nl())
        phases.insert(at, added)
        return phases[at]
    last = phases[-1]
    # A blank line before the new heading, as between the others.
    if not last.as_string().endswith(("\n\n", "\r\n\r\n")):
        last.add(tomlkit.nl())
    phases.append(added)
    return phases[-1]


def _take(document: tomlkit.TOMLDocument, patch_id: str) -> _Row:
    """Remove an id and return its row."""
    for table in _tables(document):
        if patch_id in table.get("patches", []):
            rows, indent = _read(table)
            at = next(i for i, row in enumerate(rows) if row.id == patch_id)
            row = rows.pop(at)
            _write(table, rows, indent)
            return row
    raise UsageProblem(f"there is no patch `{patch_id}`.", "See `llamapatch list`.")


def _read(table: Any) -> tuple[list[_Row], str]:
    """The rows of a phase's array, and how far they are indented."""
    raw = table["patches"].as_string().replace("\r\n", "\n") if "patches" in table else "[]"
    rows: list[_Row] = []
    fresh = True  # whether the next token begins a line
    for token in _TOKEN.finditer(raw[1:-1]):
        if token["id"]:
            rows.append(_Row(token["id"][1:-1]))
            fresh = False
        elif token["comment"]:
            if fresh or not rows:
                rows.append(_Row(comment=token["comment"].rstrip()))
            else:
                rows[-1].comment = token["comment"].rstrip()
            fresh = False
        else:
            if fresh and rows:
                rows.append(_Row())
            fresh = True
    first = re.search(r"\n([ \t]+)[\"'#]", raw)
    while rows and rows[-1] == _Row():
        rows.pop()
    return rows, first[1] if first else _INDENT


def _write(table: Any, rows: list[_Row], indent: str) -> None:
    lines = "".join(row.format(indent) + "\n" for row in rows)
    table["patches"] = tomlkit.parse(f"patches = [\n{lines}]\n")["patches"]
