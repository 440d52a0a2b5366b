"""Undo and redo: the files of the series, the applied state and an edit under way, all as they were.

Nothing is ever taken out of the journal: an undo is an entry too. Which entries the next ``undo`` and ``redo`` go over
is written in the last one (`Record.top`, `Record.ahead`).
"""

from __future__ import annotations

from dataclasses import dataclass

from llamapatch.config import Settings
from llamapatch.errors import MismatchError, UsageProblem
from llamapatch.tree.journal import FileSwap, Journal, Point, Record, now, read_journal
from llamapatch.tree.objects import ObjectPool
from llamapatch.tree.store import BASE_REF, Store, existing_store, open_project_store, writing
from llamapatch.tree.write import (
    commit,
    content_now,
    current_point,
    recover,
    refuse_edited,
    refuse_read_only,
)


@dataclass(frozen=True)
class Line:
    """One entry as ``log`` shows it. `state` is ``done``, ``undone`` (``redo`` brings it back), ``gone`` (undone, and
    something else was done since) or ``undo`` / ``redo``; `before` and `after` are the applied ids."""

    entry: Record
    state: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What an undo or redo went over, or with `dry_run` would go over, nearest first, and what it changed."""

    covers: tuple[Record, ...]
    files: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    dry_run: bool


def read_log(settings: Settings, limit: int | None = None) -> tuple[Line, ...]:
    """The journal, newest first; empty when there is none."""
    store = existing_store(settings)
    journal = read_journal(store.git) if store else Journal(None, ())
    last = journal.last
    if store is None or last is None:
        return ()
    done = set()
    at = last.top
    while (entry := journal.get(at)) is not None:
        done.add(at)
        at = entry.below
    lines = []
    for entry in list(reversed(journal.entries))[:limit]:
        state = "done" if entry.number in done else "undone" if entry.number in last.ahead else "gone"
        state = state if entry.kind == "do" else entry.kind
        lines.append(Line(entry, state, _ids(store, entry.before), _ids(store, entry.after)))
    return tuple(lines)


def undo(settings: Settings, count: int = 1, *, dry_run: bool = False) -> Step:
    """Take the last `count` changes back. `UsageProblem` when there are not so many, `DirtyError` when a file is not
    what the journal says or an edit in the worktree would be lost; then nothing was changed."""
    with writing(settings):
        store = open_project_store(settings)
        recover(store)
        journal = read_journal(store.git)
        covers: list[Record] = []
        at = journal.last.top if journal.last else 0
        while len(covers) < count:
            entry = journal.get(at)
            if entry is None:
                raise _too_few("undo", "undone", len(covers))
            covers.append(entry)
            at = entry.below
        assert journal.last is not None
        ahead = (*(e.number for e in reversed(covers)), *journal.last.ahead)
        swaps = [{n: FileSwap(before=s.after, after=s.before) for n, s in entry.files.items()} for entry in covers]
        return _go(settings, store, journal, "undo", covers, swaps, covers[-1].before, at, ahead, dry_run)


def redo(settings: Settings, count: int = 1, *, dry_run: bool = False) -> Step:
    """Bring the last `count` undone changes back; errors as for `undo`."""
    with writing(settings):
        store = open_project_store(settings)
        recover(store)
        journal = read_journal(store.git)
        ahead = journal.last.ahead if journal.last else ()
        covers = [entry for number in ahead[:count] if (entry := journal.get(number)) is not None]
        if len(covers) < count:
            raise _too_few("redo", "redone", len(covers))
        swaps = [entry.files for entry in covers]
        return _go(
            settings, store, journal, "redo", covers, swaps, covers[-1].after, covers[-1].number, ahead[count:], dry_run
        )


def _go(
    settings: Settings,
    store: Store,
    journal: Journal,
    kind: str,
    covers: list[Record],
    swaps: list[dict[str, FileSwap]],
    goal: Point,
    top: int,
    ahead: tuple[int, ...],
    dry_run: bool,
) -> Step:
    files: dict[str, FileSwap] = {}
    for swap in swaps:
        for name, one in swap.items():
            first = files.get(name)
            files[name] = FileSwap(before=first.before if first else one.before, after=one.after)
    if files and not dry_run:
        refuse_read_only(settings)
    edited = [name for name, swap in sorted(files.items()) if content_now(settings, name) != swap.before]
    refuse_edited(settings.home, edited, f"{kind} of `{covers[0].reason}` would lose what was edited since")
    now_at = current_point(store, journal)
    if goal.applied is None and now_at.applied is not None:
        # Before the first apply there was no ref; the unpatched tree is the same to everybody.
        goal = goal.model_copy(update={"applied": store.git.ref(BASE_REF)})
    last = journal.last
    assert last is not None
    if now_at.applied != last.after.applied:
        raise MismatchError(
            f"applied is {now_at.applied}, the journal says {last.after.applied}.", "Run `llamapatch apply` again."
        )
    swapped = {name: swap for name, swap in files.items() if swap.before != swap.after}
    step = Step(tuple(covers), tuple(sorted(swapped)), _ids(store, now_at), _ids(store, goal), dry_run)
    if not dry_run:
        entry = Record(
            number=last.number + 1,
            time=now(),
            reason=f"{kind} {', '.join(f'{e.number} ({e.reason})' for e in covers)}",
            kind="undo" if kind == "undo" else "redo",
            files=swapped,
            before=now_at,
            after=goal,
            top=top,
            ahead=ahead,
            covers=tuple(e.number for e in covers),
        )
        commit(store, journal, entry, ObjectPool())
    return step


def _ids(store: Store, point: Point) -> tuple[str, ...]:
    return tuple(p.id for p in store.patches_of(point.applied)) if point.applied else ()


def _too_few(verb: str, word: str, found: int) -> UsageProblem:
    how_many = f"only {found} change{'s' * (found > 1)} can be {word}" if found else f"there is nothing to {verb}"
    return UsageProblem(f"{how_many}.", "See `llamapatch log`.")
