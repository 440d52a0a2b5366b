"""How the measuring room tells its caller where it is; drawing it is the caller's business."""

from __future__ import annotations

import time
from collections.abc import Callable


class Progress:
    """Counts weighted steps and estimates the time left from those already done.

    `weight` of a step is its expected share of the work, in seconds of an idle machine; only ratios matter.
    """

    def __init__(self, show: Callable[[str], None] | None = None) -> None:
        self._show = show
        self._total = 0.0
        self._done = 0.0
        self._started = time.monotonic()

    def expect(self, weight: float) -> None:
        """Announce `weight` more work."""
        self._total += weight

    def step(self, text: str, weight: float) -> None:
        """A step of `weight` begins."""
        if self._show is not None:
            self._show(f"{text}{self._left()}")
        self._done += weight

    def note(self, text: str) -> None:
        """Say something that is no step."""
        if self._show is not None:
            self._show(text)

    def seconds_left(self) -> float | None:
        """The estimate, or None while too little has been done to make one."""
        elapsed = time.monotonic() - self._started
        if self._done < 0.02 * self._total or self._done <= 0 or elapsed < 1:
            return None
        return elapsed * max(self._total - self._done, 0.0) / self._done

    def _left(self) -> str:
        left = self.seconds_left()
        share = f" [{100 * self._done / self._total:3.0f} %" if self._total else " ["
        if left is None:
            return f"{share}]"
        return f"{share}, about {clock(left)} left]"


def clock(seconds: float) -> str:
    """``95`` -> ``1m35s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
