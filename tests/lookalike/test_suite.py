"""No change in the wrong place; nine benign cases of ten carried without help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llamapatch.tree.merge import merge
from tests.lookalike.cases import BENIGN, CASES, HARD, Case
from tests.lookalike.random_files import draw
from tests.lookalike.table import DOC, SEEDS, document, measure
from tests.lookalike.tools import REFUSED, RIGHT, WRONG, make_repository, ours
from tests.project import git

# Every line of the block is another line; `git am -3` and `git apply` stop as well.
STOPS = {"the block indented deeper"}


@pytest.mark.parametrize("case", HARD, ids=lambda c: c.name)
def test_hard(case: Case, tmp_path: Path) -> None:
    verdict, outcome = ours(make_repository(tmp_path / "r", case), case)
    assert verdict in ((RIGHT, REFUSED) if case.want is not None else (REFUSED,)), outcome


@pytest.mark.parametrize("case", BENIGN, ids=lambda c: c.name)
def test_benign(case: Case, tmp_path: Path) -> None:
    verdict, outcome = ours(make_repository(tmp_path / "r", case), case)
    assert verdict == (REFUSED if case.name in STOPS else RIGHT), outcome


def test_the_bars_and_the_page(tmp_path: Path) -> None:
    """The page in docs/ says what happens, and what git does where it is the same git."""
    assert len(HARD) >= 12 and len(BENIGN) >= 12 and len({c.name for c in CASES}) == len(CASES)
    rows = measure(tmp_path)
    assert [c.name for c, verdicts, _ in rows if verdicts[0] == WRONG] == []
    assert sum(v[0] == RIGHT for c, v, _ in rows if c.kind == "benign") >= 0.9 * len(BENIGN)
    # What makes the cases hard: plain tools fall for some of them.
    assert sum(v[1] == WRONG for c, v, _ in rows if c.kind == "hard") >= 5
    assert sum(v[2] == WRONG for c, v, _ in rows if c.kind == "hard") >= 5
    version = git(tmp_path, "--version")
    written = DOC.read_text()
    if f"({version})" in written:
        assert written == document(rows, version)
    else:
        for case, verdicts, status in rows:
            assert re.search(rf"^\| {re.escape(case.name)} \| {verdicts[0]} \({status}\) \|", written, re.MULTILINE)


@pytest.mark.parametrize("as_arms", [False, True], ids=["functions", "switch arms"])
def test_random(as_arms: bool) -> None:
    wrong, right, possible = [], 0, 0
    for seed in range(SEEDS):
        pre, post, now, want = draw(seed, as_arms=as_arms)
        found = merge(pre, post, now)
        if found.passes and found.data != want:
            wrong.append(seed)
        right += found.passes
        possible += want is not None
    assert wrong == []
    assert right >= 0.6 * possible  # refusing everything is no answer
