"""Drop and move, judged by trees that git itself makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.project import Project, git
from tests.tree.test_write import snapshot

ALL = ["foundation", "sampler", "warps", "warps-more"]


def series_lines(project: Project) -> list[str]:
    return [i for p in project.series().file.phase for i in p.patches]


def test_drop_carries_the_rest_along(sampler: Project) -> None:
    assert sampler.run("apply").code == 0
    result = sampler.run("drop", "sampler")
    assert result.code == 0, result.err
    assert result.out == (
        "carried along  status  what happened\n"
        "warps          merged               \n"
        "warps-more     exact                \n"
        "dropped: sampler\n"
        "order: foundation, warps, warps-more\n"
        "applied: foundation, warps, warps-more\n"
    )
    assert not (sampler.root / "patches/phase1/sampler").exists()
    assert not (sampler.root / "ggml_kernels/sampler").exists()
    assert series_lines(sampler) == ["foundation", "warps", "warps-more"]
    # What git makes of it: the sampler's commit reverted on top.
    commit = git(sampler.witness, "log", "--format=%H", "--grep=^sampler$")
    git(sampler.witness, "revert", "--no-edit", commit)
    assert sampler.applied_tree() == git(sampler.witness, "rev-parse", "HEAD^{tree}")
    assert sampler.disk_tree() == sampler.applied_tree()
    assert sampler.run("verify").code == 0
    assert sampler.run("lock", "--check").code == 0
    assert sampler.run("check").code == 0


def test_drop_with_dependents(sampler: Project) -> None:
    before = snapshot(sampler)
    result = sampler.run("drop", "warps")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "error: `warps` is required by `warps-more`. Add `--with-dependents` to drop them too, or mend their `requires`.\n"
    )
    assert snapshot(sampler) == before
    result = sampler.run("drop", "warps", "--with-dependents", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["dropped"] == ["warps", "warps-more"]
    assert series_lines(sampler) == ["foundation", "sampler"]
    assert sampler.run("verify").code == 0


def test_drop_keeps_kernels_that_are_wanted_or_used(sampler: Project) -> None:
    text = sampler.folder("warps-more") / "patch.toml"
    text.write_text(text.read_text() + '[[overlay]]\nfrom = "sampler/sampler.cpp"\nto = "lp/again.cpp"\n')
    assert sampler.run("lock").code == 0
    (sampler.root / "ggml_kernels/sampler/test.c").write_text("a test\n")
    result = sampler.run("drop", "sampler")
    assert result.code == 0, result.err
    assert "kept: ggml_kernels/sampler/sampler.cpp (`warps-more` places it too)\n" in result.out
    assert (sampler.root / "ggml_kernels/sampler/sampler.cpp").exists()
    result = sampler.run("drop", "warps-more", "--keep-kernels")
    assert "kept: ggml_kernels/sampler/sampler.cpp (as asked)\n" in result.out
    assert sorted(p.name for p in (sampler.root / "ggml_kernels/sampler").iterdir()) == ["sampler.cpp", "test.c"]


def test_drop_of_what_others_build_on_is_a_conflict(sampler: Project) -> None:
    """`warps-more` edits the very line that `warps` makes, and no longer says so."""
    path = sampler.folder("warps-more") / "patch.toml"
    path.write_text(path.read_text().replace('requires = ["warps"]', "requires = []"))
    assert sampler.run("lock").code == 0
    assert sampler.run("apply").code == 0
    before = snapshot(sampler), sampler.applied(), sampler.disk_tree()
    result = sampler.run("drop", "warps")
    assert result.code == 3
    assert "warps-more     conflict" in result.out
    assert "<<<<<<< now" in result.out
    assert result.err == "error: `warps-more` cannot be carried along. Nothing was written by `drop`.\n"
    assert (snapshot(sampler), sampler.applied(), sampler.disk_tree()) == before
    data = json.loads(sampler.run("drop", "warps", "--json").out)
    assert [(c["id"], c["status"], c["stops"]) for c in data["carried"]] == [("warps-more", "conflict", True)]


def test_drop_of_an_unknown_patch(sampler: Project) -> None:
    assert sampler.run("drop", "nothing").code == 2


def test_move_over_a_neighbour_and_back(sampler: Project) -> None:
    assert sampler.run("apply").code == 0
    before, tree = snapshot(sampler), sampler.applied_tree()
    result = sampler.run("move", "sampler", "--after", "warps-more")
    assert result.code == 0, result.err
    assert series_lines(sampler) == ["foundation", "warps", "warps-more", "sampler"]
    assert sampler.applied() == ["foundation", "warps", "warps-more", "sampler"]
    assert sampler.applied_tree() == tree  # the same patches make the same tree
    assert sampler.disk_tree() == tree
    assert 'phase = "phase2"' in (sampler.root / "patches/phase2/sampler/patch.toml").read_text()
    assert not (sampler.root / "patches/phase1").exists()
    assert sampler.run("verify").code == 0
    assert sampler.run("check").code == 0
    assert sampler.run("move", "sampler", "--phase", "phase1").code == 0
    assert snapshot(sampler) == before
    assert sampler.applied() == ALL


def test_move_refuses_to_break_the_order(sampler: Project) -> None:
    before = snapshot(sampler)
    for words in (["warps-more", "--before", "warps"], ["foundation", "--after", "sampler"]):
        result = sampler.run("move", *words)
        assert (result.code, result.out) == (3, "")
        assert "which would come later. Choose a place that keeps the order." in result.err
    assert sampler.run("move", "sampler").code == 2
    assert sampler.run("move", "sampler", "--phase", "phase9").code == 2
    assert sampler.run("move", "sampler", "--before", "sampler").code == 2
    assert snapshot(sampler) == before


def test_move_of_dependent_lines_is_a_conflict(sampler: Project) -> None:
    path = sampler.folder("warps-more") / "patch.toml"
    path.write_text(path.read_text().replace('requires = ["warps"]', "requires = []"))
    assert sampler.run("lock").code == 0
    before = snapshot(sampler)
    result = sampler.run("move", "warps-more", "--before", "warps")
    assert result.code == 3
    assert snapshot(sampler) == before


@pytest.mark.parametrize("words", [["drop", "sampler"], ["move", "sampler", "--phase", "phase2"]])
def test_dry_run_and_dirty_worktree(sampler: Project, words: list[str]) -> None:
    assert sampler.run("apply").code == 0
    before = snapshot(sampler), sampler.applied(), sampler.run("log").out
    assert sampler.run(*words, "--dry-run").code == 0
    assert (snapshot(sampler), sampler.applied(), sampler.run("log").out) == before
    (sampler.patched / "src/old-notes.txt").write_text("mine\n")
    result = sampler.run(*words)
    assert result.code == 5
    assert "src/old-notes.txt" in result.err
    assert (snapshot(sampler), sampler.applied(), sampler.run("log").out) == before


def test_drop_the_last_patch_of_a_series(project: Project) -> None:
    project.patch("only", replace={"src/sampling.cpp": ("// line 3\n", "// line three\n")})
    assert project.run("lock").code == 0
    assert project.run("apply").code == 0
    result = project.run("drop", "only")
    assert result.code == 0, result.err
    assert project.applied() == []
    assert project.disk_tree() == project.base_tree
    assert project.run("undo").code == 0
    assert project.applied() == ["only"]


def test_names_with_spaces_and_umlauts(make_project: object, tmp_path: Path) -> None:
    project: Project = make_project("Pro j\u00e9kt")  # type: ignore[operator]
    project.fill()
    odd = project.folder("warps-more") / "n\u00f6 tes.md"
    odd.write_text("x")
    assert project.run("apply").code == 0
    before = snapshot(project)
    assert project.run("drop", "warps-more").code == 0
    assert not odd.exists()
    assert project.run("undo").code == 0
    assert snapshot(project) == before
    assert project.run("verify").code == 0
