"""What a person once decided for a conflict, committed beside the patch and used again when the same conflict returns.

``patches/<phase>/<id>/resolutions/<key>.json`` holds the three versions of the lines in conflict and what became of
them; the key is a hash of the three, so neither line numbers nor the rest of the file matter. A conflict that differs
in one character is another conflict. Every reuse is shown as such.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from llamapatch.errors import UsageProblem
from llamapatch.series.load import Series
from llamapatch.series.lock import sha256
from llamapatch.series.model import Resolution
from llamapatch.tree.align import align
from llamapatch.tree.diff import split_lines
from llamapatch.tree.merge import BEGIN, Conflict, Merge, Resolver

FOLDER = "resolutions"


class Resolutions:
    """The recorded resolutions of a series, read when first asked for."""

    def __init__(self, series: Series) -> None:
        self.series = series
        self.known: dict[str, dict[str, Resolution]] = {}

    def resolver(self, patch_id: str, path: str) -> Resolver | None:
        """What answers for the conflicts of one file of a patch, None when the patch has no resolutions."""
        if patch_id not in self.known:
            self.known[patch_id] = read_resolutions(self.series.get(patch_id).folder / FOLDER)
        known = self.known[patch_id]

        def resolve(conflict: Conflict) -> tuple[bytes, ...] | None:
            sides = _sides(conflict)
            found = known.get(_key(*sides)) if sides else None
            return tuple(line.encode() for line in found.resolved) if found else None

        return resolve if known else None


def read_resolutions(folder: Path) -> dict[str, Resolution]:
    """Key -> resolution; `UsageProblem` for a file that is none."""
    found: dict[str, Resolution] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            resolution = Resolution.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise UsageProblem(f"{path} is no recorded resolution.", "Mend or remove it.") from error
        found[_key(resolution.before, resolution.upstream, resolution.patch)] = resolution
    return found


def learn(path: str, merged: Merge, resolved: bytes) -> dict[str, bytes]:
    """The files to record (name -> bytes) after a person made `resolved` of a merge with conflicts.

    Empty when more than the lines in conflict was edited, or when a line is not UTF-8: then the decision is not one
    that could be made again by looking at those lines alone.
    """
    marked, final = split_lines(merged.data), split_lines(resolved)
    way = align(marked, final).new
    files: dict[str, bytes] = {}
    rebuilt: list[bytes] = []
    at = at_final = 0
    for conflict, (start, stop) in zip(merged.conflicts, marker_blocks(marked, merged.conflicts), strict=True):
        rebuilt += marked[at:start]
        begin = way[start - 1] + 1 if start else 0
        end = way[stop] if stop < len(marked) else len(final)
        sides = _sides(conflict)
        if (start and not begin) or end < begin or begin < at_final or sides is None:
            return {}
        lines = final[begin:end]
        rebuilt += lines
        at, at_final = stop, end
        try:
            resolution = Resolution(
                schema=1,
                path=path,
                function=conflict.function,
                before=sides[0],
                upstream=sides[1],
                patch=sides[2],
                resolved=[line.decode() for line in lines],
            )
        except UnicodeDecodeError:
            return {}
        text = json.dumps(resolution.model_dump(by_alias=True), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        files[f"{_key(*sides)[:16]}.json"] = text.encode()
    return files if rebuilt + marked[at:] == final else {}


def marker_blocks(marked: Sequence[bytes], conflicts: Sequence[Conflict]) -> list[tuple[int, int]]:
    """Where the blocks of markers lie: ``[start, stop)`` for each conflict, in order."""
    blocks: list[tuple[int, int]] = []
    at = 0
    for conflict in conflicts:
        size = len(conflict.now) + len(conflict.before) + len(conflict.patch) + 4
        while not (
            marked[at] == BEGIN + b"\n"
            and list(marked[at + 1 : at + 1 + len(conflict.now)]) == [*(_ended(line) for line in conflict.now)]
        ):
            at += 1
        blocks.append((at, at + size))
        at += size
    return blocks


def _ended(line: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + b"\n"


def _sides(conflict: Conflict) -> tuple[list[str], list[str], list[str]] | None:
    try:
        before, upstream, patch = (
            [line.decode() for line in side] for side in (conflict.before, conflict.now, conflict.patch)
        )
    except UnicodeDecodeError:
        return None
    return before, upstream, patch


def _key(before: Sequence[str], upstream: Sequence[str], patch: Sequence[str]) -> str:
    return sha256(json.dumps([list(before), list(upstream), list(patch)]).encode())
