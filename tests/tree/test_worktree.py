"""Worktrees never lose an edit, refuse what is not theirs, and heal what was only deleted."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llamapatch.errors import MismatchError
from llamapatch.locks import working_as
from llamapatch.tree.objects import TreeState
from llamapatch.tree.store import open_store, writing
from llamapatch.tree.worktree import Worktree
from tests.project import Project, git

ALL = ["foundation", "sampler", "warps", "warps-more"]


def state_of(project: Project) -> tuple[str, dict[str, bytes]]:
    """Refs, and every file of the worktree."""
    files = {str(p.relative_to(project.patched)): p.read_bytes() for p in project.patched.rglob("*") if p.is_file()}
    return git(project.store, "for-each-ref"), files


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("src/mmvq.cpp", "my edit\n"),  # a file that the move would rewrite
        ("src/common.h", "my edit\n"),  # a file that it would not touch
        ("src/new file.cpp", "mine\n"),  # not tracked, and a glob might compile it
        ("src/new.cpp", "mine\n"),  # not tracked, where a patch adds a file
        ("lp/sampler.cpp", "mine\n"),  # not tracked, where an overlay goes
    ],
)
def test_an_edit_stops_everything(sampler: Project, path: str, content: str) -> None:
    sampler.run("apply", "foundation")
    (sampler.patched / path).write_text(content)
    before = state_of(sampler)
    for command in (["apply"], ["rollback"], ["apply", "foundation"]):
        result = sampler.run(*command)
        assert result.code == 5
        assert result.out == ""
        assert result.err == (
            f"error: {sampler.patched} has files that are not part of the series: {path}. Nothing was changed. "
            "Move these files away (a tracked one is restored) and run the command again.\n"
        )
        assert state_of(sampler) == before
    (sampler.patched / path).rename(sampler.root / "kept")
    assert sampler.run("apply").code == 0
    assert sampler.disk_tree() == sampler.trees["warps-more"]


def test_edits_that_keep_size_and_time_are_seen(sampler: Project) -> None:
    """Same size and same mtime; the inode's change time gives it away."""
    sampler.run("apply", "foundation")
    path = sampler.patched / "src/common.h"
    stat = path.stat()
    time.sleep(0.02)
    path.write_text("#pragma twice\n"[: stat.st_size].ljust(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sampler.run("apply").code == 5


def test_a_mode_change_is_an_edit_and_a_touch_is_none(sampler: Project) -> None:
    sampler.run("apply", "foundation")
    (sampler.patched / "src/common.h").touch()
    assert sampler.run("apply", "sampler").code == 0
    (sampler.patched / "src/common.h").chmod(0o755)
    assert sampler.run("apply").code == 5


def test_ignored_files_do_not_matter(sampler: Project) -> None:
    sampler.run("apply", "foundation")
    (sampler.patched / "src/x.o").write_bytes(b"object")
    (sampler.patched / "build").mkdir()
    (sampler.patched / "build/thing.cpp").write_text("generated\n")
    assert sampler.run("apply").code == 0
    assert sampler.run("verify").code == 0
    assert (sampler.patched / "src/x.o").read_bytes() == b"object"


def test_deleted_files_come_back(sampler: Project) -> None:
    sampler.run("apply", "sampler")
    for path in ("src/common.h", "src/sampling.cpp", "link", "lp/sampler.cpp"):
        (sampler.patched / path).unlink()
    assert "deleted link, lp/sampler.cpp, src/common.h, src/sampling.cpp" in sampler.run("status").out
    assert sampler.run("apply", "sampler").code == 0
    assert sampler.disk_tree() == sampler.trees["sampler"]
    shutil.rmtree(sampler.patched / "src")
    assert sampler.run("apply").code == 0
    assert sampler.disk_tree() == sampler.trees["warps-more"]


def test_a_deleted_or_empty_worktree_is_made_anew(sampler: Project) -> None:
    sampler.run("apply", "sampler")
    shutil.rmtree(sampler.patched)
    assert "not checked out" in sampler.run("status").out
    assert sampler.run("verify").code == 0
    assert sampler.run("apply").code == 0
    assert sampler.disk_tree() == sampler.trees["warps-more"]
    shutil.rmtree(sampler.patched)
    sampler.patched.mkdir()
    assert sampler.run("apply", "sampler").code == 0
    assert sampler.disk_tree() == sampler.trees["sampler"]


def test_a_foreign_folder_is_left_alone(sampler: Project) -> None:
    sampler.patched.mkdir(parents=True)
    (sampler.patched / "thesis.tex").write_text("years of work\n")
    result = sampler.run("apply")
    assert result.code == 5
    assert result.err == (
        f"error: {sampler.patched} was not made by llamapatch, or its record is gone. "
        "Move that folder away and run the command again; it is checked out anew.\n"
    )
    assert [p.name for p in sampler.patched.iterdir()] == ["thesis.tex"]
    assert sampler.applied() == []


@pytest.mark.parametrize("what", ["file", "link"])
def test_something_else_in_the_worktree_s_place(sampler: Project, tmp_path: Path, what: str) -> None:
    sampler.patched.parent.mkdir(parents=True)
    if what == "file":
        sampler.patched.write_text("a file")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/mine").write_text("mine")
        sampler.patched.symlink_to(tmp_path / "elsewhere")
    assert sampler.run("apply").code == 5
    assert sampler.applied() == []
    if what == "link":
        assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["mine"]


def test_a_link_inside_the_tree_is_not_followed(sampler: Project, tmp_path: Path) -> None:
    """src/ replaced by a link to a folder of the user: nothing may be written through it."""
    sampler.run("apply", "foundation")
    outside = tmp_path / "outside"
    shutil.copytree(sampler.patched / "src", outside)
    shutil.rmtree(sampler.patched / "src")
    (sampler.patched / "src").symlink_to(outside)
    before = {p.name: p.read_bytes() for p in outside.iterdir()}
    assert sampler.run("apply").code == 5
    assert {p.name: p.read_bytes() for p in outside.iterdir()} == before


def test_the_users_repository_is_only_read(sampler: Project) -> None:
    def snapshot() -> dict[str, tuple[int, bytes]]:
        return {
            str(p): (p.stat().st_mtime_ns, p.read_bytes())
            for p in sorted(sampler.upstream.rglob("*"))
            if p.is_file() and not p.is_symlink()
        }

    before = snapshot()
    sampler.run("apply")
    sampler.run("rollback")
    assert snapshot() == before


def test_a_second_process_waits_then_says_so(sampler: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamapatch.tree.store.LOCK_SECONDS", 0.2)
    settings = sampler.settings()
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        working_as("refresh sampler")
        with writing(settings):
            holding.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(30)
    try:
        result = sampler.run("apply")
    finally:
        done.set()
        holder.join()
    assert (result.code, result.out) == (5, "")
    said = re.sub(r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", "since TIME", result.err)
    assert said == (
        f"error: another llamapatch process is at work in {sampler.state} (`refresh sampler`, pid {os.getpid()} on "
        f"{socket.gethostname()}, since TIME); waited 0 s. Wait until it ends and try again.\n"
    )
    assert sampler.run("apply").code == 0


def test_many_processes_at_once(sampler: Project) -> None:
    """Six processes ask for different states; each ends well, and the result is what one of them asked for."""
    wanted = [["apply"], ["apply", "sampler"], ["apply", "phase2"], ["rollback"], ["apply", "warps"], ["verify"]]
    # -P would hide the checkout under test from the children when it is not installed.
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "llamapatch", *words],
            cwd=sampler.root,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for words in wanted
    ]
    for process, words in zip(running, wanted, strict=True):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, (words, err)
    assert sampler.run("verify").code == 0
    assert sampler.applied() in (
        ALL,
        ["foundation", "sampler"],
        ["foundation", "warps", "warps-more"],
        [],
        ["foundation", "warps"],
    )
    assert sampler.disk_tree() == sampler.applied_tree()


def test_no_lock_file_of_git_is_ever_in_the_way(sampler: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that was killed leaves refs/**.lock and index.lock behind; both heal."""
    monkeypatch.setattr("llamapatch.tree.store.STALE_SECONDS", 0.2)
    sampler.run("apply", "foundation")
    for name in ("applied.lock", "moving/patched.lock", "trees/patched.lock"):
        path = sampler.store / "refs/llamapatch" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (sampler.state / "index/patched.lock").touch()
    (sampler.store / "packed-refs.lock").touch()
    result = sampler.run("apply")
    assert result.code == 0, result.err
    assert sampler.disk_tree() == sampler.trees["warps-more"]


def test_an_edit_during_an_interrupted_move_survives(sampler: Project) -> None:
    """Killed half way, then the user edits one of the files that were to move: the next command stops and names it."""
    sampler.run("apply", "foundation")
    settings, series = sampler.settings(), sampler.series()
    target = git(sampler.store, "rev-parse", "refs/llamapatch/applied")
    sampler.run("apply")
    full = git(sampler.store, "rev-parse", "refs/llamapatch/applied")
    git(sampler.store, "update-ref", "refs/llamapatch/moving/patched", target)
    git(sampler.store, "update-ref", "refs/llamapatch/applied", target)
    (sampler.patched / "src/mmvq.cpp").write_text("precious\n")
    result = sampler.run("apply", "sampler")
    assert result.code == 5
    assert "src/mmvq.cpp" in result.err
    assert (sampler.patched / "src/mmvq.cpp").read_text() == "precious\n"
    (sampler.patched / "src/mmvq.cpp").unlink()
    with writing(settings):
        worktree = Worktree(open_store(settings, series), "patched")
        worktree.settle()
        assert worktree.commit() == target != full
    assert sampler.run("apply").code == 0
    assert sampler.disk_tree() == sampler.trees["warps-more"]


def test_an_intent_that_decided_nothing_is_undone(sampler: Project) -> None:
    """Killed after `moving` was written and before `applied` was: the old state, whatever `moving` says."""
    sampler.run("apply", "foundation")
    old = git(sampler.store, "rev-parse", "refs/llamapatch/applied")
    sampler.run("apply")
    full = git(sampler.store, "rev-parse", "refs/llamapatch/applied")
    git(sampler.store, "update-ref", "refs/llamapatch/moving/patched", old)
    assert sampler.run("verify").code == 0
    assert (
        git(sampler.store, "rev-parse", "refs/llamapatch/applied", "refs/llamapatch/trees/patched").split()
        == [full] * 2
    )
    assert git(sampler.store, "for-each-ref", "refs/llamapatch/moving") == ""
    assert sampler.disk_tree() == sampler.trees["warps-more"]


def test_verify_sees_a_worktree_that_is_not_the_applied_state(sampler: Project) -> None:
    """What a torn update of two refs would leave."""
    sampler.run("apply", "foundation")
    old = git(sampler.store, "rev-parse", "refs/llamapatch/applied")
    sampler.run("apply")
    full = git(sampler.store, "rev-parse", "refs/llamapatch/applied")
    sampler.run("apply", "foundation")
    git(sampler.store, "update-ref", "refs/llamapatch/applied", full)
    result = sampler.run("verify")
    assert (result.code, result.err) == (
        4,
        f"error: {sampler.patched} shows commit {old}, applied is {full}. "
        "Run `llamapatch apply` with your selection again.\n",
    )
    assert sampler.run("apply").code == 0
    assert sampler.disk_tree() == sampler.trees["warps-more"]


def test_a_tree_whose_paths_lead_out_is_refused(sampler: Project, tmp_path: Path) -> None:
    """git can store such a tree; nothing of ours writes it."""
    assert sampler.run("apply").code == 0
    blob = git(sampler.store, "hash-object", "-w", "--stdin", input=b"pwned\n")
    inner = git(sampler.store, "mktree", input=f"100644 blob {blob}\tpwned\n".encode())
    store = open_store(sampler.settings(), sampler.series())
    for name in ("..", ".git", ".GIT"):
        raw = f"40000 {name}\0".encode() + bytes.fromhex(inner)
        tree = git(sampler.store, "hash-object", "-t", "tree", "-w", "--stdin", "--literally", input=raw)
        commit = git(sampler.store, "commit-tree", "-m", "x", tree)
        with pytest.raises(MismatchError, match=f"holds the path `{re.escape(name)}/pwned`, which leads out of it"):
            Worktree(store, "patched").move(commit)
        with pytest.raises(MismatchError, match="which leads out of it"):
            TreeState.read(store.git, tree)
        assert not list(sampler.root.rglob("pwned"))
    assert sampler.run("apply").code == 0
