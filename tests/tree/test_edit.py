"""Edit and refresh: what a person does in the worktree becomes the patch, byte for byte as git sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.project import Project, git
from tests.tree.test_write import snapshot

ALL = ["foundation", "sampler", "warps", "warps-more"]


@pytest.fixture
def editing(sampler: Project) -> Project:
    """`sampler` is being edited, everything was applied before."""
    assert sampler.run("apply").code == 0
    assert sampler.run("edit", "sampler").code == 0
    return sampler


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


def test_edit_stops_at_the_patch(sampler: Project) -> None:
    assert sampler.run("apply").code == 0
    result = sampler.run("edit", "sampler")
    assert result.code == 0
    assert result.out == f"editing   sampler\napplied   foundation, sampler\nworktree  {sampler.patched}\n"
    assert sampler.disk_tree() == sampler.trees["sampler"]
    assert "editing   sampler; `llamapatch refresh`" in sampler.run("status").out
    assert json.loads(sampler.run("status", "--json").out)["editing"] == "sampler"
    assert sampler.run("verify").code == 0
    result = sampler.run("edit", "--done")
    assert result.code == 0, result.err
    assert sampler.applied() == ALL
    assert sampler.disk_tree() == sampler.trees["warps-more"]
    assert sampler.run("edit", "--done").code == 2
    assert sampler.run("refresh").code == 2
    assert sampler.run("edit").code == 2
    assert sampler.run("edit", "nothing").code == 2


def test_edits_flow_back(editing: Project) -> None:
    """Overlay to its source, upstream's file to the diff, a new file and a deletion too; later patches follow."""
    tree = editing.patched
    replace(tree / "lp/sampler.cpp", "void sample() {}", "void sample() { work(); }")
    replace(tree / "src/sampling.cpp", "// line 3\n", "// line three\n")
    replace(tree / "src/crlf.txt", "two\r\n", "zwei\r\n")
    replace(tree / "src/no-newline.txt", "two", "deux")
    (tree / "src/f\u00fcr alle.h").write_text("#pragma once\n")
    (tree / "README.md").unlink()
    (tree / "run.sh").chmod(0o644)
    expected = editing.disk_tree()
    result = editing.run("refresh")
    assert result.code == 0, result.err
    assert result.out == (
        "README.md -> change.patch\n"
        "lp/sampler.cpp -> ggml_kernels/sampler/sampler.cpp\n"
        "run.sh -> change.patch\n"
        "src/crlf.txt -> change.patch\n"
        "src/f\u00fcr alle.h -> change.patch\n"
        "src/no-newline.txt -> change.patch\n"
        "src/sampling.cpp -> change.patch\n"
        "carried along  status  what happened\n"
        "warps          merged               \n"
        "warps-more     exact                \n"
        "sampler refreshed, 4 files\n"
    )
    assert (editing.root / "ggml_kernels/sampler/sampler.cpp").read_text() == "void sample() { work(); }\n"
    assert editing.applied() == ["foundation", "sampler"]
    assert (editing.applied_tree(), editing.disk_tree()) == (expected, expected)
    for verb in (["verify"], ["lock", "--check"], ["check"]):
        assert editing.run(*verb).code == 0
    # Again: nothing.
    before = snapshot(editing), editing.run("log").out
    assert editing.run("refresh").out.startswith("nothing was edited in sampler\n")
    assert (snapshot(editing), editing.run("log").out) == before
    # The rest of the series on top, as git merges it.
    assert editing.run("edit", "--done").code == 0
    assert editing.applied() == ALL
    text = (editing.patched / "src/sampling.cpp").read_text()
    for line in ("// line three\n", "sample();\n", "// line 30, warps\n"):
        assert line in text
    assert not (editing.patched / "README.md").exists()
    assert editing.run("verify").code == 0


def test_undo_of_a_refresh_and_redo(editing: Project) -> None:
    before = snapshot(editing), editing.disk_tree()
    replace(editing.patched / "src/sampling.cpp", "// line 3\n", "// line three\n")
    replace(editing.patched / "lp/sampler.cpp", "{}", "{ }")
    assert editing.run("refresh").code == 0
    after = snapshot(editing), editing.disk_tree()
    assert editing.run("undo").code == 0
    assert (snapshot(editing), editing.disk_tree()) == before
    assert json.loads(editing.run("status", "--json").out)["editing"] == "sampler"
    assert editing.run("redo").code == 0
    assert (snapshot(editing), editing.disk_tree()) == after
    assert editing.run("undo", "2").code == 0  # the edit itself, too
    assert editing.applied() == ALL
    assert json.loads(editing.run("status", "--json").out)["editing"] is None


