"""Processes: what they did is taken from the operating system, and none outlives its reason."""

from __future__ import annotations

import os
import signal
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
