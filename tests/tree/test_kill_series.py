"""SIGKILL at any point of what changes the series: files, applied state and worktree are all old or all new.

The same two ways as in `test_kill`: a walk through every step, and real processes at random times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import Project
from tests.tree.test_kill import killed_before, whole
from tests.tree.test_write import snapshot

ALL = ["foundation", "sampler", "warps", "warps-more"]
State = tuple[dict[str, tuple[bytes, int]], list[str]]


def state(project: Project) -> State:
    """What must never be a mixture. A change that was interrupted is finished or undone by whatever runs next."""
    result = project.run("list")
    assert result.code == 0, result.err
    assert not project.settings().intent.exists()
    left = [p for p in project.root.rglob("*") if p.name.endswith(".llamapatch") and p != project.state]
    assert left == []
    return snapshot(project), project.applied()


def prepare_refresh(project: Project) -> None:
    assert project.run("edit", "sampler").code == 0
    path = project.patched / "src/sampling.cpp"
    path.write_text(path.read_text().replace("// line 3\n", "// line three\n"))
    (project.patched / "lp/sampler.cpp").write_text("void sample() { work(); }\n")


def prepare_undo(project: Project) -> None:
    assert project.run("drop", "sampler").code == 0


WALKS = {
    "refresh": (prepare_refresh, ["refresh"], "undo"),
    "drop": (None, ["drop", "warps-more"], "undo"),
    "move": (None, ["move", "sampler", "--after", "warps-more"], "undo"),
    "undo": (prepare_undo, ["undo"], "redo"),
    "edit": (None, ["edit", "sampler"], "undo"),
    "lock": (None, ["lock"], "undo"),
}


@pytest.mark.parametrize("verb", list(WALKS))
@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_killed_at_every_step(sampler: Project, monkeypatch: pytest.MonkeyPatch, verb: str, stride: int) -> None:
    monkeypatch.setattr("llamapatch.tree.store.STALE_SECONDS", 0.05)
    monkeypatch.chdir(sampler.root)
    prepare, words, back = WALKS[verb]
    assert sampler.run("apply").code == 0
    if verb == "lock":  # a lock that has something to write
        text = sampler.folder("warps-more") / "patch.toml"
        text.write_text(text.read_text().replace("Title of warps-more", "Another title"))
    if prepare is not None:
        prepare(sampler)
    old = state(sampler)
    dirty = sampler.disk_tree()
    seen: list[State] = []
    step = 0
    while True:
        step += stride
        if not killed_before(step, words):
            break
        now = state(sampler)
        if now == old:
            # Nothing was decided: the worktree and the edits in it are as they were.
            assert sampler.disk_tree() == dirty
            seen += [now] if now not in seen else []
            continue
        if verb != "lock":
            whole(sampler, [now[1]])
        seen += [now] if now not in seen else []
        assert sampler.run(back).code == 0
        if verb == "refresh":  # undo takes the edits out of the worktree; put them back for the next round
            assert state(sampler) == old
            prepare_refresh_again(sampler)
        assert state(sampler) == old
    new = state(sampler)
    assert new != old
    assert all(one in (old, new) for one in seen)
    assert seen[0] == old
    assert stride > 1 or seen == [old, new]
    if verb == "lock":  # what is applied was made of the series as it was before the edit
        assert sampler.run("apply").code == 0
    assert sampler.run("verify").code == 0


def prepare_refresh_again(project: Project) -> None:
    path = project.patched / "src/sampling.cpp"
    path.write_text(path.read_text().replace("// line 3\n", "// line three\n"))
    (project.patched / "lp/sampler.cpp").write_text("void sample() { work(); }\n")


def test_killed_at_random_times(sampler: Project) -> None:
    random_kills(sampler, rounds=10)


@pytest.mark.slow
def test_killed_at_random_times_for_minutes(sampler: Project) -> None:
    random_kills(sampler, rounds=200)


def random_kills(project: Project, rounds: int) -> None:
    rng = random.Random(20261125)
    assert project.run("apply").code == 0
    states = {"all": state(project)}
    ways = {"drop": ["drop", "sampler"], "move": ["move", "sampler", "--after", "warps-more"]}
    for name, words in ways.items():
        assert project.run(*words).code == 0
        states[name] = state(project)
        assert project.run("undo").code == 0
        assert state(project) == states["all"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    now, killed = "all", 0
    for _ in range(rounds):
        wanted = rng.choice(list(ways)) if now == "all" else "all"
        process = subprocess.Popen(
            [sys.executable, "-m", "llamapatch", *(ways[wanted] if now == "all" else ["undo"])],
            cwd=project.root,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(timeout=rng.uniform(0.3, 1.2))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        found = state(project)
        assert found in (states[now], states[wanted])
        whole(project, [found[1]])
        now = next(name for name, one in states.items() if one == found)
    assert killed > 0
