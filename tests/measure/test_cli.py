"""`llamapatch compare` as a user runs it, on fake builds: exit codes, formats, bad input, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import llamapatch
from llamapatch.cli.main import main
from llamapatch.judge.result import Comparison
from tests.measure.conftest import MakeBuild, write_model

SERIES = """schema = 1
[upstream]
version = "v0.5.0"
url = "https://example.invalid/llama.cpp"
tree = "fd570ef54b10ec5fecb739e7e04c8ce44a6f415a"
[[upstream.source]]
kind = "git"
url = "https://example.invalid/llama.cpp"
ref = "v0.5.0"
[[phase]]
id = "phase0"
title = "Foundation"
patches = ["foundation"]
[[phase]]
id = "phase1"
title = "Toys"
patches = ["toy"]
"""
PATCH = """schema = 1
id = "{id}"
title = "a patch for tests"
phase = "{phase}"
authors = ["nobody <nobody@localhost>"]
date = 2026-01-01
{more}
[upstream]
status = "never"
reason = "a test"
[effect]
class = "{kind}"
{tail}
[[overlay]]
from = "{id}/{id}.h"
to = "ggml/include/lp-{id}.h"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a foundation and one switched patch; the current folder."""
    root = tmp_path / "project"
    for name, phase, more, kind, tail in (
        ("foundation", "phase0", "", "identical", ""),
        (
            "toy",
            "phase1",
            'requires = ["foundation"]',
            "lossy",
            '[switch]\nenv = "LLAMA_LP_TOY"\nvalues = ["off", "on"]',
        ),
    ):
        folder = root / "patches" / phase / name
        folder.mkdir(parents=True)
        (folder / "patch.toml").write_text(PATCH.format(id=name, phase=phase, more=more, kind=kind, tail=tail))
        (folder / "README.md").write_text(f"# {name}\n\nA patch for tests.\n")
        (root / "ggml_kernels" / name).mkdir(parents=True)
        (root / "ggml_kernels" / name / f"{name}.h").write_text("#pragma once\n")
    (root / "patches" / "series.toml").write_text(SERIES)
    (root / "llamapatch.toml").write_text("")
    write_model(root / "toy.gguf")
    (root / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 700)
    monkeypatch.chdir(root)
    for name in [n for n in os.environ if n.startswith("LLAMAPATCH_")]:
        monkeypatch.delenv(name)
    return root


def words(make_build: MakeBuild, *more: str, **patched: object) -> list[str]:
    base = make_build("base", noise=0.002)
    build = make_build(
        "patched", **({"patched": True, "noise": 0.002, "handled": 5, "speed_on": 2.0, "commit": "def"} | patched)
    )
    return [
        "compare", "toy", "--quick", "--model", "toy.gguf", "--text", "text.txt", "--threads", "1", "--seed", "3",
        *(() if "--blocks" in more else ("--blocks", "2")),
        "--bin-base", str(base), "--bin-patched", str(build), *more,
    ]  # fmt: skip


def test_json_markdown_and_raw_data(project: Path, make_build: MakeBuild, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(make_build, "--json", "--markdown", "out.md", "--keep", "raw")) == 0
    said = capsys.readouterr()
    result = Comparison.model_validate(json.loads(said.out))
    assert result.selected == ["foundation", "toy"] and result.pulled_in == ["foundation"]
    assert result.arms[3].switches == {"LLAMA_LP_TOY": "on"} and result.exit_code == 0
    assert {r.word for r in result.rounds[0].speed if r.arm == "on"} == {"no verdict"}
    assert result.rounds[0].model.type == "as given" and len(result.rounds[0].quality[0].model_dump()) > 5
    assert "## llamapatch compare: toy" in Path("out.md").read_text()
    kept = {path.name for path in Path("raw").iterdir()}
    assert kept >= {"samples.jsonl", "processes.jsonl", "machine.json", "request.json", "comparison.json", "out"}
    assert json.loads(Path("raw/comparison.json").read_text()) == result.data()


def test_terminal(project: Path, make_build: MakeBuild, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(make_build)) == 0
    said = capsys.readouterr().out
    assert "fewer than 7 blocks: no verdict" in said and "bit-identical to upstream" in said
    assert str(project / ".llamapatch" / "runs") in said


def test_nothing_handled_is_exit_8(project: Path, make_build: MakeBuild, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(make_build, handled=0)) == 8
    assert "not measured: patch toy" in capsys.readouterr().out


def test_dry_run_does_nothing(project: Path, make_build: MakeBuild, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(make_build, "--dry-run", "--json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["arms"] == ["base", "base-again", "off", "on"] and plan["blocks"] == 2
    assert main(["compare", "--dry-run"]) == 0
    assert "would compare foundation, toy with v0.5.0" in capsys.readouterr().out
    assert not (project / ".llamapatch").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model", "text.txt"], "text.txt is no usable GGUF"),
        (["--model", "missing.gguf"], "no file missing.gguf"),
        (["--text", "empty.txt"], "empty.txt is empty"),
        (["--text", "short.txt"], "shorter than two windows"),
        (["--blocks", "0"], "--blocks is 0"),
        (["--bin-base", "nowhere"], "--bin-base nowhere is no folder"),
        (["nonsense"], "nonsense"),
        (["--keep", "."], "never overwritten"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_2(
    project: Path, make_build: MakeBuild, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    Path("empty.txt").write_text("\n")
    Path("short.txt").write_text("a few words\n" * 30)
    assert main(words(make_build, *more)) == 2
    told = capsys.readouterr()
    assert said in told.err and "Traceback" not in told.err and told.out == ""


def test_a_missing_tool_is_exit_1(project: Path, make_build: MakeBuild, capsys: pytest.CaptureFixture[str]) -> None:
    line = words(make_build)
    (Path(line[line.index("--bin-patched") + 1]) / "llama-bench").unlink()
    assert main(line) == 1
    assert "llama-bench is not there" in capsys.readouterr().err


def test_ctrl_c_is_130_and_keeps_the_data(project: Path, make_build: MakeBuild) -> None:
    env = os.environ | {"PYTHONPATH": str(Path(llamapatch.__file__).parents[1])}
    line = words(make_build, "--blocks", "500", "--keep", "raw")
    child = subprocess.Popen(
        [sys.executable, "-m", "llamapatch", *line], env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    samples = project / "raw" / "samples.jsonl"
    while time.monotonic() < deadline and not (samples.is_file() and "speed" in samples.read_text()):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130, err
    assert "Traceback" not in err and f"what was measured so far: {project / 'raw'}" in err and out == ""
    assert all(json.loads(row) for row in samples.read_text().splitlines())


def test_an_interrupted_run_goes_on(project: Path, make_build: MakeBuild, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed outright in the middle; resumed, it measures only what is missing and judges the whole."""
    env = os.environ | {"PYTHONPATH": str(Path(llamapatch.__file__).parents[1])}
    line = words(make_build, "--blocks", "7", "--keep", "raw")
    child = subprocess.Popen(
        [sys.executable, "-m", "llamapatch", *line], env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    samples = project / "raw" / "samples.jsonl"
    while time.monotonic() < deadline and not (samples.is_file() and samples.read_text().count("speed") > 20):
        time.sleep(0.02)
    child.kill()
    child.wait()
    counts = [Path(line[line.index(f"--bin-{side}") + 1]) / "llama-bench.count" for side in ("base", "patched")]
    before = sum(int(path.read_text()) for path in counts)
    assert 10 <= before < 56
    assert main(["compare", "--resume", "raw", "--json"]) == 0
    result = Comparison.model_validate(json.loads(capsys.readouterr().out))
    # At most one process was killed half way and ran again; nothing that had finished did.
    assert 56 <= sum(int(path.read_text()) for path in counts) <= 57
    on = {r.metric: r for r in result.rounds[0].speed if r.arm == "on"}
    assert set(on) == {"pp64", "tg16"} and all(r.word == "faster" and r.blocks == 7 for r in on.values())
    assert result.seed == 3 and result.blocks == 7
    assert main(["compare", "--resume", "raw"]) == 2
    assert "complete: nothing is left to measure" in capsys.readouterr().err


def test_another_build_is_one_more_arm(
    project: Path, make_build: MakeBuild, capsys: pytest.CaptureFixture[str]
) -> None:
    fork = make_build("fork", speed=1.5, noise=0.002, commit="fork")
    assert main(words(make_build, "--blocks", "7", "--peer", f"ik={fork}", "--json")) == 0
    result = Comparison.model_validate(json.loads(capsys.readouterr().out))
    assert [arm.name for arm in result.arms] == ["base", "base-again", "off", "on", "peer-ik"]
    peer = {r.metric: r for r in result.rounds[0].speed if r.arm == "peer-ik"}
    assert peer["pp64"].word == "faster" and peer["pp64"].ratio == pytest.approx(1.5, rel=0.03)
    assert {q.arm for q in result.rounds[0].quality} == {"base-again", "off", "on", "peer-ik"}
    assert "peer-ik" not in {entry.arm for entry in result.rounds[0].logits}
    for bad, said in (("ik", "--peer ik is not NAME=DIR"), ("a=nowhere", "--peer a nowhere is no folder")):
        assert main(words(make_build, "--peer", bad)) == 2
        assert said in capsys.readouterr().err


def test_only_some_switches(project: Path, make_build: MakeBuild, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "all", "--only", "toy", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["switches"] == {"LLAMA_LP_TOY": "on"} and plan["selected"] == ["foundation", "toy"]
    assert main(["compare", "foundation", "--only", "toy", "--dry-run"]) == 2
    assert "--only toy is not among the selected patches" in capsys.readouterr().err


def test_profiles(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "toy", "--full", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["scenarios"][:2] == ["reference", "reference-batched"] and "llama-1b model, q4_0" in plan["models"]
    assert plan["speed_seconds"] > 3600
    assert main(["compare", "toy", "--profile", "hasty", "--dry-run"]) == 2
    assert "there is no profile `hasty`. Known: quick, standard, full." in capsys.readouterr().err
    (project / "ci").mkdir()
    (project / "ci" / "scenarios.toml").write_text(
        'schema = 1\n[profile.mine]\ntitle = "mine"\nblocks = 3\nscenarios = ["short"]\n'
        '[scenario.short]\ntitle = "short"\nprompt = 8\n'
    )
    assert main(["compare", "toy", "--profile", "mine", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["blocks"], plan["scenarios"], plan["profile"]) == (3, ["short"], "mine")
    text = (project / "ci" / "scenarios.toml").read_text()
    for bad, said in (
        (text.replace("prompt = 8", ""), "neither prompt nor generate is given"),
        (text.replace("prompt = 8", "prompt = 8\nfast = true"), "`scenario.short.fast`"),
        (text.replace('["short"]', '["long"]'), "names the unknown scenario long"),
        (text.replace("schema = 1", "schema ="), "is not valid TOML"),
    ):
        (project / "ci" / "scenarios.toml").write_text(bad)
        assert main(["compare", "toy", "--profile", "mine", "--dry-run"]) == 2
        assert said in capsys.readouterr().err
