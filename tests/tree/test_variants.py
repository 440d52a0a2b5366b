"""Variants: what gets built and measured, without disturbing what is applied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamapatch.errors import DirtyError, MismatchError, UsageProblem
from llamapatch.series.select import select
from llamapatch.tree.variants import Variant, applied_variant, base_variant, in_use, selected_variant
from tests.project import Project, git
from tests.tree.test_write import snapshot

COMMIT = "a95f43097f40a4ce36332e4a3931e0b038022386"


def test_base(sampler: Project) -> None:
    found = base_variant(sampler.settings(), sampler.series())
    commit = git(sampler.store, "rev-parse", "refs/llamapatch/base")
    path = sampler.state / "trees/base"
    assert found == Variant("base", (), commit, sampler.base_tree, path, "v0.5.0")
    assert sampler.disk_tree(path) == sampler.base_tree
    assert sampler.applied() == []
    assert not sampler.patched.exists()
    inode = (path / "README.md").stat().st_ino
    assert base_variant(sampler.settings(), sampler.series()) == found
    assert (path / "README.md").stat().st_ino == inode
    (path / "README.md").write_text("edit")
    with pytest.raises(DirtyError, match=r"trees/base has files that are not part of the series: README\.md"):
        base_variant(sampler.settings(), sampler.series())


def test_applied(sampler: Project) -> None:
    with pytest.raises(UsageProblem, match="nothing is applied"):
        applied_variant(sampler.settings(), sampler.series())
    sampler.run("apply", "sampler")
    found = applied_variant(sampler.settings(), sampler.series())
    assert found == Variant(
        "patched",
        ("foundation", "sampler"),
        COMMIT,
        sampler.trees["sampler"],
        sampler.patched,
        "v0.5.0+lp.a95f43097f40",
    )
    sampler.run("rollback")
    with pytest.raises(UsageProblem):
        applied_variant(sampler.settings(), sampler.series())


def test_applied_from_a_series_that_moved_on(sampler: Project) -> None:
    """A report must not name patches that are not what was built."""
    sampler.run("apply", "sampler")
    (sampler.root / "ggml_kernels/sampler/sampler.cpp").write_text("void sample() { faster(); }\n")
    with pytest.raises(MismatchError, match=r"series\.lock"):
        applied_variant(sampler.settings(), sampler.series())
    sampler.run("lock")
    with pytest.raises(MismatchError, match="the series has changed since it was applied"):
        applied_variant(sampler.settings(), sampler.series())


def test_selected(sampler: Project) -> None:
    sampler.run("apply", "sampler")
    before = git(sampler.store, "rev-parse", "refs/llamapatch/applied")
    settings, series = sampler.settings(), sampler.series()
    same = selected_variant(settings, series, select(series, ["phase1"]))
    assert (same.name, same.path) == ("patched", sampler.patched)
    one = selected_variant(settings, series, select(series, ["warps"]))
    assert (one.name, one.ids) == ("warps", ("foundation", "warps"))
    assert one.label == f"v0.5.0+lp.{one.commit[:12]}"
    assert sampler.disk_tree(one.path) == one.tree
    many = selected_variant(settings, series, select(series, ["phase2", "sampler"]))
    assert many.name == f"sel-{many.commit[:12]}"
    assert many.tree == sampler.trees["warps-more"]
    assert git(sampler.store, "rev-parse", "refs/llamapatch/applied") == before
    assert sampler.disk_tree() == sampler.trees["sampler"]
    result = sampler.run("verify")
    assert result.code == 0, result.err
    assert result.out.count("ok  worktree") == 3


def test_a_selected_worktree_follows_its_patch(sampler: Project) -> None:
    """The worktree named after a patch moves with it; files that stay keep their times."""
    settings = sampler.settings()
    first = selected_variant(settings, sampler.series(), select(sampler.series(), ["sampler"]))
    kept = (first.path / "src/mmvq.cpp").stat().st_mtime_ns
    (sampler.root / "ggml_kernels/sampler/sampler.cpp").write_text("void sample() { faster(); }\n")
    sampler.run("lock")
    series = sampler.series()
    second = selected_variant(settings, series, select(series, ["sampler"]))
    assert second.path == first.path
    assert second.commit != first.commit
    assert (second.path / "lp/sampler.cpp").read_text() == "void sample() { faster(); }\n"
    assert (second.path / "src/mmvq.cpp").stat().st_mtime_ns == kept


def test_a_tree_that_is_being_built_stays_as_it_is(sampler: Project) -> None:
    """Whatever would move it says who builds, and changes nothing; when the builder dies, nothing is in the way."""
    assert sampler.run("apply").code == 0
    assert sampler.run("edit", "sampler").code == 0
    (sampler.patched / "lp/sampler.cpp").write_text("void sample() { work(); }\n")
    code = (
        "import sys; from pathlib import Path\n"
        "from llamapatch.config import load_settings; from llamapatch.locks import working_as\n"
        "from llamapatch.tree.variants import Variant, in_use\n"
        "working_as('build patched')\n"
        "settings = load_settings(Path(sys.argv[1]))\n"
        "v = Variant('patched', (), sys.argv[2], '', settings.state / 'trees' / 'patched', '')\n"
        "with in_use(settings, v): print('held', flush=True); sys.stdin.read()\n"
    )
    commit = git(sampler.store, "rev-parse", "refs/llamapatch/applied")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", code, str(sampler.root), commit]
    before = snapshot(sampler), sampler.applied(), sampler.disk_tree(), sampler.run("log").out
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "held\n"
        said = f"error: a build of this tree is running, pid {builder.pid} (`build patched`, pid {builder.pid} on "
        for verb in (["refresh"], ["undo"], ["edit", "--abort"]):
            result = sampler.run(*verb)
            assert result.code == 5, (verb, result)
            assert result.err.startswith(said)
            assert (snapshot(sampler), sampler.applied(), sampler.disk_tree(), sampler.run("log").out) == before
        (sampler.patched / "lp/sampler.cpp").write_text("void sample() {}\n")
        for verb in (["apply"], ["rollback"], ["edit", "--done"], ["edit", "warps"]):
            result = sampler.run(*verb)
            assert result.code == 5, (verb, result)
            assert result.err.startswith(said)
            assert sampler.applied() == ["foundation", "sampler"]
        # Nothing moves: nothing is in the way.
        assert sampler.run("edit", "sampler").code == 0
        assert sampler.run("verify").code == 0
        builder.kill()
    assert sampler.run("edit", "--done").code == 0
    assert list((sampler.state / "in-use" / "patched").iterdir()) == []


def test_a_tree_that_moved_is_not_built(sampler: Project) -> None:
    settings = sampler.settings()
    assert sampler.run("apply").code == 0
    variant = applied_variant(settings, sampler.series())
    assert sampler.run("apply", "sampler").code == 0
    with pytest.raises(DirtyError, match="was moved by another process meanwhile"), in_use(settings, variant):
        raise AssertionError
