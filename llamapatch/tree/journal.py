"""What was done to a project, entry by entry: the ref whose change decides every change.

``refs/llamapatch/journal`` points to a commit whose tree holds ``journal.json`` (the last `KEPT` entries) and
``blobs/<id>`` (every content that one of them names); its parents are the applied tips they name, so that nothing an
``undo`` needs can be collected. Appending an entry is one compare-and-swap; what the entry says is carried out after
it (`llamapatch.tree.write`, docs/decisions/series-write-protocol.md).
"""

from __future__ import annotations

import calendar
import datetime
import time
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from llamapatch.errors import MismatchError
from llamapatch.git import Git
from llamapatch.tree.objects import IDENTITY, Entry, ObjectPool, TreeState

JOURNAL_REF = "refs/llamapatch/journal"
# Entries that are kept; older ones can no longer be undone.
KEPT = 200
_TEXT = "journal.json"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Content(_Model):
    """A file of the series: its mode (``100644``, ``100755``) and the id of its content."""

    mode: str
    oid: str


class FileSwap(_Model):
    """A file before and after; None where it is absent."""

    before: Content | None
    after: Content | None


class Session(_Model):
    """An edit under way: the patch at which the applied worktree stops, and what was applied before."""

    patch: str
    resume: tuple[str, ...]


class Point(_Model):
    """What is applied (a commit; None before the first ``apply``), and the edit that is under way."""

    applied: str | None = None
    session: Session | None = None


class Record(_Model):
    """One entry. `reason` begins with the verb. `top` is the entry that the next ``undo`` reverses (0: none), `below`
    the one after that, `ahead` those that ``redo`` brings back, nearest first; `covers` the entries that an undo or a
    redo went over."""

    number: int
    time: str
    reason: str
    kind: Literal["do", "undo", "redo"] = "do"
    files: dict[str, FileSwap] = {}
    before: Point
    after: Point
    below: int = 0
    top: int
    ahead: tuple[int, ...] = ()
    covers: tuple[int, ...] = ()

    @property
    def verb(self) -> str:
        return self.reason.split(" ", 1)[0]


class _File(_Model):
    journal: int = 1
    entries: tuple[Record, ...]


@dataclass(frozen=True)
class Journal:
    """The journal as a commit has it (None: it was never written)."""

    commit: str | None
    entries: tuple[Record, ...]

    @property
    def last(self) -> Record | None:
        return self.entries[-1] if self.entries else None

    @property
    def session(self) -> Session | None:
        return self.last.after.session if self.last else None

    def get(self, number: int) -> Record | None:
        """The entry with this number, None when it is not kept any more."""
        return next((e for e in self.entries if e.number == number), None)

    def next(self, reason: str, files: dict[str, FileSwap], before: Point, after: Point) -> Record:
        """The entry of an ordinary change; whatever could be redone no longer can."""
        last = self.last
        number = last.number + 1 if last else 1
        return Record(
            number=number,
            time=now(),
            reason=reason,
            files=files,
            before=before,
            after=after,
            below=last.top if last else 0,
            top=number,
        )

    def with_entry(self, pool: ObjectPool, entry: Record) -> str:
        """Add the commit of this journal and one more entry to `pool`; returns its id."""
        entries = (*self.entries, entry)[-KEPT:]
        text = _File(entries=entries).model_dump_json(indent=1).encode()
        state = TreeState.empty()
        state.set(_TEXT, Entry("100644", pool.add("blob", text)))
        for content in (c for e in entries for swap in e.files.values() for c in (swap.before, swap.after)):
            if content is not None:
                state.set(f"blobs/{content.oid}", Entry("100644", content.oid))
        tips = dict.fromkeys(p.applied for e in entries for p in (e.before, e.after) if p.applied is not None)
        epoch = calendar.timegm(time.strptime(entry.time, "%Y-%m-%dT%H:%M:%SZ"))
        lines = [f"tree {state.write(pool)}", *(f"parent {tip}" for tip in tips)]
        lines += [f"author {IDENTITY} {epoch} +0000", f"committer {IDENTITY} {epoch} +0000", "", f"{entry.reason}\n"]
        return pool.add("commit", "\n".join(lines).encode())


def read_journal(git: Git, commit: str | None = None) -> Journal:
    """The journal of a store, or the one that `commit` has."""
    commit = commit or git.ref(JOURNAL_REF)
    if commit is None:
        return Journal(None, ())
    text = git.read_file(commit, _TEXT)
    try:
        return Journal(commit, _File.model_validate_json(text or b"").entries)
    except ValidationError as error:
        raise MismatchError(
            f"the journal in {git.git_dir} is damaged or was written by another version.",
            f"`git --git-dir {git.git_dir} update-ref -d {JOURNAL_REF}` starts a new one; the series stays as it is.",
        ) from error


def now() -> str:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
