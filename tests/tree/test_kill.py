"""SIGKILL at any point: the next command finds the old state or the new one, whole, and `verify` agrees.

Two ways. The first walks through every step of a move: a forked child kills itself before its n-th step, for each n
until it survives. The second lets real processes run and kills their whole group, git included, at random times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamapatch.cli.main import main
from llamapatch.git import Git
from llamapatch.tree import worktree
from tests.project import Project, git

# Where a step of a move happens: every git process, every file written, removed or renamed.
STEPS: list[tuple[Any, str]] = [
    (Git, "run_bytes"),
    (Path, "replace"),
    (Path, "rename"),
    (Path, "unlink"),
    (Path, "write_bytes"),
    (worktree, "_write"),
    (worktree, "_remove"),
]


def killed_before(step: int, words: list[str], code: int = 0) -> bool:
    """Run the command line in a forked child that dies before (odd: after) its n-th step; whether it died. One that
    lives must end with `code`."""
    child = os.fork()
    if child == 0:
        count = 0

        def watch(original: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = original(*args, **kwargs)
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return wrapped

        for owner, name in STEPS:
            setattr(owner, name, watch(getattr(owner, name)))
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        os._exit(int(main(words)))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == code
    return False


def whole(project: Project, allowed: list[list[str]]) -> None:
    """The state is one of `allowed`, refs and disk agree, `verify` passes, and git finds every object."""
    result = project.run("verify")
    assert result.code == 0, result.err
    assert project.applied() in allowed
    if project.patched.exists():
        assert project.disk_tree() == project.applied_tree()
    assert project.run("status").out.count("clean") == (1 if project.applied() else 0)
    git(project.store, "fsck", "--strict", "--no-dangling", "--connectivity-only")


@pytest.mark.parametrize(
    ("start", "words", "old", "new"),
    [
        (["apply", "sampler"], ["apply", "phase2"], ["foundation", "sampler"], ["foundation", "warps", "warps-more"]),
        (["apply"], ["rollback"], ["foundation", "sampler", "warps", "warps-more"], []),
    ],
    ids=["apply", "rollback"],
)
@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_killed_during_a_move(
    sampler: Project,
    monkeypatch: pytest.MonkeyPatch,
    start: list[str],
    words: list[str],
    old: list[str],
    new: list[str],
    stride: int,
) -> None:
    monkeypatch.setattr("llamapatch.tree.store.STALE_SECONDS", 0.05)
    monkeypatch.chdir(sampler.root)
    assert sampler.run(*start).code == 0
    seen = set()
    step = 0
    while True:
        step += stride
        if not killed_before(step, words):
            break
        whole(sampler, [old, new])
        seen.add(tuple(sampler.applied()))
        assert sampler.run(*start).code == 0
        assert sampler.applied() == old
    assert seen == {tuple(old), tuple(new)}
    assert step > 60
    whole(sampler, [new])


def test_killed_during_the_first_checkout(
    make_project: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty folder: no store, no objects, no worktree."""
    monkeypatch.setattr("llamapatch.tree.store.STALE_SECONDS", 0.05)
    new = ["foundation", "sampler", "warps", "warps-more"]
    step, died = 0, True
    while died:
        # Some steps only: a fresh project costs more than a move.
        step += 5
        project = make_project(f"p{step}")
        project.fill()
        subprocess.run(["rm", "-rf", project.state], check=True)
        monkeypatch.chdir(project.root)
        died = killed_before(step, ["apply"])
        whole(project, [[], new])
        assert project.run("apply").code == 0
        whole(project, [new])


def test_killed_at_random_times_with_its_children(sampler: Project) -> None:
    """Real processes, killed with the gits they started, in a loop of changing states."""
    kill_loop(sampler, rounds=12)


@pytest.mark.slow
def test_killed_at_random_times_for_minutes(sampler: Project) -> None:
    kill_loop(sampler, rounds=300)


def kill_loop(project: Project, rounds: int) -> None:
    rng = random.Random(20260304)
    states = {
        "": [],
        "sampler": ["foundation", "sampler"],
        "phase2": ["foundation", "warps", "warps-more"],
        "all": ["foundation", "sampler", "warps", "warps-more"],
    }
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    now: list[str] = []
    killed = 0
    for _ in range(rounds):
        word, wanted = rng.choice(list(states.items()))
        words = ["apply", word] if word else ["rollback"]
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "llamapatch", *words],
            cwd=project.root,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # From before the first git process to past the end of a quick machine's run.
        pause = rng.uniform(0.02, 0.4)
        try:
            process.wait(timeout=pause)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        assert time.monotonic() - started < 60
        whole(project, [now, wanted])
        now = project.applied()
    assert killed > 0
