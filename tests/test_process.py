"""Processes: what they did is taken from the operating system, and none outlives its reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from llamapatch.errors import EnvironmentProblem
from llamapatch.process import ProcessFailed, run

PY = sys.executable


def test_what_a_process_did() -> None:
    code = "import sys,time; b=bytearray(64<<20); t=time.process_time()\nwhile time.process_time()-t<0.2: pass\nprint('é'); print('e',file=sys.stderr)"
    done = run([PY, "-c", code], env=os.environ | {"PYTHONIOENCODING": "utf-8"})
    assert (done.code, done.stdout, done.stderr) == (0, "é\n", "e\n")
    assert done.argv == (PY, "-c", code)
    assert 0.2 <= done.cpu_seconds < 5
    assert done.seconds >= 0.2
    assert done.peak_rss > 64 << 20


def test_environment_and_folder_are_as_given(tmp_path: Path) -> None:
    done = run([PY, "-c", "import os; print(os.getcwd(), os.environ.get('HOME'))"], cwd=tmp_path, env={"X": "1"})
    assert done.stdout == f"{tmp_path} None\n"


def test_standard_input_is_empty() -> None:
    assert run([PY, "-c", "import sys; print(repr(sys.stdin.read()))"], timeout=20).stdout == "''\n"


def test_failures() -> None:
    with pytest.raises(ProcessFailed) as caught:
        run([PY, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])
    assert caught.value.completed.code == 3
    assert caught.value.message.endswith("ended with status 3.\nwhy")
    assert run([PY, "-c", "raise SystemExit(3)"], check=False).code == 3
    killed = run([PY, "-c", "import os,signal; os.kill(os.getpid(), signal.SIGKILL)"], check=False)
    assert killed.code == -signal.SIGKILL
    with pytest.raises(EnvironmentProblem, match="cannot start `/nonexistent/tool`: No such file or directory"):
        run(["/nonexistent/tool"])


def test_much_output_on_both_streams_does_not_block() -> None:
    code = "import sys\nfor i in range(20000): print('o'*50); print('e'*50, file=sys.stderr)"
    done = run([PY, "-c", code], timeout=60)
    assert (done.stdout.count("\n"), done.stderr.count("\n")) == (20000, 20000)


def test_lines_come_as_they_are_printed() -> None:
    code = "import sys,time; sys.stdout.write('10%\\r20%\\r\\ndone\\n'); sys.stdout.flush(); time.sleep(0.1); print('tail', end='')"
    seen: list[str] = []
    done = run([PY, "-c", code], on_line=seen.append)
    assert seen == ["10%", "20%", "done", "tail"]
    assert done.stdout.endswith("done\ntail")


FAMILY = (
    "import subprocess,sys,time\n"
    f"c=subprocess.Popen([{PY!r},'-c','import time; time.sleep(60)'])\n"
    "open(sys.argv[1],'w').write(str(c.pid))\n"
    "time.sleep(60)\n"
)


def ended(pid: int) -> bool:
    """Whether a process is gone (or only waits to be reaped)."""
    for _ in range(100):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_a_time_out_ends_the_whole_family(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(EnvironmentProblem, match="did not finish within 2 s and was ended"):
        run([PY, "-c", FAMILY, tmp_path / "pid"], timeout=2)
    assert time.monotonic() - started < 20
    assert ended(int((tmp_path / "pid").read_text()))


def test_ctrl_c_ends_the_whole_family(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run([PY, "-c", FAMILY, tmp_path / "pid"])
    assert ended(int((tmp_path / "pid").read_text()))


def terminate_when(ready: Path, pid: int, number: int) -> None:
    while not ready.exists() or not ready.read_text():
        time.sleep(0.02)
    os.kill(pid, number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_llamapatch_with_all_its_children(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A child of `run` in a group of its own with a child of its own, and one that something else (git) started."""
    program = (
        "import subprocess, sys, click\n"
        "from llamapatch.cli import main as m\n"
        "from llamapatch.process import run\n"
        f"other = subprocess.Popen([{PY!r}, '-c', 'import time; time.sleep(60)'])\n"
        "open(sys.argv[2], 'w').write(str(other.pid))\n"
        f"work = lambda: run([{PY!r}, '-c', {FAMILY!r}, FIRST])\n"
        "m.group = click.Command('llamapatch', callback=work)\n"
        "FIRST = sys.argv.pop(1); sys.argv.pop(1)\n"
        "m.entry()\n"
    )
    first, second = tmp_path / "pid", tmp_path / "other"
    process = subprocess.Popen([PY, "-c", program, first, second], stderr=subprocess.PIPE, text=True)
    terminate_when(first, process.pid, number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    word = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert said.strip() == f"error: {word}; nothing half-done was left behind."
    assert ended(int(first.read_text()))
    assert ended(int(second.read_text()))


def test_a_signal_between_the_fork_and_the_wait_is_not_lost(tmp_path: Path) -> None:
    """It comes while the child is being started: it is held, then raised, and the child is ended."""
    program = (
        "import os, signal, subprocess, sys\n"
        "from llamapatch import process\n"
        "process.raise_when_terminated()\n"
        "original = subprocess.Popen\n"
        "def early(*a, **k):\n"
        "    child = original(*a, **k)\n"
        "    open(sys.argv[1], 'w').write(str(child.pid))\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return child\n"
        "subprocess.Popen = early\n"
        "try:\n"
        f"    process.run([{PY!r}, '-c', 'import time; time.sleep(60)'])\n"
        "except process.Terminated as stop:\n"
        "    print('raised', stop)\n"
    )
    done = subprocess.run([PY, "-c", program, tmp_path / "pid"], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("raised SIGTERM\n", "")
    assert ended(int((tmp_path / "pid").read_text()))
