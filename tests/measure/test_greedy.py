"""Greedy continuations: against tools that behave, those that fail with status 0, and upstream's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llamapatch.errors import NotMeasured, UsageProblem
from llamapatch.measure.arms import AGAIN, BASE, OFF, ON, Arm, make_arms
from llamapatch.measure.greedy import Agreement, Writing, common_start, cut_prompts, measure_greedy, read_session
from llamapatch.measure.inputs import TextFile, given_text
from llamapatch.measure.runs import RunFolder
from llamapatch.models.reference import reference_model
from tests.measure.conftest import MakeBuild

# Read at import: each test runs in an environment without LLAMAPATCH_*.
TOOLS = os.environ.get("LLAMAPATCH_BIN", "")
LOAD = Writing(12, 1)


def test_prompts_are_whole_lines_spread_over_the_text(folder: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("".join(f"line {i:04d} of a text é\n" for i in range(2000)), encoding="utf-8")
    prompts = cut_prompts(given_text(path), 5, folder, size=100)
    content = [p.read_text(encoding="utf-8") for p in prompts]
    assert [p.name for p in prompts] == [f"greedy-00{i}.txt" for i in range(5)]
    assert [text[:9] for text in content] == ["line 0000", "line 0498", "line 0997", "line 1496", "line 1995"]
    assert all(len(text) <= 100 and text == text.rstrip() for text in content)
    again = cut_prompts(given_text(path), 5, RunFolder.create(tmp_path / "other"), size=100)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in prompts]


def test_a_short_text_gives_fewer_prompts_and_none_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("a text of one line and no more", encoding="utf-8")
    (only,) = cut_prompts(given_text(path), 8, folder)
    assert only.read_text() == "a text of one line and no more"
    path.write_text("tiny")
    with pytest.raises(UsageProblem, match="too short to be continued"):
        cut_prompts(given_text(path), 8, folder)


def test_the_position_of_the_first_difference_counts(folder: RunFolder, model: Path, make_build: MakeBuild) -> None:
    base, patched = make_build("base"), make_build("patched", patched=True, handled=1, diverge_on=7)
    arms = make_arms(base, "v0", patched, "v0+lp", {"LLAMA_LP_TOY": "on"})
    prompts = []
    for i in range(3):
        prompts.append(folder.path / f"p{i}.txt")
        prompts[-1].write_text(f"prompt number {i}")
    steps: list[str] = []
    found = measure_greedy(folder, arms, model, prompts, LOAD, step=steps.append)
    assert found == [
        Agreement(AGAIN, 12, (12, 12, 12)),
        Agreement(OFF, 12, (12, 12, 12)),
        Agreement(ON, 12, (7, 7, 7)),
    ]
    assert [(a.equal, a.mean_agreed) for a in found] == [(1, 12), (1, 12), (0, 7)]
    assert Agreement(ON, 12, (12, 3, 6)).equal == pytest.approx(1 / 3)
    assert Agreement(ON, 12, (12, 3, 6)).mean_agreed == 7
    assert steps == [f"greedy text, prompt {i} of 3" for i in (1, 2, 3)]
    lines = [json.loads(line) for line in (folder.path / "samples.jsonl").read_text().splitlines()]
    assert [(line["arm"], line["prompt"], line["agreed"]) for line in lines[:4]] == [
        (BASE, "p0.txt", 12), (AGAIN, "p0.txt", 12), (OFF, "p0.txt", 12), (ON, "p0.txt", 7),
    ]  # fmt: skip
    assert len(lines) == 12 and all(len(line["tokens"]) == 12 for line in lines)
    assert lines[0]["tokens"][:7] == lines[3]["tokens"][:7] and lines[0]["tokens"][7:] != lines[3]["tokens"][7:]
    assert not list(folder.path.glob("session-*"))
    # One process tells how long the prompt is, then one for each arm.
    assert [run.arm for run in folder.runs[:5]] == [BASE, BASE, AGAIN, OFF, ON]


@pytest.mark.parametrize(
    ("fault", "said", "runs"),
    [
        ("no file", "wrote no whole session file although it ended with status 0", 3),
        ("truncated", "wrote no whole session file", 3),
        ("crash", "ended with status 3", 1),
        ("stale session", "its session holds 8 tokens", 4),
    ],
)
def test_a_tool_that_misbehaves_has_measured_nothing(
    folder: RunFolder, model: Path, make_build: MakeBuild, fault: str, said: str, runs: int
) -> None:
    arms = [Arm(BASE, make_build("b", fault={"llama-completion": fault}), "v0")]
    prompt = folder.path / "p.txt"
    prompt.write_text("a prompt")
    with pytest.raises(NotMeasured, match=said):
        measure_greedy(folder, arms, model, [prompt], LOAD)
    assert len(folder.runs) == runs


def test_a_session_that_was_not_saved_again_is_measured_again(
    folder: RunFolder, model: Path, make_build: MakeBuild
) -> None:
    prompt = folder.path / "p.txt"
    prompt.write_text("a prompt")
    lossy = make_build("b", fault={"llama-completion": "stale session once"})
    arms = [Arm(BASE, lossy, "v0"), Arm(AGAIN, make_build("c"), "v0")]
    assert measure_greedy(folder, arms, model, [prompt], LOAD) == [Agreement(AGAIN, 12, (12,))]
    assert [run.arm for run in folder.runs] == [BASE, BASE, BASE, AGAIN]


def test_an_arm_that_reads_other_tokens_is_not_compared(folder: RunFolder, model: Path, make_build: MakeBuild) -> None:
    prompt = folder.path / "p.txt"
    prompt.write_text("a prompt")
    odd = make_build("c", fault={"llama-completion": "other tokens"})
    arms = [Arm(BASE, make_build("b"), "v0"), Arm(OFF, odd, "v0", patched=True)]
    with pytest.raises(NotMeasured, match=r"the off arm read p\.txt as other tokens than base"):
        measure_greedy(folder, arms, model, [prompt], LOAD)


def test_an_arm_without_the_tool_is_named(
    folder: RunFolder, model: Path, make_build: MakeBuild, tmp_path: Path
) -> None:
    arms = [Arm(BASE, make_build("b"), "v0"), Arm(OFF, tmp_path, "v0", patched=True)]
    with pytest.raises(NotMeasured, match="llama-completion is not among the tools of the arm off"):
        measure_greedy(folder, arms, model, [], LOAD)


def test_common_start_and_session_files(tmp_path: Path) -> None:
    assert [common_start([1, 2, 3], other) for other in ([1, 2, 3], [1, 2, 4], [0, 2, 3], [1, 2], [])] == [
        3,
        2,
        0,
        2,
        0,
    ]
    assert read_session(tmp_path / "none") is None
    (tmp_path / "odd").write_bytes(b"GGUF" + bytes(40))
    assert read_session(tmp_path / "odd") is None


@pytest.mark.slow
@pytest.mark.skipif(not TOOLS and os.environ.get("CI") != "true", reason="LLAMAPATCH_BIN names no build")
def test_upstream_agrees_with_itself_and_not_with_another_model(folder: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    sources = sorted(Path(__file__).parents[2].glob("llamapatch/*/*.py"))
    path.write_text("\n".join(source.read_text(encoding="utf-8") for source in sources), encoding="utf-8")
    text: TextFile = given_text(path)
    arms = make_arms(Path(TOOLS), "v0", Path(TOOLS), "v0", {})
    prompts = cut_prompts(text, 4, folder)
    found = measure_greedy(folder, arms, reference_model(), prompts, Writing(24, 1))
    assert found == [Agreement(name, 24, (24,) * 4) for name in (AGAIN, OFF)]
    recorded = [json.loads(line) for line in (folder.path / "samples.jsonl").read_text().splitlines()]
    texts = {tuple(line["tokens"]) for line in recorded}
    assert len(texts) == 4 and all(0 <= token < 4096 for tokens in texts for token in tokens)
