"""Undo and redo: series files, applied state and worktree as they were, and nothing lost on the way."""

from __future__ import annotations

import json
import re

import pytest

from tests.project import Project, git
from tests.tree.test_write import snapshot

ALL = ["foundation", "sampler", "warps", "warps-more"]


def everything(project: Project) -> tuple[object, ...]:
    """All that an undo must restore."""
    disk = project.disk_tree() if project.patched.exists() else None
    return snapshot(project), project.applied(), disk


def test_undo_and_redo_of_applies(sampler: Project) -> None:
    assert sampler.run("apply", "sampler").code == 0
    one = everything(sampler)
    assert sampler.run("apply").code == 0
    two = everything(sampler)
    assert sampler.run("rollback", "warps").code == 0
    three = everything(sampler)

    result = sampler.run("undo")
    assert (result.code, result.err) == (0, "")
    assert result.out == f"undone: 4  rollback warps warps-more\napplied  {', '.join(ALL)}\n"
    assert everything(sampler) == two
    assert sampler.run("undo").code == 0
    assert everything(sampler) == one
    assert sampler.run("redo", "2").code == 0
    assert everything(sampler) == three
    assert sampler.run("undo", "2").code == 0
    assert everything(sampler) == one
    assert sampler.run("verify").code == 0
    git(sampler.store, "fsck", "--strict", "--no-dangling", "--connectivity-only")
    # Before the first apply there was nothing, and before `lock` no lock.
    assert sampler.run("undo").code == 0
    assert sampler.applied() == []
    assert sampler.disk_tree() == sampler.base_tree
    assert sampler.run("undo").code == 0
    assert not (sampler.root / "patches/series.lock").exists()
    result = sampler.run("undo")
    assert (result.code, result.err) == (2, "error: there is nothing to undo. See `llamapatch log`.\n")
    assert sampler.run("redo", "9").err == "error: only 4 changes can be redone. See `llamapatch log`.\n"
    assert sampler.run("redo", "4").code == 0
    assert everything(sampler) == three


def test_log(sampler: Project) -> None:
    sampler.run("apply", "sampler")
    sampler.run("apply", "foundation")
    sampler.run("undo")
    sampler.run("apply", "phase2")
    result = sampler.run("log")
    assert result.code == 0
    lines = [re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", line).strip() for line in result.out.splitlines()]
    assert lines == [
        "5  TIME  done    apply foundation warps warps-more: applied foundation, sampler -> foundation, warps, warps-more",
        "4  TIME  undo    undo 3 (apply foundation): applied foundation -> foundation, sampler",
        "3  TIME  gone    apply foundation: applied foundation, sampler -> foundation",
        "2  TIME  done    apply foundation sampler: applied nothing -> foundation, sampler",
        "1  TIME  done    lock: patches/preimages.bundle, patches/series.lock",
    ]
    data = json.loads(sampler.run("log", "--json", "-n", "2").out)
    assert [(e["id"], e["verb"], e["state"]) for e in data["entries"]] == [(5, "apply", "done"), (4, "undo", "undo")]
    assert data["entries"][1]["covers"] == [3]
    assert data["entries"][0]["applied"]["after"]["ids"] == ["foundation", "warps", "warps-more"]
    assert sampler.run("redo").code == 2


def test_log_of_nothing(project: Project) -> None:
    assert (project.run("log").code, project.run("log").out) == (0, "nothing was done yet\n")
    assert project.run("undo").code == 2


def test_undo_refuses_what_was_edited_since(sampler: Project) -> None:
    sampler.run("apply")
    assert sampler.run("drop", "warps-more").code == 0
    path = sampler.root / "patches/series.toml"
    path.write_text(path.read_text() + "# mine\n")
    before = everything(sampler)
    result = sampler.run("undo")
    assert (result.code, result.out) == (5, "")
    assert result.err == (
        f"error: undo of `drop warps-more` would lose what was edited since: patches/series.toml (in {sampler.root}) "
        "changed since, and not through llamapatch. Nothing was lost. Move these files away and run the command again.\n"
    )
    assert everything(sampler) == before
    (sampler.patched / "src/mmvq.cpp").write_text("my edit\n")
    path.write_text(path.read_text().removesuffix("# mine\n"))
    result = sampler.run("undo")
    assert result.code == 5
    assert "src/mmvq.cpp" in result.err
    assert sampler.applied() == ALL[:3]
    (sampler.patched / "src/mmvq.cpp").unlink()
    assert sampler.run("undo").code == 0
    assert sampler.applied() == ALL
    assert sampler.run("verify").code == 0


def test_dry_run_changes_nothing(sampler: Project) -> None:
    sampler.run("apply")
    before = everything(sampler), sampler.run("log").out
    result = sampler.run("undo", "--dry-run", "--json")
    assert json.loads(result.out) == {
        "schema": 1,
        "dry_run": True,
        "covers": [{"id": 2, "reason": f"apply {' '.join(ALL)}"}],
        "files": [],
        "before": ALL,
        "applied": [],
    }
    assert (everything(sampler), sampler.run("log").out) == before


def test_undo_restores_a_dropped_patch_and_its_kernels(sampler: Project) -> None:
    sampler.run("apply")
    before = everything(sampler)
    assert sampler.run("drop", "sampler").code == 0
    after = everything(sampler)
    assert sampler.run("undo").code == 0
    assert everything(sampler) == before
    assert sampler.run("redo").code == 0
    assert everything(sampler) == after
    assert sampler.run("verify").code == 0


def test_packs_are_joined_and_nothing_is_lost(sampler: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamapatch.tree.store.PACKS", 8)
    for _ in range(4):
        for words in (["apply"], ["apply", "sampler"], ["rollback"]):
            assert sampler.run(*words).code == 0
    assert len(list((sampler.store / "objects/pack").glob("*.pack"))) <= 9
    git(sampler.store, "fsck", "--strict", "--no-dangling")
    assert sampler.run("undo", "11").code == 0
    assert sampler.applied() == ALL
    assert sampler.run("verify").code == 0
