"""Bad input and bad luck: the documented exit code, one paragraph on stderr, nothing on stdout, nothing lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamapatch.tree import worktree
from tests.project import Project, git, make_upstream


def refused(project: Project, code: int, *words: str) -> str:
    """Run `words`, which must fail with `code` and leave refs and worktree as they were."""
    before = git(project.store, "for-each-ref") if project.store.is_dir() else ""
    disk = project.disk_tree() if project.patched.is_dir() else ""
    result = project.run(*words)
    assert result.code == code, result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if not line.startswith("pulled in:")]
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert (git(project.store, "for-each-ref") if project.store.is_dir() else "") == before
    assert (project.disk_tree() if project.patched.is_dir() else "") == disk
    return result.err


@pytest.mark.parametrize(
    "words", [("apply", "phase9"), ("rollback", "phase9"), ("show", "phase9"), ("apply", "--without", "x")]
)
def test_unknown_names(sampler: Project, words: tuple[str, ...]) -> None:
    sampler.run("apply", "sampler")
    assert "phase9" in refused(sampler, 2, *words) or "`x`" in refused(sampler, 2, *words)


def test_unknown_options_and_verbs(sampler: Project) -> None:
    for words in (("apply", "--fuzz"), ("appply",), ("show",)):
        result = sampler.run(*words)
        assert (result.code, result.out) == (2, "")
        assert "Traceback" not in result.err


def test_wrong_upstream_tree(sampler: Project, tmp_path: Path) -> None:
    """Exit 4 with both hashes, even when the store could do without upstream."""
    other = make_upstream(tmp_path / "other", {"README.md": "# another version\n"})
    tree = git(other, "rev-parse", "HEAD^{tree}")
    sampler.run("apply", "foundation")
    message = refused(sampler, 4, "apply", "--upstream", str(other))
    assert tree in message
    assert sampler.base_tree in message


def test_no_upstream_at_all(sampler: Project, tmp_path: Path) -> None:
    refused(sampler, 2, "apply", "--upstream", str(tmp_path / "nowhere"))


def test_no_lock_and_a_stale_lock(sampler: Project) -> None:
    sampler.run("apply", "foundation")
    path = sampler.folder("sampler") / "change.patch"
    path.write_text(path.read_text().replace("+sample();", "+sample(1);"))
    message = refused(sampler, 4, "apply")
    locked = sampler.series().lock.patches[1].diff  # type: ignore[union-attr]
    assert message.startswith(
        f"error: patch `sampler`: change.patch is not what series.lock says: expected {locked}, found "
    )
    assert refused(sampler, 4, "verify").startswith("error: patch `sampler`")
    (sampler.root / "patches/series.lock").unlink()
    assert refused(sampler, 2, "apply") == (
        f"error: {sampler.root}/patches/series.lock does not exist. Run `llamapatch lock`.\n"
    )


def test_a_lock_that_was_edited(sampler: Project) -> None:
    sampler.run("apply", "foundation")
    path = sampler.root / "patches/series.lock"
    path.write_text(path.read_text().replace(sampler.trees["sampler"], "1" * 40))
    message = refused(sampler, 4, "apply", "sampler")
    assert f"tree is not what series.lock says: expected {'1' * 40}, found {sampler.trees['sampler']}." in message


def test_a_hunk_in_another_place(sampler: Project) -> None:
    """`git apply` would take this with an offset; we do not, and say which line differs."""
    path = sampler.folder("sampler") / "change.patch"
    path.write_text(path.read_text().replace("@@ -8,6 +8,7 @@", "@@ -9,6 +9,7 @@"))
    subprocess.run(["git", "apply", "--check", str(path)], cwd=sampler.upstream, check=True)
    message = refused(sampler, 4, "lock")
    assert (
        "src/sampling.cpp, hunk 1 does not match at line 9: the tree has `// line 9`, the patch expects `// line 8`"
        in (message)
    )


def test_malformed_diffs(sampler: Project) -> None:
    path = sampler.folder("sampler") / "change.patch"
    path.write_text("Subject: [PATCH] x\n\n" + path.read_text())
    assert refused(sampler, 2, "lock").startswith(f"error: {path}, line 1: expected `diff --git a/PATH b/PATH`")


def test_overlay_target_that_upstream_has(sampler: Project) -> None:
    meta = sampler.folder("sampler") / "patch.toml"
    meta.write_text(meta.read_text().replace('to = "lp/sampler.cpp"', 'to = "src/common.h"'))
    assert "overlay target `src/common.h` already exists in the tree" in refused(sampler, 3, "lock")
    meta.write_text(meta.read_text().replace('to = "src/common.h"', 'to = "src"'))
    assert "`src` is a directory in the tree" in refused(sampler, 3, "lock")
    meta.write_text(meta.read_text().replace('to = "src"', 'to = "README.md/x.h"'))
    assert "`README.md` is a file in the tree" in refused(sampler, 3, "lock")


def test_a_diff_that_edits_an_overlay_file(sampler: Project) -> None:
    sampler.patch("late", replace={"lp/sampler.cpp": ("void sample() {}", "void sample() { x(); }")})
    message = refused(sampler, 2, "lock")
    assert "edits `lp/sampler.cpp`, an overlay file of `sampler`. Edit its source in ggml_kernels/ instead." in message


def test_a_store_that_is_none(sampler: Project) -> None:
    subprocess.run(["rm", "-rf", sampler.store], check=True)
    sampler.store.mkdir()
    (sampler.store / "mine").write_text("mine")
    result = sampler.run("apply")
    assert result.code == 5
    assert "exists but is no git repository" in result.err
    assert (sampler.store / "mine").read_text() == "mine"


def test_no_space_left(sampler: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills in the middle of a move: exit 1, and the next command completes it."""
    sampler.run("apply", "foundation")
    real = worktree._write
    calls = 0

    def full(target: Path, data: bytes, mode: str, aside: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        real(target, data, mode, aside)

    monkeypatch.setattr(worktree, "_write", full)
    result = sampler.run("apply")
    assert result.code == 1
    assert result.err.startswith("error: no space left on the disk of ")
    monkeypatch.setattr(worktree, "_write", real)
    assert sampler.run("verify").code == 0
    assert sampler.disk_tree() == sampler.applied_tree() == sampler.trees["warps-more"]


def test_ctrl_c_in_the_middle(sampler: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler.run("apply", "foundation")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worktree, "_remove", interrupted)
        result = sampler.run("apply")
    assert result.code == 130
    # click ends the line on which the terminal shows ^C.
    assert result.err == "\nerror: interrupted; nothing half-done was left behind.\n"
    assert sampler.run("verify").code == 0
    assert sampler.disk_tree() == sampler.applied_tree()


def test_ctrl_c_of_a_real_process(sampler: Project) -> None:
    """SIGINT to the whole group, as a terminal sends it, at several moments: 130, unless it came too late: then the
    work is done and said (a signal that meets an interpreter on its way out ends it at once)."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    codes = []
    for pause in (0.7, 0.85, 1.0, 1.2):
        sampler.run("rollback")
        process = subprocess.Popen(
            [sys.executable, "-c", "import llamapatch.cli.main as m; print('up', flush=True); m.entry()", "apply"],
            cwd=sampler.root,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause - 0.6)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert b"Traceback" not in err, err.decode()
        codes.append(process.returncode)
        if process.returncode != 130:
            assert process.returncode in (0, -signal.SIGINT)
            assert b"files written" in out
            assert sampler.applied() == list(sampler.series().ids)
        assert sampler.run("verify").code == 0
        assert sampler.applied() in ([], list(sampler.series().ids))
    assert 130 in codes
