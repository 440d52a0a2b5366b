"""Apply and roll back on real repositories; every expected tree comes from git, not from us."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import Project, Result, git

ALL = ["foundation", "sampler", "warps", "warps-more"]


def exact(project: Project, ids: list[str]) -> None:
    """`ids`, a prefix of the series, is applied: refs, objects and every file on disk."""
    tree = project.trees[ids[-1]] if ids else project.base_tree
    assert project.applied() == ids
    assert project.applied_tree() == tree
    assert project.disk_tree() == tree
    git(project.store, "fsck", "--strict", "--no-dangling")
    assert project.run("verify").code == 0


def ok(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


def test_every_prefix_has_the_tree_that_git_makes(sampler: Project) -> None:
    for count in range(1, len(ALL) + 1):
        ok(sampler.run("apply", f"..{ALL[count - 1]}"))
        exact(sampler, ALL[:count])


def test_apply_says_what_it_did(sampler: Project) -> None:
    """The whole output; ids are literals because nothing in them depends on the time or the machine."""
    result = sampler.run("apply", "sampler")
    assert result.err == "pulled in: foundation (required)\n"
    assert result.out == (
        "added            foundation, sampler\n"
        "applied          foundation, sampler\n"
        "tree             e98f69488c7258485cba98795fb3e63868f8385e (exact)\n"
        "commit           a95f43097f40a4ce36332e4a3931e0b038022386\n"
        f"worktree         {sampler.patched}, 14 files written\n"
    )


def test_commit_of_a_patch(sampler: Project) -> None:
    ok(sampler.run("apply", "sampler"))
    form = "--format=%H%n%an %ae %aI%n%cn %ce %cI%n%B"
    assert git(sampler.store, "log", "-1", form, "refs/llamapatch/applied") == (
        "a95f43097f40a4ce36332e4a3931e0b038022386\n"
        "Ada ada@localhost 2026-03-04T00:00:00+00:00\n"
        "llamapatch llamapatch@localhost 2026-03-04T00:00:00+00:00\n"
        "Title of sampler\n\n"
        "Llamapatch-Id: sampler\n"
        "Llamapatch-Phase: phase1\n"
        "Llamapatch-Requires: foundation\n"
        "Llamapatch-Diff: 1f0a"
    ).replace("1f0a", sampler.series().lock.patches[1].diff)  # type: ignore[union-attr]


def test_apply_sets_exactly_the_closure(sampler: Project) -> None:
    """apply phase1 after phase2 leaves phase1 and what it requires, nothing of phase2."""
    ok(sampler.run("apply", "phase2"))
    assert sampler.applied() == ["foundation", "warps", "warps-more"]
    result = ok(sampler.run("apply", "phase1"))
    assert "removed          warps, warps-more\nadded            sampler\n" in result.out
    exact(sampler, ["foundation", "sampler"])
    ok(sampler.run("apply"))
    exact(sampler, ALL)


def test_a_subset_is_merged_and_says_so(sampler: Project) -> None:
    """warps without sampler: its hunk stands one line lower in the full series; the merge is git's own."""
    result = ok(sampler.run("apply", "all", "--without", "sampler"))
    assert "(merged)" in result.out
    assert result.err == "left out: sampler\n"
    files = {p: (sampler.patched / p).read_text() for p in ("src/sampling.cpp", "src/mmvq.cpp")}
    assert "sample();" not in files["src/sampling.cpp"]
    assert files["src/sampling.cpp"].splitlines()[29] == "// line 30, warps"
    assert "calc_nwarps(n) + 2;" in files["src/mmvq.cpp"]
    assert sampler.disk_tree() == sampler.applied_tree()
    assert ok(sampler.run("verify")).out.count("merged") == 1
    # The independent witness: revert the one commit with git.
    git(sampler.witness, "checkout", "-q", "--detach", "HEAD~3")
    git(sampler.witness, "cherry-pick", "master~1", "master")
    assert git(sampler.witness, "rev-parse", "HEAD^{tree}") == sampler.applied_tree()


def test_a_subset_that_cannot_be_merged(sampler: Project) -> None:
    sampler.patch("late", replace={"src/sampling.cpp": ("sample();\n", "sample(2);\n")}, requires=("foundation",))
    ok(sampler.run("lock"))
    ok(sampler.run("apply", "foundation"))
    result = sampler.run("apply", "late")
    assert result.code == 3
    assert result.out == ""
    assert result.err == (
        "pulled in: foundation (required)\n"
        "error: `late` cannot be merged into src/sampling.cpp without `sampler`:\n"
        "    <<<<<<< now\n"
        "    ||||||| before\n"
        "    sample();\n"
        "    =======\n"
        "    sample(2);\n"
        "    >>>>>>> late Select `sampler` as well, or leave `late` out.\n"
    )
    exact(sampler, ["foundation"])


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"src/new.cpp": "int newer() { return 3; }\n"}, "`late` changes src/new.cpp"),
        ({"src/mmvq.cpp": None}, "`late` deletes src/mmvq.cpp"),
        ({"src/old.cpp": "int again;\n"}, "`late` adds src/old.cpp"),
    ],
)
def test_whole_files_in_another_state(sampler: Project, edit: dict[str, str | None], says: str) -> None:
    sampler.patch("late", "phase2", edit=edit, requires=("foundation",))
    ok(sampler.run("lock"))
    result = sampler.run("apply", "late")
    assert (result.code, sampler.applied()) == (3, [])
    assert says in result.err
    assert "Select `warps`" in result.err


