"""``python -m tests.rebase.real`` writes docs/rebases.md: the series rebased onto other real trees, and back."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llamapatch.config import Settings, load_settings, packaged_home
from llamapatch.series.load import Series, load_series
from llamapatch.series.scaffold import start_project
from llamapatch.tree.rebase import Attempt, rebase
from llamapatch.tree.thread import PatchOutcome, Status
from llamapatch.upstream.onto import Target, find_target

DOC = Path(__file__).parents[2] / "docs" / "rebases.md"
# (what --onto says, what it is)
TARGETS = (
    ("npm:node-llama-cpp@3.20.0", "release b10361, older than the pin"),
    ("npm:node-llama-cpp@3.21.1", "release v0.4.0, older than the pin"),
    ("pypi:llama-cpp-python==0.3.36", "newer than the pin, as vendored there"),
)
HOME = "npm:node-llama-cpp@3.22.1"
_HEAD = """\
# The series on other real trees

Every patch of the series in this repository, rebased from its pin (llama.cpp {version}) onto three other trees that
packages carry, and from there back to the pin. Written by `python -m tests.rebase.real`; the test
`tests/rebase/test_real.py` (marked `upstream` and `slow`) does all of it again and compares: statuses and places, that
git's own `git merge-file` makes the same bytes of every merged file, that the rebased lock verifies, and that the way
back ends in the very bytes it began with. Nothing was compiled for this page.

`before -> there` are line numbers of the first changed line in upstream's file. A patch is *exact* where every file it
touches is upstream's own, unchanged, and *merged* where one of them has changed elsewhere.

| onto | tree | exact | merged | stopped | back at the pin |
| --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Trip:
    """One way there and back."""

    spec: str
    what: str
    target: Target
    there: Attempt
    series_there: Series
    back: Attempt
    same_bytes: bool


def start(folder: Path) -> Settings:
    """A project with the series of this checkout."""
    packaged = load_settings(folder)
    assert packaged.home == packaged_home()
    start_project(packaged, load_series(packaged), folder)
    return load_settings(folder)


def trip(folder: Path, spec: str, what: str) -> Trip:
    """Rebase onto `spec` and back."""
    folder.mkdir(parents=True)
    settings = start(folder)
    before = read(settings)
    version = load_series(settings).pin.version
    target = find_target(settings, load_series(settings).pin, spec)
    there = rebase(settings, load_series(settings), target)
    assert there.done, there.attempt.stop
    moved = load_series(settings)
    home = find_target(settings, moved.pin, HOME, version=version)
    back = rebase(settings, moved, home)
    assert back.done, back.attempt.stop
    return Trip(spec, what, target, there.attempt, moved, back.attempt, read(settings) == before)


def read(settings: Settings) -> dict[str, bytes]:
    """Everything that a rebase may write but the list of sources in series.toml, which names the way it came."""
    return {
        path.relative_to(settings.home).as_posix(): path.read_bytes()
        for path in sorted(settings.patches.rglob("*"))
        if path.is_file() and path.name != "series.toml"
    }


def document(trips: Sequence[Trip], version: str) -> str:
    """The page."""
    text = _HEAD.format(version=version)
    for one in trips:
        counts = [sum(o.status is s for o in one.there.outcomes) for s in (Status.EXACT, Status.MERGED)]
        stopped = sum(not o.carried for o in one.there.outcomes)
        back = "the same bytes" if one.same_bytes else "OTHER BYTES"
        text += f"| `{one.spec}` ({one.what}) | `{one.target.tree[:12]}` | {counts[0]} | {counts[1]} | {stopped} | {back} |\n"
    for one in trips:
        text += f"\n## {one.spec}\n\n| patch | there | back | changes: before -> there |\n| --- | --- | --- | --- |\n"
        for there, back in zip(one.there.outcomes, one.back.outcomes, strict=True):
            text += (
                f"| {there.id} | {there.status} | {back.status} | {'<br>'.join(places(there)) or 'as they were'} |\n"
            )
    return text


def places(outcome: PatchOutcome) -> list[str]:
    """Where the changes of the files that upstream changed went."""
    return [
        f"`{file.to}` {', '.join(f'{p.line_before} -> {p.line_now}' for p in file.merge.places)}"
        for file in outcome.files
        if file.merge
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        trips = [trip(Path(scratch) / str(n), *target) for n, target in enumerate(TARGETS)]
        DOC.write_text(document(trips, load_series(load_settings(Path(scratch))).pin.version))
