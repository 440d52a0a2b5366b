"""The one place that spawns processes other than git.

Every child runs in a process group of its own, so that Ctrl-C, SIGTERM and time-outs end the whole family, and is
reaped with ``wait4``, so that CPU time and peak memory come from the operating system and not from the child's own
claims.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from llamapatch.errors import EnvironmentProblem, LlamapatchError

# A lone carriage return at the end of what was read may yet become \r\n, so it is left for the next chunk.
_LINE_END = re.compile(r"\r\n|\n|\r(?=.)", re.DOTALL)


_ENDING = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Completed:
    """A finished process. `seconds` is wall time, `cpu_seconds` user plus system time of it and its reaped children,
    `peak_rss` the largest resident set in bytes."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float
    peak_rss: int

    @property
    def command(self) -> str:
        return shlex.join(self.argv)


class ProcessFailed(LlamapatchError):
    """A process exited with a status it should not have; `completed` has everything it said."""

    def __init__(self, completed: Completed, remedy: str = "") -> None:
        tail = "\n".join((completed.stderr or completed.stdout).strip().splitlines()[-12:])
        how = f"status {completed.code}" if completed.code >= 0 else f"signal {-completed.code}"
        super().__init__(f"`{completed.command}` ended with {how}.\n{tail}", remedy)
        self.completed = completed


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run `argv` to its end and return what it did.

    `env` replaces the environment (use ``os.environ | {...}`` to extend it). `on_line` is called with each line of
    standard output and standard error as it comes. Raises `EnvironmentProblem` when the program cannot be started or
    outlives `timeout` seconds, and `ProcessFailed` for a non-zero status unless `check` is false.
    """
    words = tuple(os.fspath(a) for a in argv)
    started = time.monotonic()
    # A Ctrl-C between the fork and the `try` below would leave the child running with nobody to end it.
    with _interrupts_held() as let_interrupts_through:
        try:
            child = subprocess.Popen(
                words,
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise EnvironmentProblem(f"cannot start `{words[0]}`: {error.strerror}.") from error
        assert child.stdout is not None and child.stderr is not None
        captured: list[list[str]] = [[], []]
        readers = [
            threading.Thread(target=_drain, args=(stream, lines, on_line), daemon=True)
            for stream, lines in zip((child.stdout, child.stderr), captured, strict=True)
        ]
        for reader in readers:
            reader.start()
        late = threading.Event()

        def expire() -> None:
            late.set()
            kill_group(child.pid)

        timer = threading.Timer(timeout, expire) if timeout else None
        if timer:
            timer.start()
        try:
            let_interrupts_through()
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            end_group(child)
            raise
        finally:
            if timer:
                timer.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    for reader in readers:
        reader.join()
    child.stdout.close()
    child.stderr.close()
    done = Completed(
        argv=words,
        code=child.returncode,
        stdout="".join(captured[0]),
        stderr="".join(captured[1]),
        seconds=time.monotonic() - started,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_rss=usage.ru_maxrss * 1024,
    )
    if late.is_set():
        raise EnvironmentProblem(f"`{done.command}` did not finish within {timeout:.0f} s and was ended.")
    if check and done.code != 0:
        raise ProcessFailed(done)
    return done


class Terminated(BaseException):
    """SIGTERM or SIGHUP came: raised wherever the main thread was, so that whatever is under way is ended or undone as
    after Ctrl-C. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def raise_when_terminated() -> None:
    """Have SIGTERM and SIGHUP raise `Terminated`, once; what is ignored (by nohup) stays ignored."""

    def handler(number: int, _: FrameType | None) -> None:
        for other in _ENDING:
            signal.signal(other, signal.SIG_IGN)  # a second one must not break off the cleaning up
        raise Terminated(number)

    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def end_children(grace: float = 5.0) -> None:
    """End every child that is left, and theirs: git, for one, runs without a group of its own."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(children, grace)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[Callable[[], None]]:
    """Keep Ctrl-C and termination back until the function that this yields is called, or to the end; then whichever
    came first is raised."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *_ENDING)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or not handlers:
        yield lambda: None
        return
    came: list[tuple[int, FrameType | None]] = []
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append((number, frame)))

    def release() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            first, frame = came[0]
            came.clear()
            raiser = handlers[signal.Signals(first)]
            assert callable(raiser)
            raiser(first, frame)

    try:
        yield release
    finally:
        release()


def end_group(child: subprocess.Popen[bytes], grace: float = 5.0) -> None:
    """Ask a child's group to end, and kill what is left after `grace` seconds.

    Asking first matters for programs that put their own children into further groups (ninja does, one per compiler):
    killed outright, they would leave those running, writing into files that the next run believes to be its own.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        pass
    finally:
        kill_group(child.pid)
        child.wait()


def kill_group(pid: int) -> None:
    """End a child started by `run` with everything it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _drain(stream: IO[bytes], lines: list[str], on_line: Callable[[str], None] | None) -> None:
    """Collect `stream`; a carriage return ends a line too, because progress meters (git, curl) use nothing else."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while chunk := os.read(stream.fileno(), 65536):
        text = decoder.decode(chunk)
        lines.append(text)
        if on_line is not None:
            *whole, rest = _LINE_END.split(rest + text)
            for line in whole:
                on_line(line)
    if rest.rstrip("\r") and on_line is not None:
        on_line(rest.rstrip("\r"))
