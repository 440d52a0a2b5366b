"""What we export is accepted by git am, quilt, git apply and patch themselves, and makes the trees of the lock."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project import GIT_ENV, Project, git
from tests.tree.exchange.conftest import clean_clone, tree_on_disk

IDS = ["foundation", "hard", "modes", "last", "folder"]
# GNU patch can do all but the last.
QUILT = IDS[:-1]


def test_git_am_makes_every_tree(hard: Project, tmp_path: Path) -> None:
    result = hard.run("export", "-o", str(tmp_path / "all.mbox"))
    assert result.code == 0, result.err
    assert result.out == (
        f"{tmp_path}/all.mbox written: {', '.join(IDS)}\nmakes tree {hard.trees['folder']} (exact) of a clean upstream\n"
    )
    clone = clean_clone(hard, tmp_path / "clone")
    git(clone, "am", "-q", str(tmp_path / "all.mbox"))
    trees = git(clone, "log", "--reverse", "--format=%T", "HEAD~5..").split()
    assert trees == [hard.trees[i] for i in IDS]
    assert git(clone, "log", "-1", "--format=%an <%ae> %aI%n%s%n%b", "HEAD~3") == (
        "Ada <ada@localhost> 2026-03-04T00:00:00+00:00\n"
        "Ünïcode: a title with [brackets] = and _ and =?\n"
        "Everything that mail, quilt and patch could stumble over.\n"
        "\n"
        "> ---\n"
        "> diff --git a/README.md b/README.md\n"
        "> --- a/README.md\n"
        "> +++ b/README.md\n"
        "> @@ -1 +1 @@\n"
        "-# llama.cpp\n"
        "+# not a change, but a quotation\n"
        "\n"
        "From the first day on, a line that mailboxes end at:\n"
        "From nobody Mon Sep 17 00:00:00 2001\n"
        "> Index: nothing\n"
        "> --\n"
        "> 1,2c3\n"
        "> Subject: not a header, and trailing blanks\n"
        "\n"
        "Llamapatch-Id: hard"
    )
    # The bracket survives where git is told to keep it, and in our own import.
    other = clean_clone(hard, tmp_path / "other")
    git(other, "am", "-q", "--keep-non-patch", str(tmp_path / "all.mbox"))
    assert git(other, "log", "-1", "--format=%s", "HEAD~3").startswith("[x] Ünïcode: a title")


def test_quilt_push_makes_every_tree(hard: Project, tmp_path: Path, quilt: str) -> None:
    result = hard.run("export", "..last", "--quilt", "-o", str(tmp_path / "patches"))
    assert result.code == 0, result.err
    assert (tmp_path / "patches/series").read_text() == "".join(f"{i}.patch\n" for i in QUILT)
    clone = clean_clone(hard, tmp_path / "clone")
    (clone / ".git/info/exclude").write_text("/.pc/\n")
    env = GIT_ENV | {
        "QUILT_PATCHES": str(tmp_path / "patches"),
        "QUILT_PC": str(tmp_path / "pc"),
        "HOME": str(tmp_path),
    }
    for patch_id in QUILT:
        done = subprocess.run([quilt, "push"], cwd=clone, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "fuzz" not in done.stdout and "offset" not in done.stdout
        assert tree_on_disk(clone) == hard.trees[patch_id], patch_id
    whole = clean_clone(hard, tmp_path / "whole")
    env |= {"QUILT_PC": str(tmp_path / "pc2")}
    subprocess.run([quilt, "push", "-a"], cwd=whole, env=env, check=True, capture_output=True)
    assert tree_on_disk(whole) == hard.trees["last"]


@pytest.mark.parametrize("tool", [("git", "apply"), ("patch", "-s", "-p1", "-i")])
def test_one_diff_for_all(hard: Project, tmp_path: Path, tool: tuple[str, ...]) -> None:
    assert hard.run("export", "..last", "--standalone", "-o", str(tmp_path / "all.diff")).code == 0
    clone = clean_clone(hard, tmp_path / "clone")
    done = subprocess.run([*tool, tmp_path / "all.diff"], cwd=clone, env=GIT_ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tree_on_disk(clone) == hard.trees["last"]


def test_binary_files(sampler: Project, tmp_path: Path) -> None:
    (sampler.witness / "blob.bin").write_bytes(bytes(range(256)) * 3)
    make_binary_patch(sampler, "binary")
    assert sampler.run("lock").code == 0
    assert sampler.run("export", "-o", str(tmp_path / "all.mbox")).code == 0
    clone = clean_clone(sampler, tmp_path / "clone")
    git(clone, "am", "-q", str(tmp_path / "all.mbox"))
    assert git(clone, "rev-parse", "HEAD^{tree}") == sampler.trees["binary"]
    refused_by_quilt(sampler, tmp_path / "q", "`binary` changes blob.bin, a binary file")


def test_what_gnu_patch_cannot_do(hard: Project, tmp_path: Path) -> None:
    says = "`folder` puts dir in the place of a folder or of a file of another kind"
    refused_by_quilt(hard, tmp_path / "q", says)


def refused_by_quilt(project: Project, folder: Path, says: str) -> None:
    result = project.run("export", "--quilt", "-o", str(folder))
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"error: {says}: GNU patch, which quilt runs, cannot do that. "
        "Export with `--mbox`, or with `--standalone` for `git apply`.\n"
    )
    assert not folder.exists()


def make_binary_patch(project: Project, patch_id: str) -> None:
    """Commit what lies in the witness as a patch whose change.patch `check --fix` makes of git's own diff."""
    git(project.witness, "add", "-A", "-f")
    raw = subprocess.run(
        ["git", "-C", project.witness, "diff", "--binary", "--cached", "HEAD"],
        env=GIT_ENV,
        capture_output=True,
        check=True,
    ).stdout
    project.patch(patch_id, "phase2")
    (project.folder(patch_id) / "change.patch").write_bytes(raw)
    fixed = project.run("check", "--fix")
    assert fixed.code == 0, fixed.err