def test_rollback_takes_dependents_along_and_names_them(sampler: Project) -> None:
    ok(sampler.run("apply"))
    result = ok(sampler.run("rollback", "warps"))
    assert result.err == "taken away as well: warps-more (require what goes)\n"
    exact(sampler, ["foundation", "sampler"])
    result = ok(sampler.run("rollback", "phase2"))
    assert result.err == "nothing to roll back: none of it is applied\n"
    exact(sampler, ["foundation", "sampler"])
    ok(sampler.run("rollback"))
    exact(sampler, [])
    assert ok(sampler.run("rollback")).code == 0


def test_rollback_of_a_patch_that_left_the_series(sampler: Project) -> None:
    ok(sampler.run("apply"))
    sampler.phases["phase2"].remove("warps-more")
    sampler.write_series()
    (sampler.root / "patches/phase2/warps-more").rename(sampler.root / "gone")
    ok(sampler.run("lock"))
    result = sampler.run("rollback", "warps")
    assert result.code == 2
    assert "applied `warps-more` is no longer in the series" in result.err
    ok(sampler.run("rollback"))
    exact(sampler, [])


def test_files_that_do_not_change_keep_their_times(sampler: Project) -> None:
    """Ninja rebuilds by mtime: a move touches the files that differ and nothing else, there and back."""
    ok(sampler.run("apply"))

    def times() -> dict[str, int]:
        return {
            str(p.relative_to(sampler.patched)): p.lstat().st_mtime_ns
            for p in sampler.patched.rglob("*")
            if not p.is_dir()
        }

    before = times()
    ok(sampler.run("apply", "..warps"))
    assert {p for p, t in times().items() if before[p] != t} == {"src/mmvq.cpp"}
    ok(sampler.run("apply"))
    ok(sampler.run("rollback"))
    ok(sampler.run("apply"))
    changed = {p for p, t in times().items() if before[p] != t}
    assert changed == {
        *("CMakeLists.txt", "src/mmvq.cpp", "src/sampling.cpp", "src/new.cpp"),
        *("lp/ggml-lp.h", "lp/sampler.cpp"),
    }


def test_nothing_in_the_tree_changes_the_bytes(sampler: Project) -> None:
    """`*.txt text eol=crlf` in upstream's attributes, a file without newline, CRLF, a link, the executable bit."""
    ok(sampler.run("apply"))
    assert (sampler.patched / "src/crlf.txt").read_bytes() == b"one\r\ntwo\r\nthree\r\n"
    assert (sampler.patched / "src/no-newline.txt").read_bytes() == b"one\ntwo"
    assert (sampler.patched / "link").readlink() == Path("README.md")
    assert os.access(sampler.patched / "run.sh", os.X_OK)
    assert not os.access(sampler.patched / "README.md", os.X_OK)
    assert not (sampler.patched / ".git").exists()


def test_modes_links_and_odd_files_can_be_patched(project: Project) -> None:
    project.patch(
        "odd",
        edit={"src/no-newline.txt": "one\ntwo\nthree\n", "src/crlf.txt": "one\r\n2\r\nthree", "src/empty": ""},
    )
    (project.witness / "src/common.h").chmod(0o755)
    project.patch("odder", edit={"src/a b.h": "spaces\n", "src/no-newline.txt": "one\ntwo\nthree"})
    assert ok(project.run("lock")).code == 0
    ok(project.run("apply"))
    exact(project, ["odd", "odder"])
    assert os.access(project.patched / "src/common.h", os.X_OK)
    ok(project.run("rollback", "odder"))
    exact(project, ["odd"])


def test_dry_run_writes_nothing(sampler: Project, make_project: Callable[[str], Project]) -> None:
    fresh = make_project("fresh")
    fresh.fill()
    shutil.rmtree(fresh.state)
    result = ok(fresh.run("apply", "sampler", "--dry-run"))
    assert not fresh.state.exists()
    assert result.out == (
        "would be added   foundation, sampler\n"
        "would be applied foundation, sampler\n"
        "tree             e98f69488c7258485cba98795fb3e63868f8385e (exact)\n"
        "commit           a95f43097f40a4ce36332e4a3931e0b038022386\n"
    )
    ok(sampler.run("apply"))
    refs = git(sampler.store, "for-each-ref")
    ok(sampler.run("rollback", "warps", "--dry-run"))
    ok(sampler.run("apply", "foundation", "--dry-run"))
    assert git(sampler.store, "for-each-ref") == refs
    exact(sampler, ALL)


def test_ids_do_not_depend_on_where_or_from_what(
    sampler: Project, make_project: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another folder, a hostile user configuration, GIT_* in the environment, a bare upstream with more history."""
    home = tmp_path / "hostile"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[core]\nautocrlf = true\nhooksPath = /nonexistent\nquotePath = true\n[commit]\ngpgsign = true\n"
        "[diff]\nnoprefix = true\nmnemonicPrefix = true\ncontext = 1\nalgorithm = patience\n"
        "[apply]\nwhitespace = fix\n[merge]\nconflictStyle = zdiff3\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "1999-01-01T00:00:00Z")
    monkeypatch.setenv("GIT_DIFF_OPTS", "-u1")
    other = make_project("a folder with spaces é")
    other.fill()
    ok(other.run("apply"))
    ok(sampler.run("apply"))
    assert git(other.store, "rev-parse", "refs/llamapatch/applied") == git(
        sampler.store, "rev-parse", "refs/llamapatch/applied"
    )
    assert (other.root / "patches/series.lock").read_bytes() == (sampler.root / "patches/series.lock").read_bytes()


def test_the_store_outlives_the_cache_and_the_users_repository(sampler: Project, tmp_path: Path) -> None:
    ok(sampler.run("apply", "foundation"))
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    shutil.rmtree(sampler.upstream)
    (sampler.root / "llamapatch.toml").write_text("")
    ok(sampler.run("apply"))
    exact(sampler, ALL)
