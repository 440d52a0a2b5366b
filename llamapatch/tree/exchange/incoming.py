"""What every source of patches is read into, before anything is fitted onto a tree."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from llamapatch.series.model import Forwarding
from llamapatch.tree.chain import FileChange
from llamapatch.tree.exchange.foreign import ForeignFile


@dataclass(frozen=True)
class Incoming:
    """One patch on its way in.

    `origin` names it in the report (a file, a message of a mailbox, a commit); `strip` is how many folders its paths
    lose (None: found out). `files` is a diff; or, from a repository that holds the contents, `changes` with `contents`.
    `carried` are the files that an export of ours carries: ``patch.toml`` and ``README.md``.
    """

    origin: str
    title: str = ""
    body: str = ""
    authors: tuple[str, ...] = ()
    date: datetime.date | None = None
    files: tuple[ForeignFile, ...] = ()
    changes: tuple[FileChange, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict)
    strip: int | None = None
    forwarding: Forwarding | None = None
    carried: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class NotTaken:
    """Something in a source that is no patch of the series, and why."""

    origin: str
    why: str


# What a source yields: patches in order, and among them what was passed over.
Found = list[Incoming | NotTaken]
