"""What a build folder was last configured with, and so whether it must be configured again.

CMake and Ninja notice edited files. They do not notice another compiler, other options, a new file where upstream's
globs looked once, or a tree that moved: the stamp does.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from llamapatch.files import write_atomically

SCHEMA = 1
_UNFINISHED = {"configure step": "unfinished"}


class Action(Enum):
    """What must happen before Ninja runs."""

    NOTHING = "nothing"
    CONFIGURE = "configure"
    FRESH = "fresh configure"
    START_OVER = "start over"


@dataclass(frozen=True)
class Stamp:
    """The inputs of a configure step. `setup` maps names to values (options, tools, environment); `files` is the hash
    of the tree's file list; `label` and `number` are the series state that is compiled in; `source` the tree's path."""

    setup: dict[str, str]
    files: str
    label: str
    number: int
    source: str

    def action(self, old: Stamp | None) -> tuple[Action, str]:
        """What turning the folder of `old` into one of `self` takes, and why."""
        if old is None:
            return Action.START_OVER, "not built yet"
        if old.source != self.source:
            # Objects are dated by files elsewhere: Ninja cannot know which of them are still right.
            return Action.START_OVER, f"the tree moved from {old.source}"
        if old.setup != self.setup:
            if old.setup == _UNFINISHED:
                return Action.FRESH, "the last configure step was interrupted"
            names = sorted(k for k in {*old.setup, *self.setup} if old.setup.get(k) != self.setup.get(k))
            return Action.FRESH, f"{', '.join(names)} changed"
        if old.files != self.files:
            return Action.CONFIGURE, "files were added or removed"
        if (old.label, old.number) != (self.label, self.number):
            return Action.CONFIGURE, f"the series state changed from {old.label}"
        return Action.NOTHING, ""


def read_stamp(path: Path) -> Stamp | None:
    """The stamp of a folder, or None when there is none that this version understands."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            return None
        return Stamp(**data)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_stamp(path: Path, stamp: Stamp) -> None:
    """Store `stamp`, whole or not at all."""
    write_atomically(path, json.dumps({"schema": SCHEMA} | asdict(stamp), indent=2, sort_keys=True).encode())


def unfinished(stamp: Stamp) -> Stamp:
    """What to store while CMake runs: it equals no real stamp, so a folder left half-way is configured afresh."""
    return replace(stamp, setup=_UNFINISHED)
