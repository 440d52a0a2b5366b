"""``python -m tests.lookalike.table`` writes docs/look-alikes.md: the suite's cases, and what each tool made of them."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from tests.lookalike.cases import BENIGN, CASES, HARD, Case
from tests.lookalike.tools import git_am, git_apply, make_repository, ours
from tests.project import git

DOC = Path(__file__).parents[2] / "docs" / "look-alikes.md"
_HEAD = """\
# Places that look alike

A patch says "before the last `return 1;`", and upstream adds a second function that ends like that. Which tool puts the
line where? {count} cases, written for this repository (tests/lookalike/cases.py): {hard} hard ones, where a look-alike
tempts or nobody can know, and {benign} benign ones, where a drifted file has one place that anybody would find. Each is
a real repository; the patch goes through llamapatch's engine, through `git apply` and through `git am -3` with every
object at hand ({version}). **right**: the result is byte for byte the one that a careful person would make; stops: the
tool refuses, nothing is changed; **WRONG**: it reports success and the result is another. Written by
`python -m tests.lookalike.table`; a test compares it with what happens.

| | llamapatch | `git apply` | `git am -3` |
| --- | --- | --- | --- |
"""
_TAIL = """
llamapatch stops where it is in doubt and shows both places; `--accept ID` agrees, or the patch is settled by hand in a
worktree of its own. A {seeds}-fold random test of the same kind (functions and switch arms added, removed, renamed,
moved and edited at random, the right result known from the construction) runs in the ordinary tests with the same bar:
no wrong placement.

What the suite cannot show: text that says one thing and means another. A function that is deleted and replaced, in the
same place, by one of the same shape, with every caller's name changed and nothing else, is a rename to any reader.
"""
SEEDS = 400


def measure(folder: Path) -> list[tuple[Case, tuple[str, str, str], str]]:
    """Each case with the verdicts of ours, ``git apply`` and ``git am -3``, and our status."""
    rows = []
    for number, case in enumerate(CASES):
        repository = make_repository(folder / str(number), case)
        verdict, outcome = ours(repository, case)
        verdicts = (verdict, git_apply(repository, case), git_am(repository, case))
        rows.append((case, verdicts, outcome.status.value))
    return rows


def document(rows: list[tuple[Case, tuple[str, str, str], str]], version: str) -> str:
    """The page."""
    text = _HEAD.format(count=len(CASES), hard=len(HARD), benign=len(BENIGN), version=version)
    for kind in ("hard", "benign"):
        for word in ("right", "stops", "WRONG"):
            counts = [Counter(v[i] for c, v, _ in rows if c.kind == kind)[word] for i in range(3)]
            text += f"| {kind}, {word} | {' | '.join(str(n) for n in counts)} |\n"
    for kind in ("hard", "benign"):
        text += f"\n## {kind.capitalize()} cases\n\n| what upstream did | llamapatch | `git apply` | `git am -3` |\n"
        text += "| --- | --- | --- | --- |\n"
        for case, verdicts, status in rows:
            if case.kind == kind:
                cells = [f"**{v}**" if v == "WRONG" else v for v in verdicts]
                text += f"| {case.name} | {cells[0]} ({status}) | {cells[1]} | {cells[2]} |\n"
    return text + _TAIL.format(seeds=SEEDS)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        DOC.write_text(document(measure(Path(scratch)), git(Path(scratch), "--version")))
