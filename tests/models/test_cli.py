"""``llamapatch model`` from outside: exit codes, what is printed, what is written."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llamapatch.cli.main import main
from llamapatch.errors import NotMeasured, UsageProblem
from llamapatch.models import extra
from llamapatch.models.evaluate import read_text, upstream_perplexity
from llamapatch.models.reference import card, reference_model
from tests.models.conftest import IN_CI


def read_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    captured = capsys.readouterr()
    found: dict[str, Any] = json.loads(captured.out)
    return found


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "info", "--json"]) == 0
    facts = read_json(capsys)
    assert facts["sha256"] == card().sha256
    assert facts["tensor_types"] == {"F16": 43, "F32": 13}
    assert main(["model", "info", str(reference_model())]) == 0
    assert card().sha256 in capsys.readouterr().out


def test_info_of_what_is_no_gguf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no model at all, and long enough to look at\n")
    for path, says in [(text, "no usable GGUF"), (tmp_path / "none", "there is no file"), (tmp_path, "is a folder")]:
        assert main(["model", "info", str(path)]) == 2
        captured = capsys.readouterr()
        assert says in captured.err
        assert "Traceback" not in captured.err
        assert captured.out == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["model", "train", "--run", "run"],
        ["model", "export", "run", "out.gguf"],
        ["model", "eval"],
        ["model", "release", "run", "--bin", "bin"],
    ],
)
def test_without_torch(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "torch" else find_spec("json"))
    assert main(argv) == 1
    said = capsys.readouterr().err
    assert "this needs torch, which is not installed" in said
    assert "pip install 'llamapatch[train]'" in said
    assert sorted(tmp_path.iterdir()) == before


def test_dry_runs_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["model", "synth", "--shape", "llama-1b", "--type", "q4_K", "x.gguf", "--dry-run", "--json"]) == 0
    assert read_json(capsys)["bytes"] == pytest.approx(1_235_814_400 * 4.5 / 8, rel=0.03)
    if IN_CI or find_spec("torch"):
        assert main(["model", "train", "--run", "run", "--tokens", "1000000", "--dry-run", "--json"]) == 0
        assert read_json(capsys)["steps"] == 1_000_000 // 12_288
    assert sorted(tmp_path.iterdir()) == before


def test_impossible_type_for_the_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "synth", "--shape", "vocab-128k", "--type", "q4_K", "x.gguf", "--dry-run"]) == 2
    assert "multiple of 256" in capsys.readouterr().err


@pytest.mark.upstream
def test_text_and_synth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, model = tmp_path / "text.txt", tmp_path / "m.gguf"
    assert main(["model", "text", str(text), "--dry-run"]) == 0
    assert not text.exists()
    capsys.readouterr()
    assert main(["model", "text", str(text), "--json"]) == 0
    facts = read_json(capsys)
    assert facts["sha256"] == card().evaluation.text_sha256
    assert facts["bytes"] == text.stat().st_size == card().evaluation.text_bytes
    assert main(["model", "synth", "--shape", "vocab-128k", "--type", "q4_0", str(model), "--json"]) == 0
    facts = read_json(capsys)
    assert facts["bytes"] == model.stat().st_size
    assert main(["model", "info", str(model), "--json"]) == 0
    facts = read_json(capsys)
    assert (facts["n_vocab"], facts["file_type"], facts["shape"]["n_embd"]) == (128256, "Q4_0", 64)


def test_texts_that_cannot_be_scored(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text(" \n")
    binary.write_bytes(b"ab\xff\xfe")
    for path, says in [(empty, "is empty"), (binary, "not UTF-8.*byte 2"), (tmp_path / "none", "no text file")]:
        with pytest.raises(UsageProblem, match=says):
            read_text(path)


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ("nothing of note", "measured nothing"),
        ("Final estimate: PPL = 5.0 +/- 0.1", "measured nothing"),
        ("calculating perplexity over 9 chunks, n_ctx=256\nFinal estimate: PPL = 5.0 +/- 0.1", "measured nothing"),
        ("calculating perplexity over 9 chunks, n_ctx=128\nFinal estimate: PPL = nan +/- nan", "perplexity of nan"),
    ],
)
def test_a_tool_that_ends_well_and_measured_nothing(tmp_path: Path, says: str, problem: str) -> None:
    """Upstream's tools return 0 in each of these cases."""
    tool = tmp_path / "llama-perplexity"
    tool.write_text(f"#!/bin/sh\ncat <<'E'\n{says}\nE\n")
    tool.chmod(0o755)
    with pytest.raises(NotMeasured, match=problem):
        upstream_perplexity(tmp_path, reference_model(), tmp_path / "text", (128,))
    tool.write_text(
        "#!/bin/sh\necho 'calculating perplexity over 9 chunks, n_ctx=128'\n"
        "echo 'Final estimate: PPL = 5.25 +/- 0.125'\n"
    )
    (score,) = upstream_perplexity(tmp_path, reference_model(), tmp_path / "text", (128,))
    assert (score.ppl, score.error, score.windows) == (5.25, 0.125, 9)


def test_a_folder_without_tools(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="has no llama-perplexity"):
        upstream_perplexity(tmp_path, reference_model(), tmp_path / "text", (128,))
