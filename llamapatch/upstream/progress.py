"""What a user sees while upstream is fetched: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

# "remote: Compressing objects:  42% (…)" as git prints it on standard error.
_GIT_METER = re.compile(r"^(?:remote: )?([A-Z][a-z]+ [a-z]+):\s+(\d+)%")


class Meter:
    """A context manager that passes sentences to `report` and, when standard error is a terminal, draws a bar there.

    Nobody listens (`report` is None): it stays silent. Safe to call from the threads that read a child's output.
    """

    def __init__(self, report: Callable[[str], None] | None, *, terminal: bool | None = None) -> None:
        self._report = report
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if report is not None and (sys.stderr.isatty() if terminal is None else terminal):
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[amount]}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, sentence: str) -> None:
        """A line that stays."""
        if self._report is not None:
            self._report(sentence)

    def step(self, description: str) -> None:
        """A new stretch of work of unknown length."""
        if self._bar is None:
            self.say(description)
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(description, total=None, amount="")

    def advance(self, done: int, total: int | None, amount: str = "") -> None:
        """`done` of `total` of the present step; `amount` is the text beside the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, amount=amount)

    def git_line(self, line: str) -> None:
        """Understand one line of git's own progress meter."""
        if found := _GIT_METER.match(line):
            self.advance(int(found[2]), 100, f"{found[1].lower()} {found[2]} %")
