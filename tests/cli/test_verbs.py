"""The verbs as a user meets them: whole outputs, JSON, help."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project, git


def data(project: Project, *words: str) -> Any:
    result = project.run(*words, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_list(sampler: Project) -> None:
    sampler.patch("fixed", "phase1", edit={"x": "y\n"})
    sampler.phases["phase3"] = []
    sampler.write_series()
    sampler.run("lock")
    sampler.run("apply", "sampler")
    result = sampler.run("list")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "phase0  Title of phase0\n"
        "  foundation  equivalent  applied  Title of foundation\n"
        "phase1  Title of phase1\n"
        "  sampler     equivalent  applied  Title of sampler\n"
        "  fixed       equivalent  -        Title of fixed\n"
        "phase2  Title of phase2\n"
        "  warps       equivalent  -        Title of warps\n"
        "  warps-more  equivalent  -        Title of warps-more\n"
        "phase3  Title of phase3\n"
        "  (no patch yet)\n"
    )
    found = data(sampler, "list")
    assert found["upstream"] == {"version": "v0.5.0", "tree": sampler.base_tree}
    assert found["phases"][1]["patches"][0] == {
        "applied": True,
        "effect": "equivalent",
        "id": "sampler",
        "phase": "phase1",
        "switch": "",
        "title": "Title of sampler",
    }


def test_list_and_status_need_neither_upstream_nor_a_store(sampler: Project) -> None:
    shutil.rmtree(sampler.state)
    shutil.rmtree(sampler.upstream)
    assert sampler.run("list").code == 0
    assert sampler.run("show", "warps").code == 0
    assert sampler.run("status").out.endswith("applied   nothing\n")
    assert not sampler.state.exists()


def test_status(sampler: Project) -> None:
    base = f"base      llama.cpp v0.5.0, tree {sampler.base_tree}\n"
    chain = "375975544519"
    series = f"series    {chain}, lock current ({sampler.root}/patches)\n"
    assert sampler.run("status").out == base + series + "applied   nothing\n"
    sampler.run("apply", "sampler")
    sampler.folder("sampler")
    assert sampler.run("status").out == (
        base + series + "applied   foundation, sampler\n"
        "          exact: the tree that series.lock proves\n"
        "commit    a95f43097f40a4ce36332e4a3931e0b038022386\n"
        f"worktree  {sampler.patched}: clean\n"
    )
    sampler.run("apply", "warps")
    (sampler.patched / "src/mmvq.cpp").write_text("edit")
    (sampler.patched / "src/mine.cpp").write_text("new")
    (sampler.patched / "README.md").unlink()
    result = sampler.run("status")
    assert "          merged: a subset, merged three ways; not proven by series.lock\n" in result.out
    assert result.out.endswith(
        f"worktree  {sampler.patched}: edited src/mmvq.cpp; untracked src/mine.cpp; deleted README.md\n"
    )
    found = data(sampler, "status")
    assert found["worktree"]["edited"] == ["src/mmvq.cpp"]
    assert found["worktree"]["untracked"] == ["src/mine.cpp"]
    assert found["applied"]["how"] == "merged"


def test_status_of_a_series_that_moved_on(sampler: Project) -> None:
    sampler.run("apply")
    kernel = sampler.root / "ggml_kernels/sampler/sampler.cpp"
    kernel.write_text("void sample() { faster(); }\n")
    out = sampler.run("status").out
    assert "lock out of date" in out
    assert "stale: the series has changed since; run `llamapatch apply` again" in out
    assert sampler.run("apply").code == 4
    sampler.run("lock")
    assert "stale" in sampler.run("status").out
    assert sampler.run("apply").code == 0
    assert "exact" in sampler.run("status").out
    (sampler.root / "patches/series.lock").unlink()
    assert "lock missing" in sampler.run("status").out


def test_show(sampler: Project) -> None:
    result = sampler.run("show", "warps")
    locked = sampler.series().lock.patches[2]  # type: ignore[union-attr]
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "patch       warps\n"
        "title       Title of warps\n"
        "phase       phase2\n"
        "authors     Ada <ada@localhost>\n"
        "date        2026-03-04\n"
        "paper       -\n"
        "requires    foundation\n"
        "required by warps-more\n"
        "conflicts   -\n"
        "upstream    never: a test\n"
        "effect      equivalent (cpu)\n"
        "switch      none\n"
        "file        M src/mmvq.cpp\n"
        "file        A src/new.cpp\n"
        "file        D src/old.cpp\n"
        "file        M src/sampling.cpp\n"
        "hunk        src/mmvq.cpp:19  int launch(int n) {\n"
        "hunk        src/new.cpp:1\n"
        "hunk        src/old.cpp:1\n"
        "hunk        src/sampling.cpp:31  sample();\n"
        f"tree        {sampler.trees['warps']}\n"
        "commit      9aad986290e75861f7920dbf022958504173c130\n"
        f"chain       {locked.chain}\n"
        f"diff        {locked.diff}\n"
        f"meta        {locked.meta}\n"
    )
    diff = sampler.run("show", "warps", "--diff")
    assert diff.out.encode() == (sampler.folder("warps") / "change.patch").read_bytes()
    found = data(sampler, "show", "sampler", "--diff")
    assert found["meta"]["requires"] == ["foundation"]
    assert found["overlay"] == dict(sampler.series().lock.patches[1].overlay)  # type: ignore[union-attr]
    assert found["diff"].startswith("diff --git a/src/sampling.cpp")
    (sampler.root / "patches/series.lock").unlink()
    assert "lock        not current; run `llamapatch lock`\n" in sampler.run("show", "sampler").out


def test_apply_and_rollback_as_data(sampler: Project) -> None:
    found = data(sampler, "apply", "phase1")
    assert found == {
        "schema": 1,
        "dry_run": False,
        "asked": ["sampler"],
        "pulled_in": ["foundation"],
        "left_out": [],
        "before": [],
        "applied": ["foundation", "sampler"],
        "added": ["foundation", "sampler"],
        "removed": [],
        "how": "exact",
        "tree": sampler.trees["sampler"],
        "commit": "a95f43097f40a4ce36332e4a3931e0b038022386",
        "worktree": str(sampler.patched),
        "files": 14,
    }
    again = data(sampler, "apply", "phase1")
    assert (again["files"], again["added"], again["removed"]) == (0, [], [])
    found = data(sampler, "rollback", "foundation")
    assert (found["asked"], found["dependents"], found["applied"]) == (["foundation"], ["sampler"], [])
    assert found["tree"] == sampler.base_tree


def test_verify(sampler: Project) -> None:
    sampler.run("apply", "sampler")
    result = sampler.run("verify")
    chain = sampler.series().lock.patches[-1].chain  # type: ignore[union-attr]
    trees = sampler.trees
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        f"ok  tree {trees['foundation']}  after foundation\n"
        f"ok  tree {trees['sampler']}  after sampler\n"
        f"ok  tree {trees['warps']}  after warps\n"
        f"ok  tree {trees['warps-more']}  after warps-more\n"
        f"ok  series.lock, chain {chain}\n"
        "ok  applied: foundation, sampler (exact)\n"
        f"ok  worktree patched, every file, tree {trees['sampler']}\n"
    )
    found = data(sampler, "verify")
    assert found["worktrees"] == [{"name": "patched", "tree": trees["sampler"]}]


def test_verify_reads_every_file(sampler: Project) -> None:
    """A change that stat cannot see: same size, same times (of the index's record too)."""
    sampler.run("apply", "sampler")
    path = sampler.patched / "src/common.h"
    path.write_text("#pragma twice")
    git(sampler.patched, "--git-dir", str(sampler.store), "--work-tree", str(sampler.patched), "hash-object", str(path))
    actual = sampler.disk_tree()
    result = sampler.run("verify")
    assert (result.code, result.out) == (4, "")
    assert result.err == (
        f"error: {sampler.patched} has tree {actual}, expected {sampler.trees['sampler']}; these files differ: "
        "src/common.h. Move your edits away (or remove that folder) and run `llamapatch apply` with your selection "
        "again.\n"
    )


def test_init_copies_the_series(sampler: Project, tmp_path: Path) -> None:
    (sampler.root / "ggml_kernels/build-x").mkdir()
    (sampler.root / "ggml_kernels/build-x/junk.o").write_text("junk")
    (sampler.root / "templates").mkdir()
    (sampler.root / "templates/t.j2").write_text("t")
    target = tmp_path / "deep" / "copy"
    result = sampler.run("init", str(target), "--dry-run")
    assert (result.code, target.exists()) == (0, False)
    result = sampler.run("init", str(target))
    assert result.out == f"made patches, templates, ggml_kernels, llamapatch.toml in {target}\n"
    assert sorted(p.name for p in target.iterdir()) == ["ggml_kernels", "llamapatch.toml", "patches", "templates"]
    assert not (target / "ggml_kernels/build-x").exists()
    assert (target / "patches/series.lock").read_bytes() == (sampler.root / "patches/series.lock").read_bytes()
    again = sampler.run("init", str(target))
    assert again.code == 5
    assert again.err == (
        f"error: {target} already has patches, templates, ggml_kernels, llamapatch.toml. Choose another folder, or "
        "move these away; `init` never overwrites.\n"
    )


def test_init_empty(sampler: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "empty"
    assert sampler.run("init", str(target), "--empty").code == 0
    assert sorted(p.name for p in target.iterdir()) == ["ci", "ggml_kernels", "llamapatch.toml", "patches", "templates"]
    fresh = Project.__new__(Project)
    fresh.root, fresh.capsys = target, sampler.capsys
    assert fresh.run("list").out == "phase1  First phase\n  (no patch yet)\n"
    monkeypatch.setenv("LLAMAPATCH_UPSTREAM", str(sampler.upstream))
    result = fresh.run("lock")
    assert result.code == 0, result.err
    assert fresh.run("verify").code == 0
    assert fresh.run("apply").code == 2


def test_the_packaged_series_cannot_be_locked(sampler: Project, tmp_path: Path) -> None:
    """A folder without patches/ uses the series that came with the tool."""
    empty = Project.__new__(Project)
    (tmp_path / "nothing").mkdir()
    empty.root, empty.capsys = tmp_path / "nothing", sampler.capsys
    result = empty.run("lock")
    assert (result.code, result.out) == (2, "")
    assert "is the one that came with llamapatch" in result.err
    assert "Run `llamapatch init DIR` for a copy of your own" in result.err


@pytest.mark.parametrize("verb", ["list", "show", "status", "apply", "rollback", "verify", "lock", "init"])
def test_every_verb_has_help_and_json(project: Project, verb: str) -> None:
    result = project.run(verb, "--help")
    assert result.code == 0
    assert "--json" in result.out
    assert ("--dry-run" in result.out) == (verb in ("apply", "rollback", "lock", "init"))


def test_as_a_process(sampler: Project) -> None:
    """`python -m llamapatch`: exit code, nothing but data on stdout, talk on stderr, a closed pipe is no traceback."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", "llamapatch", "apply", "sampler", "--json"],
        cwd=sampler.root,
        env=env,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["applied"] == ["foundation", "sampler"]
    assert done.stderr == b"pulled in: foundation (required)\n"
    piped = subprocess.run(
        f"{sys.executable} -m llamapatch list | true",
        shell=True,
        cwd=sampler.root,
        env=env,
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in piped.stderr
