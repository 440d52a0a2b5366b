"""Locks that say who holds them.

The operating system frees a lock when its holder dies, however it dies. Beside each lock lies a note of its holder, for
the message that another process gets; a note without a lock is a dead process's and means nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from llamapatch.errors import DirtyError

_work = ContextVar("work", default="llamapatch")


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: `work` is the command line's verb and words, `since` a local time."""

    pid: int
    host: str
    work: str
    since: str

    def __str__(self) -> str:
        return f"`{self.work}`, pid {self.pid} on {self.host}, since {self.since}"


def working_as(words: str) -> None:
    """Say what this process does, for those who will have to wait for it."""
    _work.set(words)


@contextlib.contextmanager
def hold(path: Path, seconds: float, busy: Callable[[Owner | None], str], remedy: str) -> Iterator[None]:
    """Hold the lock at `path` (its folder must exist); `DirtyError` when it is not to be had within `seconds`, with
    the words of `busy` (given the holder, if the note can be read) and `remedy`."""
    lock = FileLock(path)
    note = path.with_name(path.name + ".owner")
    try:
        lock.acquire(timeout=seconds, poll_interval=0.05)
    except Timeout as error:
        raise DirtyError(busy(_read(note)), remedy) from error
    try:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        note.write_text(
            json.dumps(asdict(Owner(os.getpid(), socket.gethostname(), _work.get(), now))), encoding="utf-8"
        )
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def holder(folder: Path) -> Owner | None:
    """One of those who hold a lock in `folder`, None when nobody does; what dead processes left is removed. The caller
    must keep others from taking one meanwhile."""
    for path in sorted(folder.glob("*.lock")) if folder.is_dir() else ():
        note = path.with_name(path.name + ".owner")
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return _read(note) or Owner(0, "?", "?", "?")
        note.unlink(missing_ok=True)
        lock.release()
        path.unlink(missing_ok=True)
    return None


def _read(note: Path) -> Owner | None:
    try:
        return Owner(**json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
