"""Carrying series over: statuses, and laws for random series on random trees."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import FileChange
from llamapatch.tree.objects import Entry, ObjectPool, TreeState
from llamapatch.tree.thread import Change, PatchOutcome, Status, put, rethread

BASE = {name: "".join(f"{name} {i}\n" for i in range(30)) for name in ("a.c", "b.c", "dir/c.h")}


class World:
    """Trees and changes in memory; no repository is needed."""

    def __init__(self) -> None:
        self.blobs = Blobs(None, ObjectPool())

    def entry(self, text: str | None, mode: str = "100644") -> Entry | None:
        return Entry(mode, self.blobs.add(text.encode())) if text is not None else None

    def tree(self, files: dict[str, str]) -> TreeState:
        state = TreeState.empty()
        for path, text in files.items():
            put(state, path, self.entry(text))
        return state

    def change(
        self, name: str, before: dict[str, str], after: dict[str, str], requires: tuple[str, ...] = ()
    ) -> Change:
        paths = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
        files = tuple(FileChange(p, self.entry(before.get(p)), self.entry(after.get(p))) for p in paths)
        return Change(name, files, requires)

    def texts(self, state: TreeState) -> dict[str, str]:
        return {path: self.blobs.get(entry.oid).decode() for path, entry in state.files().items()}


def one(before: dict[str, str], after: dict[str, str], now: dict[str, str]) -> tuple[PatchOutcome, dict[str, str]]:
    world = World()
    state = world.tree(now)
    (outcome,) = rethread([world.change("x", before, after)], state, world.blobs)
    return outcome, world.texts(state)


def test_whole_files() -> None:
    old = {"a": "1\n", "keep": "k\n"}
    assert one(old, old | {"n": "new\n"}, old)[0].status is Status.EXACT
    assert one(old, old | {"n": "new\n"}, old | {"n": "new\n"})[0].status is Status.ALREADY
    clash, texts = one(old, old | {"n": "new\n"}, old | {"n": "other\n"})
    assert (clash.status, clash.why, texts["n"]) == (Status.CONFLICT, "adds n, which is already there", "other\n")
    gone = {"keep": "k\n"}
    assert one(old, gone, gone)[0].status is Status.ALREADY
    assert one(old, gone, old | {"a": "2\n"})[0].why == "deletes a, which has changed"
    assert one(old, old | {"a": "2\n"}, gone)[0].status is Status.MISSING
    assert (
        one(old, old | {"d/e": "x\n"}, old | {"d": "a file\n"})[0].why == "adds d/e, where there is no room for a file"
    )
    assert one({"a": "b\0in"}, {"a": "b\0IN"}, {"a": "B\0in"})[0].why == (
        "changes a, which is binary or a link and has changed"
    )


def test_modes() -> None:
    world = World()
    text, exe = "#!/bin/sh\n", "100755"
    change = Change("x", (FileChange("a", world.entry(text), world.entry(text, exe)),))
    state = world.tree({"a": "#!/bin/sh\nexit\n"})
    (outcome,) = rethread([change], state, world.blobs)
    assert (outcome.status, state.get("a")) == (Status.MERGED, world.entry("#!/bin/sh\nexit\n", exe))


def test_empty_and_already() -> None:
    assert one(BASE, BASE, BASE)[0].status is Status.EMPTY
    world = World()
    after = BASE | {"a.c": BASE["a.c"].replace("a.c 3\n", "A\n")}
    state = world.tree(BASE)
    twice = [world.change("first", BASE, after), world.change("second", BASE, after)]
    first, second = rethread(twice, state, world.blobs)
    assert (first.status, second.status, second.why) == (Status.EXACT, Status.EMPTY, "an earlier patch does all of it")


def test_blocked_by_requirement_and_by_lines() -> None:
    world = World()
    one_, two = BASE["a.c"].replace("a.c 3\n", "A\n"), BASE["a.c"].replace("a.c 3\n", "A2\n")
    far = two.replace("a.c 20\n", "far\n")
    changes = [
        world.change("first", BASE, BASE | {"a.c": one_}),
        world.change("on-its-lines", BASE | {"a.c": one_}, BASE | {"a.c": two}),
        world.change("elsewhere", BASE | {"a.c": two}, BASE | {"a.c": far}),
        world.change("needs-first", BASE, BASE | {"b.c": "B\n"}, requires=("first",)),
        world.change("needs-that", BASE, BASE | {"dir/c.h": "C\n"}, requires=("needs-first",)),
    ]
    now = BASE | {"a.c": BASE["a.c"].replace("a.c 3\n", "upstream\n")}
    state = world.tree(now)
    outcomes = rethread(changes, state, world.blobs, keep_going=True)
    assert [(o.id, o.status, o.blockers) for o in outcomes] == [
        ("first", Status.CONFLICT, ()),
        ("on-its-lines", Status.BLOCKED, ("first",)),
        ("elsewhere", Status.MERGED, ()),
        ("needs-first", Status.BLOCKED, ("first",)),
        ("needs-that", Status.BLOCKED, ("needs-first",)),
    ]
    assert world.texts(state) == now | {"a.c": now["a.c"].replace("a.c 20\n", "far\n")}
    assert len(rethread(changes, world.tree(now), world.blobs)) == 1


EDITS = st.lists(st.tuples(st.sampled_from(sorted(BASE)), st.integers(0, 29), st.sampled_from("ABC")), max_size=5)


def edited(files: dict[str, str], edits: list[tuple[str, int, str]], tag: str) -> dict[str, str]:
    out = {name: text.splitlines(keepends=True) for name, text in files.items()}
    for name, line, word in edits:
        if line < len(out[name]):
            out[name][line] = f"{tag} {word} {line}\n"
    return {name: "".join(lines) for name, lines in out.items()}


@given(st.lists(EDITS, max_size=5), EDITS)
@settings(deadline=None, max_examples=60)
def test_random_series(series: list[list[tuple[str, int, str]]], upstream: list[tuple[str, int, str]]) -> None:
    """At home every patch is exact (or empty) and the result is the series' own; elsewhere a change is either there
    whole, upstream's lines untouched, or the patch is not carried at all."""
    world = World()
    states = [BASE]
    for number, edits in enumerate(series):
        states.append(edited(states[-1], edits, f"patch {number}"))
    changes = [world.change(f"p{n}", *pair) for n, pair in enumerate(pairwise(states))]
    home = world.tree(BASE)
    assert {o.status for o in rethread(changes, home, world.blobs)} <= {Status.EXACT, Status.EMPTY}
    assert world.texts(home) == states[-1]
    now = edited(BASE, upstream, "upstream")
    there = world.tree(now)
    outcomes = rethread(changes, there, world.blobs, keep_going=True)
    carried = {o.id for o in outcomes if o.carried}
    # By hand: the edits of the patches that were carried, on upstream's files; lines never move in this test.
    want = now
    for number, edits in enumerate(series):
        if f"p{number}" in carried:
            want = edited(want, edits, f"patch {number}")
    assert world.texts(there) == want
    assert [o.before for o in outcomes[1:]] == [o.after for o in outcomes[:-1]]