def test_a_new_file_beside_overlay_files_is_ambiguous(editing: Project) -> None:
    (editing.patched / "lp/more.cpp").write_text("int more;\n")
    (editing.patched / "lp/notes.txt").write_text("why\n")
    before = snapshot(editing)
    result = editing.run("refresh")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "error: lp/more.cpp is new, and beside overlay files of `sampler`: it could belong to either place. "
        "Say `--overlay lp/more.cpp=sampler/more.cpp` or `--diff lp/more.cpp`.\n"
    )
    assert snapshot(editing) == before
    result = editing.run("refresh", "--overlay", "lp/more.cpp=sampler/more.cpp", "--diff", "lp/notes.txt")
    assert result.code == 0, result.err
    assert "lp/more.cpp -> ggml_kernels/sampler/more.cpp\nlp/notes.txt -> change.patch\n" in result.out
    assert (editing.root / "ggml_kernels/sampler/more.cpp").read_text() == "int more;\n"
    assert 'from = "sampler/more.cpp"\nto = "lp/more.cpp"\n' in (editing.folder("sampler") / "patch.toml").read_text()
    assert b"lp/notes.txt" in (editing.folder("sampler") / "change.patch").read_bytes()
    assert editing.run("verify").code == 0
    assert editing.run("check").code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--overlay", "lp/more.cpp=../x"], "`../x` is no path below ggml_kernels/"),
        (["--overlay", "lp/more.cpp=sampler/sampler.cpp"], "ggml_kernels/sampler/sampler.cpp is there already"),
        (["--overlay", "lp/more.cpp"], "`--overlay` takes PATH=SOURCE"),
        (["--diff", "lp/none.cpp"], "lp/none.cpp was not edited"),
    ],
)
def test_bad_places(editing: Project, options: list[str], said: str) -> None:
    (editing.patched / "lp/more.cpp").write_text("int more;\n")
    before = snapshot(editing)
    result = editing.run("refresh", *options)
    assert result.code == 2
    assert said in result.err
    assert snapshot(editing) == before


def test_another_patchs_overlay_is_refused_with_its_owner(editing: Project) -> None:
    replace(editing.patched / "lp/ggml-lp.h", "// switches", "// mine")
    before = snapshot(editing)
    result = editing.run("refresh")
    assert (result.code, result.err) == (
        2,
        "error: lp/ggml-lp.h is an overlay file of `foundation`, not of `sampler`. "
        "Undo that edit here, and make it with `llamapatch edit foundation`.\n",
    )
    assert snapshot(editing) == before


def test_overlay_files_are_plain_and_stay(editing: Project) -> None:
    (editing.patched / "lp/sampler.cpp").chmod(0o755)
    result = editing.run("refresh")
    assert (result.code, "now a link or executable" in result.err) == (2, True)
    (editing.patched / "lp/sampler.cpp").unlink()
    result = editing.run("refresh")
    assert (result.code, "is an overlay file and was deleted" in result.err) == (2, True)
    (editing.patched / "lp/sampler.cpp").symlink_to("/etc/passwd")
    result = editing.run("refresh")
    assert (result.code, "now a link or executable" in result.err) == (2, True)


def test_a_conflict_behind_writes_nothing(editing: Project) -> None:
    replace(editing.patched / "src/sampling.cpp", "// line 30\n", "// line 30, mine\n")
    before = snapshot(editing), editing.applied(), editing.disk_tree()
    result = editing.run("refresh")
    assert result.code == 3
    assert "warps          conflict" in result.out
    assert "// line 30, mine" in result.out
    assert result.err == "error: `warps`, `warps-more` cannot be carried along. Nothing was written by `refresh`.\n"
    assert (snapshot(editing), editing.applied(), editing.disk_tree()) == before


def test_what_makes_a_later_patch_empty_is_a_conflict(editing: Project) -> None:
    replace(editing.patched / "src/mmvq.cpp", "calc_nwarps(n);", "calc_nwarps(n) + 2;")
    before = snapshot(editing)
    result = editing.run("refresh")
    assert result.code == 3
    assert snapshot(editing) == before


