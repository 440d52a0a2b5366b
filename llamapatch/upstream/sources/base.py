"""What a source is asked to do, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llamapatch.errors import EnvironmentProblem
from llamapatch.git import Git
from llamapatch.upstream.progress import Meter

# A question to a server ("have you got it?") is answered in this time or the server counts as out of reach.
ASK_SECONDS = 20.0
# A download may be slow; each kind of source ends a stalled one much earlier by itself.
FETCH_SECONDS = 3600.0


class SourceFailedError(EnvironmentProblem):
    """A source cannot deliver. The message is a reason that reads well after the source's name and a colon."""


class UnknownNameError(SourceFailedError):
    """A source answered, and has nothing of that name."""


@dataclass(frozen=True)
class Place:
    """Where a source works: an empty bare repository and an empty folder, both thrown away afterwards.

    `wanted` is the tree that is looked for (None: whatever the source has), `version` its name.
    """

    git: Git
    scratch: Path
    meter: Meter
    wanted: str | None
    version: str


@dataclass(frozen=True)
class Found:
    """A tree whose objects are in the place's repository or in the `borrowed` object folders.

    `remark`: why the tree may differ from what was hoped for. `incomplete`: why objects may be missing.
    """

    tree: str
    borrowed: tuple[Path, ...] = ()
    remark: str = ""
    incomplete: str = ""


class Source(Protocol):
    """A place that upstream can come from."""

    @property
    def name(self) -> str:
        """What messages call it, such as ``npm package x@1.0.0``."""

    def bring(self, place: Place) -> Found:
        """Bring a tree, the wanted one if there is a choice; raises `SourceFailedError`."""
