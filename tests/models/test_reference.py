from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llamapatch.config import packaged_home
from llamapatch.errors import EnvironmentProblem, InternalError, MismatchError
from llamapatch.git import Git
from llamapatch.models.corpus import read_evaluation_text
from llamapatch.models.evaluate import upstream_perplexity
from llamapatch.models.gguf_file import describe
from llamapatch.models.reference import (
    CARD_NAME,
    FOLDER,
    MAX_BYTES,
    MODEL_NAME,
    README_NAME,
    card,
    checked_model,
    reference_model,
    render_card,
)
from llamapatch.models.shape import Shape
from llamapatch.upstream.fetch import Upstream
from tests.models.conftest import IN_CI


def test_the_card_is_about_the_file() -> None:
    facts, found = card(), describe(reference_model())
    assert (facts.sha256, facts.bytes, facts.n_params) == (found["sha256"], found["bytes"], found["n_params"])
    assert facts.bytes <= MAX_BYTES == 16 * 1024 * 1024
    assert found["architecture"] == "llama"
    assert found["file_type"] == "F16"
    assert found["shape"] == {"n_ctx": 2048, "n_embd": 256, "n_layer": 6, "n_head": 4, "n_head_kv": 2, "n_ff": 768}
    assert facts.shape == Shape().__dict__
    assert facts.n_params == 5_770_496


def test_the_bars_hold() -> None:
    facts = card()
    assert facts.training.step == facts.training.steps, "an interim state must not be released"
    scores = {s.n_ctx: s for s in facts.evaluation.scores}
    assert list(scores) == [128, 512, 1024, 2048]
    assert [s.windows for s in scores.values()] == [facts.evaluation.tokens // c for c in scores]
    assert scores[1024].upstream <= 8.0
    assert scores[2048].upstream < 0.9 * scores[128].upstream
    assert all(abs(s.upstream / s.torch - 1) < 0.01 for s in scores.values())
    assert facts.sample.onset > 20, "greedy text loops at once"
    assert facts.evaluation.upstream_tree == "fd570ef54b10ec5fecb739e7e04c8ce44a6f415a"
    assert facts.loss[-1].step == facts.training.step


def test_the_readme_is_rendered_from_the_facts() -> None:
    assert (FOLDER / README_NAME).read_text(encoding="utf-8") == render_card(card(), packaged_home() / "templates")


def test_an_interim_state_says_so() -> None:
    facts = card()
    interim = facts.model_copy(update={"training": facts.training.model_copy(update={"step": 7})})
    text = render_card(interim, packaged_home() / "templates")
    assert "interim state" in text
    assert "interim state" not in render_card(facts, packaged_home() / "templates")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in (MODEL_NAME, CARD_NAME):
        shutil.copy(FOLDER / name, tmp_path / name)
    return tmp_path


def test_a_changed_byte_is_noticed(copy: Path) -> None:
    assert checked_model(copy) == copy / MODEL_NAME
    with (copy / MODEL_NAME).open("r+b") as stream:
        stream.seek(5_000_000)
        byte = stream.read(1)
        stream.seek(5_000_000)
        stream.write(bytes([byte[0] ^ 1]))
    with pytest.raises(MismatchError, match=card().sha256):
        checked_model(copy)


def test_missing_pieces(copy: Path) -> None:
    (copy / MODEL_NAME).unlink()
    with pytest.raises(EnvironmentProblem, match="missing"):
        checked_model(copy)
    (copy / CARD_NAME).write_text("{}")
    with pytest.raises(InternalError, match="no model card"):
        card(copy)
    (copy / CARD_NAME).unlink()
    with pytest.raises(EnvironmentProblem, match="missing"):
        card(copy)


def test_loop_onset() -> None:
    if not IN_CI:
        pytest.importorskip("torch")
    from llamapatch.models.release import loop_onset

    assert loop_onset(list(range(100))) is None
    assert loop_onset([1, 2, 3, 4, 4, 4, 4]) == 3
    assert loop_onset([9, 9, 9]) == 0
    assert loop_onset([5, 6, 1, 2, 1, 2, 1, 2, 1]) == 2
    assert loop_onset([1, 2, 1, 2, 1, 2, 7]) is None, "it stopped looping"
    assert loop_onset([7, 1, 2, 1, 2]) is None, "twice is no loop"


@pytest.mark.upstream
@pytest.mark.slow
def test_upstream_measures_what_the_card_says(tmp_path: Path, upstream: Upstream, bin_folder: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(read_evaluation_text(Git(upstream.git_dir), upstream.tree).encode())
    (score,) = upstream_perplexity(bin_folder, reference_model(), text, (1024,))
    expected = next(s for s in card().evaluation.scores if s.n_ctx == 1024)
    assert score.windows == expected.windows
    # Other processors sum in another order: far less than this.
    assert score.ppl == pytest.approx(expected.upstream, rel=0.002)


@pytest.mark.upstream
@pytest.mark.slow
def test_torch_agrees_with_upstream(tmp_path: Path, upstream: Upstream, bin_folder: Path) -> None:
    if not IN_CI:
        pytest.importorskip("torch")
    from llamapatch.models.runs import judge

    text = read_evaluation_text(Git(upstream.git_dir), upstream.tree)
    judged = judge(reference_model(), text, (128, 2048), max_windows=4, bin_folder=bin_folder)
    for ours, theirs in zip(judged.torch, judged.upstream, strict=True):
        assert (ours.n_ctx, ours.windows) == (theirs.n_ctx, theirs.windows)
        assert theirs.ppl == pytest.approx(ours.ppl, rel=0.01)
