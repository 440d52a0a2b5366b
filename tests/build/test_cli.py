"""``llamapatch build`` up to where it would fetch something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamapatch.cli.main import main
from llamapatch.errors import ExitCode
from tests.build.conftest import HOME


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_dry_run(somewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--dry-run", "--json", "--cuda", "--cuda-arch", "90"]) == ExitCode.OK
    rows = json.loads(capsys.readouterr().out)["builds"]
    assert rows == [
        {"variant": name, "folder": str(somewhere / f".llamapatch/build/{name}-cuda"), "now": "not built yet"}
        for name in ("base", "patched")
    ]
    assert not (somewhere / ".llamapatch").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--check"], "--check was given without --cuda"),
        (["--targets", "a b"], "is no CMake target"),
        (["-D", "oops"], "is not NAME=VALUE"),
        (["--jobs", "0"], "is not in the range"),
        (["--dry-run", "--variant", "no-such-patch"], "no-such-patch"),
    ],
)
def test_bad_input(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *argv]) == ExitCode.USAGE
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("has", "argv", "said"),
    [
        ((), ["build"], "no C compiler"),
        (("cc",), ["build"], "no C++ compiler"),
        (("cc", "c++"), ["build"], "git is not on PATH. Install it: `apt install git`"),
        (("cc", "c++"), ["apply", "all"], "git is not on PATH"),
        ((), ["doctor"], "apt install g++"),
    ],
)
def test_bare_machine(somewhere: Path, has: tuple[str, ...], argv: list[str], said: str) -> None:
    """A process of its own, because what is imported already has found its git."""
    tools = somewhere / "tools"
    tools.mkdir()
    for name in has:
        (tools / name).write_text("#!/bin/sh\necho 'cc 12.2.0'\n")
        (tools / name).chmod(0o755)
    env = {"PATH": str(tools), "PYTHONPATH": str(HOME), "HOME": os.environ["HOME"], "COLUMNS": "300"}
    done = subprocess.run(
        [sys.executable, "-m", "llamapatch", *argv], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.ERROR
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