def test_refresh_dry_run(editing: Project) -> None:
    replace(editing.patched / "src/sampling.cpp", "// line 3\n", "// line three\n")
    before = snapshot(editing), editing.applied(), editing.run("log").out
    result = editing.run("refresh", "--dry-run", "--json")
    assert result.code == 0, result.err
    data = json.loads(result.out)
    assert data["edits"] == {"src/sampling.cpp": "change.patch"}
    assert [(c["id"], c["status"]) for c in data["carried"]] == [("warps", "merged"), ("warps-more", "exact")]
    assert "patches/phase1/sampler/change.patch" in data["files"]
    assert (snapshot(editing), editing.applied(), editing.run("log").out) == before


def test_done_and_apply_refuse_to_lose_edits_and_abort_saves_them(editing: Project) -> None:
    replace(editing.patched / "src/sampling.cpp", "// line 3\n", "// line three\n")
    (editing.patched / "src/new.txt").write_text("new\n")
    (editing.patched / "README.md").unlink()
    edited = editing.disk_tree()
    for words in (["edit", "--done"], ["apply"], ["edit", "warps"], ["rollback"]):
        result = editing.run(*words)
        assert result.code == 5
        assert "src/sampling.cpp" in result.err
        assert editing.disk_tree() == edited
    for words in (["drop", "warps-more"], ["move", "sampler", "--phase", "phase2"]):
        assert editing.run(*words).code == 2
    series = snapshot(editing)
    result = editing.run("edit", "--abort")
    assert result.code == 0, result.err
    assert snapshot(editing) == series
    assert editing.applied() == ALL
    assert editing.disk_tree() == editing.trees["warps-more"]
    [saved] = (editing.state / "aborted").iterdir()
    assert f"edits     saved in {saved}\n" in result.out
    # What was saved is what was edited, says git.
    assert editing.run("edit", "sampler").code == 0
    copy = editing.root.parent / "copy"
    git(editing.root, "clone", "-q", str(editing.witness), str(copy))
    commit = git(editing.witness, "log", "--format=%H", "--grep=^sampler$")
    git(copy, "-c", "advice.detachedHead=false", "checkout", "-q", commit)
    git(copy, "apply", "--index", str(saved))
    assert git(copy, "write-tree") == edited


def test_edit_of_the_top_takes_edits_that_are_there(sampler: Project) -> None:
    assert sampler.run("apply").code == 0
    replace(sampler.patched / "src/mmvq.cpp", "int rows = calc_rows(n);", "int rows = calc_rows(n) * 1;")
    assert sampler.run("edit", "warps").code == 5
    assert sampler.run("edit", "warps-more").code == 0
    expected = sampler.disk_tree()
    assert sampler.run("refresh").code == 0
    assert sampler.run("edit", "--done").code == 0
    assert sampler.applied_tree() == expected
    assert sampler.run("verify").code == 0


def test_edit_another_patch_in_between(editing: Project) -> None:
    """The first session's applied set is what `--done` brings back."""
    assert editing.run("edit", "warps").code == 0
    assert editing.applied() == ["foundation", "sampler", "warps"]
    assert editing.run("edit", "--done").code == 0
    assert editing.applied() == ALL


def test_an_edit_whose_worktree_was_removed(editing: Project) -> None:
    import shutil

    shutil.rmtree(editing.patched)
    assert editing.run("edit", "sampler").code == 0
    assert editing.disk_tree() == editing.trees["sampler"]


def test_new_edit_refresh_from_an_empty_patch(sampler: Project) -> None:
    """The whole daily loop: a patch that starts with nothing."""
    (sampler.root / "templates").symlink_to(Path(__file__).parents[2] / "templates")
    assert sampler.run("apply").code == 0
    words = ["--phase", "phase1", "--reason", "a test", "--author", "Ada <ada@localhost>"]
    result = sampler.run("new", "fresh", *words)
    assert result.code == 0, result.err
    assert sampler.run("edit", "fresh").code == 0
    replace(sampler.patched / "src/sampling.cpp", "// line 20\n", "// line twenty\n")
    result = sampler.run("refresh")
    assert result.code == 0, result.err
    assert sampler.run("edit", "--done").code == 0
    assert sampler.run("apply").code == 0
    assert sampler.applied() == ["foundation", "sampler", "fresh", "warps", "warps-more"]
    assert "// line twenty\n" in (sampler.patched / "src/sampling.cpp").read_text()
    assert sampler.run("check").code == 0
