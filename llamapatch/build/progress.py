"""Ninja's ``[done/total]`` lines as a bar on a terminal, or as a line now and then elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

# What Ninja is told to print (NINJA_STATUS), and what it then prints when a step ends.
NINJA_STATUS = "[%f/%t] "
_STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")
# Steps of Ninja's own, before the real count is known.
_OWN_STEPS = ("Re-checking globbed directories", "Re-running CMake")
_PARTS = 10
_EVERY_SECONDS = 10.0


def parse_step(line: str) -> tuple[int, int, str] | None:
    """``[3/166] Building C object x.o`` -> (3, 166, "Building C object x.o"); None for any other line."""
    match = _STEP.match(line)
    if match is None or match.group(3).startswith(_OWN_STEPS):
        return None
    return int(match.group(1)), int(match.group(2)), match.group(3)


class BuildProgress:
    """Follows one Ninja run. `report` gets the sparse lines; None keeps quiet, on a terminal too.

    Use it as a context manager and pass it each line of Ninja's output.
    """

    def __init__(self, title: str, report: Callable[[str], None] | None, console: Console | None = None) -> None:
        self._title = title
        self._report = report
        self._said = (0, time.monotonic())
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        console = console or Console(stderr=True)
        if report is not None and console.is_terminal and not console.is_dumb_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )

    def __enter__(self) -> BuildProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.stop()

    def line(self, text: str) -> None:
        """One line of Ninja's output."""
        step = parse_step(text)
        if step is None:
            return
        done, total, _ = step
        if self._bar is not None:
            if self._task is None:
                self._bar.start()
                self._task = self._bar.add_task(self._title, total=total)
            self._bar.update(self._task, completed=done, total=total)
        elif self._report is not None:
            part, at = self._said
            now = time.monotonic()
            if done * _PARTS // total > part and now >= at + _EVERY_SECONDS:
                self._said = (done * _PARTS // total, now)
                self._report(f"{self._title}: {done}/{total}")
