"""The counters that a patched build writes at exit (``LLAMA_LP_STATS``): was the patch reached at all?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from llamapatch.errors import NotMeasured


@dataclass
class Activity:
    """What one patch did, summed over processes: calls handled, differences seen in verify mode, calls given back to
    upstream's path by reason; `runs` is the number of processes in which the patch registered."""

    handled: int = 0
    differs: int = 0
    fallback: dict[str, int] = field(default_factory=dict)
    runs: int = 0

    def add(self, other: Activity) -> None:
        """Sum another process's counters into this one."""
        self.handled += other.handled
        self.differs += other.differs
        self.runs += other.runs
        for reason, count in other.fallback.items():
            self.fallback[reason] = self.fallback.get(reason, 0) + count


def read_stats(path: Path) -> dict[str, Activity] | None:
    """The counters by patch id, or None when the process wrote none. Raises `NotMeasured` for a broken file."""
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["schema"] != 1:
            raise ValueError(f"schema {stored['schema']} is unknown")
        return {
            str(name): Activity(
                handled=_count(patch["handled"]),
                differs=_count(patch.get("differs", 0)),
                fallback={str(reason): _count(n) for reason, n in patch.get("fallback", {}).items()},
                runs=1,
            )
            for name, patch in stored["patches"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotMeasured(f"{path} is no statistics file of a patched build: {error}.") from error


def total(files: Iterable[dict[str, Activity] | None]) -> dict[str, Activity]:
    """Sum the counters of many processes."""
    summed: dict[str, Activity] = {}
    for stats in files:
        for name, activity in (stats or {}).items():
            summed.setdefault(name, Activity()).add(activity)
    return summed


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