def test_a_subset_is_merged_and_says_so(sampler: Project, tmp_path: Path) -> None:
    result = sampler.run("export", "warps-more", "-o", str(tmp_path / "x.mbox"))
    assert result.err == "pulled in: foundation, warps (required)\n"
    assert result.out.splitlines()[0] == f"{tmp_path}/x.mbox written: foundation, warps, warps-more"
    assert "(merged)" in result.out
    clone = clean_clone(sampler, tmp_path / "clone")
    git(clone, "am", "-q", str(tmp_path / "x.mbox"))
    assert git(clone, "rev-parse", "HEAD^{tree}") in result.out


def test_standard_output_and_json(sampler: Project, tmp_path: Path) -> None:
    plain = sampler.run("export", "foundation")
    assert plain.code == 0
    assert sampler.run("export", "foundation", "-o", str(tmp_path / "f.mbox")).code == 0
    assert plain.out.encode() == (tmp_path / "f.mbox").read_bytes()
    result = sampler.run("export", "foundation", "--quilt", "-o", str(tmp_path / "q"), "--json", "--dry-run")
    assert json.loads(result.out) == {
        "dry_run": True,
        "files": ["foundation.patch", "series"],
        "form": "quilt",
        "how": "exact",
        "ids": ["foundation"],
        "output": str(tmp_path / "q"),
        "schema": 1,
        "tree": sampler.trees["foundation"],
    }
    assert not (tmp_path / "q").exists()


def test_the_form_of_a_mail(sampler: Project) -> None:
    """Byte for byte, so that a change of the form is seen."""
    assert sampler.run("export", "foundation").out == (
        "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"
        "From: Ada <ada@localhost>\n"
        "Date: Wed, 04 Mar 2026 00:00:00 +0000\n"
        "Subject: [PATCH] Title of foundation\n"
        "MIME-Version: 1.0\n"
        "Content-Type: text/plain; charset=UTF-8\n"
        "Content-Transfer-Encoding: 8bit\n"
        "\n"
        "Why it exists.\n"
        "\n"
        "Llamapatch-Id: foundation\n"
        "---\n"
        "llamapatch import reads the lines that begin with a bar.\n"
        "|== patch.toml\n"
        "| schema = 1\n"
        '| id = "foundation"\n'
        '| title = "Title of foundation"\n'
        '| phase = "phase0"\n'
        '| authors = ["Ada <ada@localhost>"]\n'
        "| date = 2026-03-04\n"
        "| requires = []\n"
        "| conflicts = []\n"
        "| [upstream]\n"
        '| status = "never"\n'
        '| reason = "a test"\n'
        "| [effect]\n"
        '| class = "equivalent"\n'
        "| [[overlay]]\n"
        '| from = "foundation/ggml-lp.h"\n'
        '| to = "lp/ggml-lp.h"\n'
        "|== README.md\n"
        "| # foundation\n"
        "|\n"
        "| Why it exists.\n"
        "\n"
        "diff --git a/CMakeLists.txt b/CMakeLists.txt\n"
        "index 8a3d95c11a3442bc9aab18b77252dd6c006e51ab..a2e3e836253364edfae85caca73dc5b7e10926ef 100644\n"
        "--- a/CMakeLists.txt\n"
        "+++ b/CMakeLists.txt\n"
        "@@ -2,4 +2,5 @@\n"
        " add_library(ggml\n"
        "     src/mmvq.cpp\n"
        "     src/sampling.cpp\n"
        "+    ${LP_SOURCES}\n"
        " )\n"
        "diff --git a/lp/ggml-lp.h b/lp/ggml-lp.h\n"
        "new file mode 100644\n"
        "index 0000000000000000000000000000000000000000..ef8357a0d838effd8f918e20dc049f8b8e611294\n"
        "--- /dev/null\n"
        "+++ b/lp/ggml-lp.h\n"
        "@@ -0,0 +1,2 @@\n"
        "+#pragma once\n"
        "+// switches\n"
        "-- \n"
        "llamapatch\n"
        "\n"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("export", "phase9"), "unknown selector `phase9`."),
        (("export", "--quilt"), "a quilt export is a folder. Say where it should go: `-o DIR`."),
        (("export", "--json"), "--json and the export would both go to standard output."),
    ],
)
def test_bad_input(sampler: Project, words: tuple[str, ...], says: str) -> None:
    result = sampler.run(*words)
    assert (result.code, result.out) == (2, "")
    assert says in result.err


def test_nothing_is_overwritten(sampler: Project, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "folder").mkdir()
    for form, name in (("--mbox", "mine"), ("--quilt", "folder")):
        result = sampler.run("export", form, "-o", str(tmp_path / name))
        assert result.code == 5
        assert f"{tmp_path / name} is there already." in result.err
    assert (tmp_path / "mine").read_text() == "mine"
    assert not list((tmp_path / "folder").iterdir())
    assert shutil.which("git")
