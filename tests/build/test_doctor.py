"""``llamapatch doctor``, in process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamapatch.build.doctor import State, diagnose
from llamapatch.cli.main import main
from llamapatch.config import Settings
from llamapatch.errors import ExitCode


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_ready(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == ExitCode.OK
    data = json.loads(capsys.readouterr().out)
    assert data["healthy"] is True
    states = {f["name"]: f["state"] for f in data["findings"]}
    assert {states[n] for n in ("git", "C compiler", "C++ compiler", "cmake", "ninja", "work folder")} == {"ok"}
    assert list(elsewhere.iterdir()) == []


def test_no_compiler(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(elsewhere))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    assert main(["doctor"]) == ExitCode.ERROR
    out = " ".join(capsys.readouterr().out.split())
    assert "no C++ compiler" in out
    assert "apt install g++" in out
    assert "apt install git" in out
    assert "Not ready" in out


def test_compiler_without_its_library(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers --version and cannot compile: the probe must not believe it."""
    fake = tmp_path / "fake-c++"
    fake.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && { echo 'fake 12.2.0'; exit 0; }\n"
        "echo 'fatal error: filesystem: No such file' >&2; exit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    diagnosis = diagnose(settings)
    found = next(f for f in diagnosis.findings if f.name == "C++ compiler")
    assert found.state is State.MISSING
    assert found.detail == f"{fake} fails on C++17: fatal error: filesystem: No such file"
    assert not diagnosis.healthy
