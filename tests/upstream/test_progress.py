"""The bar is for terminals, lines are for everyone."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from llamapatch.upstream.progress import Meter


def test_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with Meter(lines.append, terminal=False) as meter:
        meter.step("one")
        meter.advance(1, 2)
        meter.git_line("Receiving objects:  42% (1/2)")
        meter.say("two")
    assert lines == ["one", "two"]
    assert capsys.readouterr() == ("", "")


def test_silence_when_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(None, terminal=True) as meter:
        meter.step("one")
        meter.say("two")
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal() -> None:
    """On a pseudo-terminal: git's percentages move the bar, nothing goes to standard output."""
    code = (
        "import sys, time\n"
        "from llamapatch.upstream.progress import Meter\n"
        "with Meter(lambda line: print(line, file=sys.stderr)) as meter:\n"
        "    meter.step('fetching it')\n"
        "    meter.git_line('remote: Counting objects:  10% (1/10)')\n"
        "    meter.git_line('Receiving objects:  42% (42/100), 1.0 MiB')\n"
        "    time.sleep(0.3)\n"
        "    meter.say('a line that stays')\n"
    )
    master, slave = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", code], stderr=slave, stdout=subprocess.PIPE, env=env)
    os.close(slave)
    seen = b""
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    out, _ = child.communicate(timeout=30)
    os.close(master)
    assert child.returncode == 0
    assert out == b""
    assert b"fetching it" in seen and b"receiving objects 42 %" in seen and b"a line that stays" in seen
