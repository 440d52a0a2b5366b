"""What is shown when a step fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from llamapatch.build.ninja import BuildFailed, Log, _failure
from llamapatch.build.progress import BuildProgress, parse_step
from llamapatch.errors import EnvironmentProblem, LlamapatchError
from llamapatch.process import Completed


def failure(tmp_path: Path, stdout: str, stderr: str = "") -> LlamapatchError:
    done = Completed(("ninja",), 1, stdout, stderr, 1.0, 1.0, 0)
    with Log(tmp_path / "build.log") as log:
        return _failure(done, "base", log)


def test_the_first_error_is_shown_not_the_last_warnings(tmp_path: Path) -> None:
    noise = "\n".join(f"x.c:{i}:1: warning: w{i}" for i in range(50))
    error = failure(
        tmp_path,
        "[1/9] Building C object a.o\n"
        "FAILED: [code=1] b.o \ncc -c b.c\nb.c: In function 'f':\nb.c:3:5: error: 'y' undeclared\n"
        f"{noise}\n[3/9] Building C object c.o\nninja: build stopped: subcommand failed.\n",
    )
    assert isinstance(error, BuildFailed)
    assert error.message.startswith(
        "building base failed at b.o:\nb.c: In function 'f':\nb.c:3:5: error: 'y' undeclared\nx.c:0:1: warning: w0\n"
    )
    assert "w49" not in error.message
    assert "cc -c" not in error.message
    assert str(tmp_path / "build.log") in error.message


def test_full_disk(tmp_path: Path) -> None:
    error = failure(tmp_path, "FAILED: a.o\ncc\nfatal error: error writing to a.o: No space left on device\n")
    assert isinstance(error, EnvironmentProblem)
    assert "is full" in error.message


def test_out_of_memory(tmp_path: Path) -> None:
    error = failure(tmp_path, "FAILED: a.o\ncc\nc++: fatal error: Killed signal terminated program cc1plus\n")
    assert "--jobs 1" in error.remedy


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("[3/166] Building C object x.o", (3, 166, "Building C object x.o")),
        ("[0/1] Re-running CMake...", None),
        ("[0/2] Re-checking globbed directories...", None),
        ("ninja: no work to do.", None),
        ("-- Configuring done", None),
    ],
)
def test_steps(line: str, step: tuple[int, int, str] | None) -> None:
    assert parse_step(line) == step


def test_sparse_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    said: list[str] = []
    with BuildProgress("base", said.append, Console(file=None, force_terminal=False, stderr=True)) as progress:
        for i in range(1, 101):
            now += 1
            progress.line(f"[{i}/100] Building x")
    assert said == [f"base: {n}/100" for n in range(10, 101, 10)]


def test_quiet_without_a_reporter(capsys: pytest.CaptureFixture[str]) -> None:
    with BuildProgress("base", None, Console(force_terminal=True, stderr=True)) as progress:
        progress.line("[1/2] Building x")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
