"""Progress on standard error: one line that replaces itself on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.status import Status

# A log that nobody watches does not need every step.
QUIET_SECONDS = 10.0


class Live:
    """A context manager whose `report` shows what is going on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = console.status("", spinner="dots") if console.is_terminal else None
        self._last = -QUIET_SECONDS

    def __enter__(self) -> Live:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()

    def report(self, text: str) -> None:
        """Show `text`; on a file or pipe only when the last line is a while ago."""
        if self._status is not None:
            self._status.update(text.replace("[", r"\["))
            return
        now = time.monotonic()
        if now - self._last >= QUIET_SECONDS:
            self._last = now
            self._console.print(text, markup=False, soft_wrap=True)
