"""``llamapatch fetch``: data on stdout, talk on stderr, exit codes, a dry run that writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamapatch.cli.main import main
from tests.upstream.conftest import Toy, corrupt_blob


@pytest.fixture
def project(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without patches on the toy; the current folder."""
    folder = tmp_path / "project"
    (folder / "patches").mkdir(parents=True)
    (folder / "patches" / "series.toml").write_text(
        f"""schema = 1
[upstream]
version = "v1"
url = "{toy.path.as_uri()}"
tree = "{toy.tree}"
[[upstream.source]]
kind = "git"
url = "{toy.path.as_uri()}"
ref = "v1"
[[phase]]
id = "phase0"
title = "Nothing"
"""
    )
    (folder / "llamapatch.toml").write_text("")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LLAMAPATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LLAMAPATCH_UPSTREAM", raising=False)
    return folder


def test_fetch(project: Path, toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"git {toy.path.as_uri()} v1"
    assert main(["fetch", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert said.out == f"version   v1\ntree      {toy.tree}\ncached    no\nsource    {source}\n"
    assert said.err == ""
    assert not (tmp_path / "cache").exists()

    assert main(["fetch"]) == 0
    said = capsys.readouterr()
    wanted = f"version   v1\ntree      {toy.tree}\nsource    {source}\nstored    {tmp_path / 'cache/upstream.git'}\n"
    assert said.out.startswith(wanted + "verified  in ")
    assert f"upstream v1 verified: tree {toy.tree}, from {source}" in said.err

    assert main(["fetch", "--json"]) == 0
    said = capsys.readouterr()
    data = json.loads(said.out)
    assert data.pop("seconds") > 0
    assert data == {
        "schema": 1,
        "version": "v1",
        "tree": toy.tree,
        "dry_run": False,
        "cached": True,
        "source": source,
        "sources": [source],
        "git_dir": str(tmp_path / "cache/upstream.git"),
    }
    assert said.err == ""


def test_exit_codes(project: Path, toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2 for nothing of use, 4 for another tree and for a damaged cache, 1 when nobody answers; one paragraph each."""
    assert main(["fetch", "--upstream", str(tmp_path / "absent")]) == 2
    assert main(["fetch", "--upstream", str(toy.path)]) == 0
    capsys.readouterr()
    corrupt_blob(tmp_path / "cache/upstream.git", f"{toy.tree}:src/llama.cpp")
    assert main(["fetch"]) == 4
    assert "is damaged" in capsys.readouterr().err
    toml = project / "patches/series.toml"
    toml.write_text(toml.read_text().replace(toy.tree, "1" * 40))
    assert main(["fetch", "--upstream", str(toy.path)]) == 4
    said = capsys.readouterr()
    assert "1" * 40 in said.err and toy.tree in said.err
    toml.write_text(toml.read_text().replace('ref = "v1"', 'ref = "v77"'))
    assert main(["fetch"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "it has no v77" in said.err and "Traceback" not in said.err
    assert [line for line in said.err.splitlines() if line.startswith("error:")] == [said.err.splitlines()[-1]]
