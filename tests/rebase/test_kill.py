"""SIGKILL at any step of a rebase: the series is the old one or the new one, whole, and the same words finish the job."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.project import Project, git
from tests.rebase.toy import on_disk, parked, release
from tests.tree.test_kill import killed_before

STRIDES = [pytest.param(1, marks=pytest.mark.slow), 9]


def restore(project: Project, files: dict[str, bytes]) -> None:
    """The project as it was before, without a store."""
    subprocess.run(["rm", "-rf", project.state, project.root / "patches", project.root / "ggml_kernels"], check=True)
    for path, data in files.items():
        (project.root / path).parent.mkdir(parents=True, exist_ok=True)
        (project.root / path).write_bytes(data)


def settled(project: Project, allowed: list[dict[str, bytes]]) -> dict[str, bytes]:
    """The next verb finds one of the allowed series; nothing else is left in its folders."""
    result = project.run("verify")
    assert result.code == 0, result.err
    found = on_disk(project)
    assert found in allowed
    git(project.store, "fsck", "--strict", "--no-dangling", "--connectivity-only")
    return found


@pytest.mark.parametrize("stride", STRIDES)
def test_killed_during_a_clean_rebase(sampler: Project, monkeypatch: pytest.MonkeyPatch, stride: int) -> None:
    monkeypatch.setattr("llamapatch.tree.store.STALE_SECONDS", 0.05)
    monkeypatch.chdir(sampler.root)
    release(sampler, "v0.6.0", replace={"src/sampling.cpp": ("// line 3\n", "// line 3\n// line 3b\n")})
    old = on_disk(sampler)
    words = ["rebase", "--onto", "v0.6.0"]
    assert sampler.run(*words).code == 0
    new = on_disk(sampler)
    seen = []
    step = 0
    while True:
        restore(sampler, old)
        step += stride
        if not killed_before(step, words):
            break
        found = settled(sampler, [old, new])
        seen.append(found == new)
        if found == old:
            assert sampler.run("rebase", "--abort").code in (0, 2)
            again = sampler.run(*words)
            assert again.code == 0, again.err
        assert settled(sampler, [new]) == new
    assert settled(sampler, [new]) == new
    assert set(seen) == {False, True}


@pytest.mark.parametrize("stride", STRIDES)
def test_killed_while_parking_and_while_going_on(
    sampler: Project, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    """First the rebase that stops, then the `--continue` after a person settled it."""
    monkeypatch.setattr("llamapatch.tree.store.STALE_SECONDS", 0.05)
    monkeypatch.chdir(sampler.root)
    release(sampler, "v0.6.0", replace={"src/sampling.cpp": ("// line 30\n", "// line thirty\n")})
    old = on_disk(sampler)
    start, go_on = ["rebase", "--onto", "v0.6.0"], ["rebase", "--continue"]

    def settle() -> None:
        path = parked(sampler) / "src/sampling.cpp"
        text = path.read_text()
        if "<<<<<<< " in text:
            begin, end = text.index("<<<<<<< "), text.index(">>>>>>> warps\n") + len(">>>>>>> warps\n")
            path.write_text(text[:begin] + "// line thirty, warps\n" + text[end:])

    assert sampler.run(*start).code == 3
    settle()
    assert sampler.run(*go_on).code == 0
    new = on_disk(sampler)
    walk(
        sampler,
        start,
        stride,
        expect=3,
        before=lambda: restore(sampler, old),
        after=lambda: recover(sampler, old, start),
    )

    def stopped() -> None:
        restore(sampler, old)
        assert sampler.run(*start).code == 3
        settle()

    def finish() -> None:
        found = settled(sampler, [old, new])
        if found == old:
            result = sampler.run(*go_on)
            if result.code == 3:  # killed before anything was taken from the worktree, or parked anew
                settle()
                result = sampler.run(*go_on)
            assert result.code == 0, result.err
        assert settled(sampler, [new]) == new

    walk(sampler, go_on, stride, expect=0, before=stopped, after=finish)


def walk(
    project: Project,
    words: list[str],
    stride: int,
    *,
    expect: int,
    before: Callable[[], None],
    after: Callable[[], None],
) -> None:
    """Kill `words` before each step in turn until it survives."""
    step = 0
    while True:
        before()
        step += stride
        if not killed_before(step, words, expect):
            break
        after()
    assert step > 20


def recover(project: Project, old: dict[str, bytes], start: list[str]) -> None:
    """A rebase killed before it stopped: nothing changed, and whatever it left is taken up or given up."""
    settled(project, [old])
    result = project.run("rebase", "--continue")
    assert result.code in (2, 3), result.err
    if result.code == 2:
        assert "no rebase is under way" in result.err
        assert project.run(*start).code == 3
    assert "<<<<<<< upstream" in (parked(project) / "src/sampling.cpp").read_text()
    assert on_disk(project) == old
