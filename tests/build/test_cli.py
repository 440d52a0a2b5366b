"""``llamapatch build`` up to where it would fetch something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamapatch.cli.main import main
from llamapatch.errors import ExitCode


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
    assert list(somewhere.iterdir()) == []


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
