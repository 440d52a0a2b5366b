"""``rebase`` from the command line: whole outputs, exit codes, trees, and that nothing moves before it is accepted."""

from __future__ import annotations

import json
import shutil
import tarfile
import tomllib
from pathlib import Path

import pytest
from filelock import FileLock

from llamapatch.config import Settings
from tests.project import MMVQ, Project, git
from tests.rebase.toy import on_disk, parked, release, statuses


@pytest.fixture
def drifted(sampler: Project) -> Project:
    """v0.6.0 adds a line far from every patch to two of the files."""
    git(sampler.upstream, "tag", "v0.5.0")
    release(
        sampler,
        "v0.6.0",
        replace={
            "src/sampling.cpp": ("// line 3\n", "// line 3\n// line 3b\n"),
            "src/mmvq.cpp": ('#include "common.h"\n', '#include "common.h"\n#include "new.h"\n'),
        },
    )
    return sampler


def test_clean_there_and_back(drifted: Project) -> None:
    before = on_disk(drifted)
    tree = git(drifted.upstream, "rev-parse", "v0.6.0^{tree}")
    dry = drifted.run("rebase", "--onto", "v0.6.0", "--dry-run")
    assert (dry.code, on_disk(drifted) == before) == (0, True)
    table = [line.rstrip() for line in dry.out.splitlines()]
    assert table == [
        f"onto llama.cpp v0.6.0, tree {tree}, 1 commits after the pin",
        "patch       status  files          hunks  what happened",
        "foundation  exact   2              1",
        "sampler     merged  2 (1 changed)  1      line 11 -> 12",
        "warps       merged  4 (2 changed)  4      line 19 -> 20, line 31 -> 32",
        "warps-more  merged  1 (1 changed)  1      line 19 -> 20",
        "",
        "every patch would go through; nothing was changed",
    ]
    done = drifted.run("rebase", "--onto", "v0.6.0")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-2:] == [
        "rebased: 6 files of the series written",
        "`llamapatch apply` brings the worktree there",
    ]
    assert drifted.series().pin.version == "v0.6.0"
    assert drifted.series().pin.tree == tree
    assert [s.model_dump(exclude_defaults=True) for s in drifted.series().pin.source] == [
        {"kind": "git", "url": "https://example.org/llama.cpp", "ref": "v0.6.0"}
    ]
    changed = {path for path, data in on_disk(drifted).items() if before.get(path) != data}
    assert changed == {
        "patches/phase1/sampler/change.patch",
        "patches/phase2/warps-more/change.patch",
        "patches/phase2/warps/change.patch",
        "patches/preimages.bundle",
        "patches/series.lock",
        "patches/series.toml",
    }
    assert drifted.run("lock", "--check").code == 0
    assert drifted.run("apply").code == 0
    assert drifted.run("verify").code == 0
    # git itself, on its own copy: the series' commits picked onto the new release.
    git(drifted.witness, "fetch", "-q", "--tags", str(drifted.upstream))
    git(drifted.witness, "checkout", "-q", "-b", "there", "v0.6.0")
    git(drifted.witness, "cherry-pick", *git(drifted.witness, "rev-list", "--reverse", "v0.5.0..master").split())
    assert drifted.applied_tree() == git(drifted.witness, "rev-parse", "there^{tree}")
    # And back: the very same bytes, a blank line in series.toml apart.
    assert drifted.run("rebase", "--onto", "v0.5.0").code == 0
    after = on_disk(drifted)
    toml = "patches/series.toml"
    assert tomllib.loads(after[toml].decode()) == tomllib.loads(before[toml].decode())
    assert after | {toml: before[toml]} == before


def test_undo_and_redo(drifted: Project) -> None:
    """A rebase is one entry of the journal: everything goes back together, the applied tree stays what it was."""
    assert drifted.run("apply", "sampler").code == 0
    applied, before = drifted.applied_tree(), on_disk(drifted)
    assert drifted.run("rebase", "--onto", "v0.6.0").code == 0
    after = on_disk(drifted)
    assert drifted.applied_tree() == applied
    assert drifted.run("undo").code == 0
    assert (on_disk(drifted), drifted.applied_tree()) == (before, applied)
    assert drifted.run("verify").code == 0
    assert drifted.run("redo").code == 0
    assert on_disk(drifted) == after
    assert drifted.run("apply", "sampler").code == 0
    assert drifted.run("verify").code == 0
    assert "// line 3b\n" in (drifted.patched / "src/sampling.cpp").read_text()


def test_json(drifted: Project) -> None:
    result = drifted.run("rebase", "--onto", "v0.6.0", "--dry-run", "--json")
    data = json.loads(result.out)
    assert result.code == 0
    assert (data["schema"], data["dry_run"], data["done"], data["files"], data["parked"]) == (1, True, True, [], None)
    assert data["onto"] == {
        "spec": "v0.6.0",
        "version": "v0.6.0",
        "tree": git(drifted.upstream, "rev-parse", "v0.6.0^{tree}"),
        "behind": {"commits": 1, "releases": 1},
    }
    assert [(p["id"], p["status"]) for p in data["patches"]] == [
        ("foundation", "exact"),
        ("sampler", "merged"),
        ("warps", "merged"),
        ("warps-more", "merged"),
    ]
    assert data["patches"][1]["files"][1]["changes"] == [
        {
            "fate": "placed",
            "why": "",
            "before": {"line": 11, "function": ""},
            "now": {"line": 12, "function": ""},
        }
    ]


@pytest.fixture
def clash(sampler: Project) -> Project:
    """v0.6.0 rewrites the very line that `warps` changes."""
    git(sampler.upstream, "tag", "v0.5.0")
    release(sampler, "v0.6.0", replace={"src/sampling.cpp": ("// line 30\n", "// line thirty\n")})
    return sampler


def test_conflict_continue_reuse(clash: Project) -> None:
    before = on_disk(clash)
    stopped = clash.run("rebase", "--onto", "v0.6.0")
    assert stopped.code == 3
    folder = parked(clash)
    assert stopped.out.splitlines()[6:] == [
        "",
        "warps: src/sampling.cpp: conflict in `sample();`",
        "    upstream made line 31 of line 31",
        "    <<<<<<< upstream",
        "    // line thirty",
        "    ||||||| before",
        "    // line 30",
        "    =======",
        "    // line 30, warps",
        "    >>>>>>> warps",
    ]
    assert stopped.err.splitlines()[-1] == (
        "error: `warps` stopped: conflict (src/sampling.cpp:31: both sides changed `sample();`). The series is unchanged; "
        f"the patch waits in {folder}. Settle it there and run `llamapatch rebase --continue`, or leave it out with "
        "`--skip`, or end with `--abort`."
    )
    assert on_disk(clash) == before
    assert clash.applied() == []
    # What merged of the patch is there, the conflict with all three sides.
    text = (folder / "src/sampling.cpp").read_text()
    marks = "<<<<<<< upstream\n// line thirty\n||||||| before\n// line 30\n=======\n// line 30, warps\n>>>>>>> warps\n"
    assert marks in text
    assert "calc_nwarps(n) + 1;" in (folder / "src/mmvq.cpp").read_text()
    assert not (folder / "src/old.cpp").exists()
    assert clash.run("verify").code == 0  # a person is at work there
    assert (
        "rebase    onto v0.6.0, stopped at warps; `llamapatch rebase --continue`, `--skip` or `--abort`\n"
        in clash.run("status").out
    )
    undecided = clash.run("rebase", "--continue")
    assert (undecided.code, undecided.out) == (3, "")
    assert undecided.err == (
        f"error: {folder}/src/sampling.cpp still has conflict markers. Decide each, then run `llamapatch rebase "
        "--continue`; or leave the patch out with `--skip`.\n"
    )
    (folder / "src/sampling.cpp").write_text(text.replace(marks, "// line thirty, warps\n"))
    done = clash.run("rebase", "--continue")
    assert done.code == 0, done.err
    assert statuses(done.out)["warps"] == "conflict, decided"
    assert "resolutions recorded: 1\n" in done.out
    assert not folder.exists()
    assert clash.run("lock", "--check").code == 0
    assert clash.run("apply").code == 0
    assert "// line thirty, warps\n" in (clash.patched / "src/sampling.cpp").read_text()
    recorded = [path for path in on_disk(clash) if "/resolutions/" in path]
    assert len(recorded) == 1
    assert json.loads(on_disk(clash)[recorded[0]]) == {
        "schema": 1,
        "path": "src/sampling.cpp",
        "function": "sample();",
        "before": ["// line 30\n"],
        "upstream": ["// line thirty\n"],
        "patch": ["// line 30, warps\n"],
        "resolved": ["// line thirty, warps\n"],
    }
    after = on_disk(clash)
    # The same conflict again, from the old series with the resolution beside it: reused, and shown as such.
    for path in after:
        (clash.root / path).unlink()
    for path, data in (before | {recorded[0]: after[recorded[0]]}).items():
        (clash.root / path).parent.mkdir(parents=True, exist_ok=True)
        (clash.root / path).write_bytes(data)
    again = clash.run("rebase", "--onto", "v0.6.0")
    assert again.code == 0, again.err
    assert [line.rstrip() for line in again.out.splitlines()][4:9] == [
        "warps       merged  4 (1 changed)  4      1 resolution reused",
        "warps-more  exact   1              1",
        "",
        "warps: src/sampling.cpp: a recorded resolution was reused",
        "    before  line 31, in `sample();`",
    ]
    assert on_disk(clash) == after


def test_edits_beyond_the_conflict_are_taken_and_not_recorded(clash: Project) -> None:
    assert clash.run("rebase", "--onto", "v0.6.0").code == 3
    path = parked(clash) / "src/sampling.cpp"
    text = path.read_text().replace("// line 40\n", "// line forty\n")
    start, stop = text.index("<<<<<<< "), text.index(">>>>>>> warps\n") + len(">>>>>>> warps\n")
    path.write_text(text[:start] + "// decided\n" + text[stop:])
    done = clash.run("rebase", "--continue")
    assert done.code == 0, done.err
    assert "not recorded: src/sampling.cpp was edited beyond its conflicts\n" in done.out
    assert not [p for p in on_disk(clash) if "/resolutions/" in p]
    assert b"+// line forty\n" in on_disk(clash)["patches/phase2/warps/change.patch"]


def test_settled_in_another_file(project: Project) -> None:
    """Upstream removed the file and has its content elsewhere: a person makes the change there, and in a new file."""
    project.patch("lost", replace={"src/no-newline.txt": ("one\n", "one and a half\n")})
    assert project.run("lock").code == 0
    release(project, "v0.6.0", edit={"src/no-newline.txt": None, "run.sh": "#!/bin/sh\necho one two\n"})
    assert project.run("rebase", "--onto", "v0.6.0").code == 3
    nothing = project.run("rebase", "--continue")
    assert nothing.code == 3
    assert nothing.err == (
        f"error: `lost` is missing-file, and nothing was changed for it. Make the change in {parked(project)}, or leave "
        "the patch out with `llamapatch rebase --skip`.\n"
    )
    (parked(project) / "run.sh").write_text("#!/bin/sh\necho one and a half two\n")
    (parked(project) / "src/half.txt").write_text("half\n")
    done = project.run("rebase", "--continue")
    assert done.code == 0, done.err
    assert project.run("apply").code == 0
    assert (project.patched / "src/half.txt").read_text() == "half\n"
    assert (project.patched / "run.sh").read_text() == "#!/bin/sh\necho one and a half two\n"
    assert project.run("verify").code == 0


def test_a_resolution_that_leaves_nothing(project: Project) -> None:
    project.patch("x", replace={"src/sampling.cpp": ("// line 30\n", "// line 30, x\n")})
    assert project.run("lock").code == 0
    release(project, "v0.6.0", replace={"src/sampling.cpp": ("// line 30\n", "// line thirty\n")})
    assert project.run("rebase", "--onto", "v0.6.0").code == 3
    path = parked(project) / "src/sampling.cpp"
    path.write_bytes((project.upstream / "src/sampling.cpp").read_bytes())
    result = project.run("rebase", "--continue")
    assert result.code == 3
    assert result.err == (
        f"error: nothing of `x` is left: {parked(project)} is what it was before the patch. Leave the patch out with "
        "`llamapatch rebase --skip`.\n"
    )
    # It is the only patch, so nothing would remain of the series.
    assert project.run("rebase", "--skip").code == 3
    assert project.series().pin.version == "v0.5.0"
    assert project.run("rebase", "--abort").code == 0


def test_an_edit_says_more_than_accept(doubtful: Project) -> None:
    assert doubtful.run("rebase", "--onto", "v0.6.0").code == 3
    path = parked(doubtful) / "src/mmvq.cpp"
    path.write_text(path.read_text().replace("return lp(1);", "return lp(2);"))
    done = doubtful.run("rebase", "--continue", "--accept", "rows")
    assert done.code == 0, done.err
    assert statuses(done.out) == {"rows": "relocated, decided"}
    assert b"+    return lp(2);\n" in on_disk(doubtful)["patches/phase1/rows/change.patch"]


def test_abort(clash: Project) -> None:
    before = on_disk(clash)
    assert clash.run("rebase", "--onto", "v0.6.0").code == 3
    result = clash.run("rebase", "--abort")
    assert (result.code, result.out) == (0, "the rebase onto v0.6.0 is ended; the series is as it was\n")
    assert on_disk(clash) == before
    assert not parked(clash).exists()
    assert clash.run("verify").code == 0
    assert clash.run("rebase", "--abort").code == 2


def test_skip_takes_the_patch_and_then_its_dependents_out(clash: Project) -> None:
    assert clash.run("rebase", "--onto", "v0.6.0").code == 3
    second = clash.run("rebase", "--skip")
    assert second.code == 3
    assert statuses(second.out) == {
        "foundation": "exact",
        "sampler": "merged",
        "warps": "conflict, skipped",
        "warps-more": "blocked",
    }
    done = clash.run("rebase", "--skip")
    assert done.code == 0, done.err
    assert clash.series().ids == ("foundation", "sampler")
    assert not [p for p in on_disk(clash) if "phase2" in p]
    assert clash.run("lock", "--check").code == 0


def test_keep_going_tries_everything_and_changes_nothing(sampler: Project) -> None:
    """One upstream with everything in it: each status once."""
    git(sampler.upstream, "tag", "v0.5.0")
    sampler.patch("apart", "phase2", replace={"run.sh": ("exit 0\n", "exit 3\n")})
    sampler.patch("taken", "phase2", replace={"README.md": ("# llama.cpp\n", "# llama.cpp\n\nFast.\n")})
    sampler.patch("moved", "phase2", edit={"src/common.h": "#pragma once\n#define LP 1\n"})
    sampler.patch("lost", "phase2", replace={"src/no-newline.txt": ("one\n", "one and a half\n")})
    sampler.patch(
        "on-warps", "phase2", replace={"src/sampling.cpp": ("// line 30, warps\n", "// line 30, warps, more\n")}
    )
    assert sampler.run("lock").code == 0
    before = on_disk(sampler)
    release(
        sampler,
        "v0.6.0",
        replace={"src/sampling.cpp": ("// line 30\n", "// line thirty\n")},
        edit={
            "README.md": "# llama.cpp\n\nFast.\n",
            "src/common.h": None,
            "include/common.h": "#pragma once\n",
            "src/no-newline.txt": None,
        },
    )
    result = sampler.run("rebase", "--onto", "v0.6.0", "--keep-going")
    assert result.code == 3
    assert statuses(result.out) == {
        "foundation": "exact",
        "sampler": "merged",
        "warps": "conflict",
        "warps-more": "blocked",
        "apart": "exact",
        "taken": "already-upstream",
        "moved": "renamed",
        "lost": "missing-file",
        "on-warps": "blocked",
    }
    lines = [line.rstrip() for line in result.out.splitlines()]
    assert "warps-more  blocked           -              1      requires warps" in lines
    assert "taken       already-upstream  1 (1 changed)  1      would leave the series" in lines
    assert "moved       renamed           1 (1 changed)  1      src/common.h is now include/common.h" in lines
    assert "lost        missing-file      1 (1 changed)  1      changes src/no-newline.txt, which is gone" in lines
    assert "on-warps    blocked           1 (1 changed)  1      builds on warps" in lines
    assert on_disk(sampler) == before


TWIN = MMVQ[MMVQ.index("static int calc_nwarps") : MMVQ.index("int launch")]


@pytest.fixture
def doubtful(project: Project) -> Project:
    """A patch in `calc_rows`; v0.6.0 renames that function and adds one of the same shape above it."""
    project.patch("rows", edit={"src/mmvq.cpp": MMVQ.replace("return 1;", "return lp(1);", 1)})
    assert project.run("lock").code == 0
    git(project.upstream, "tag", "v0.5.0")
    now = MMVQ.replace("calc_rows", "rows_per_block").replace(
        "static int rows_per_block", TWIN.replace("calc_nwarps", "calc_tiles") + "static int rows_per_block"
    )
    release(project, "v0.6.0", edit={"src/mmvq.cpp": now})
    return project


def test_relocated_stops_until_accepted(doubtful: Project) -> None:
    before = on_disk(doubtful)
    stopped = doubtful.run("rebase", "--onto", "v0.6.0")
    assert stopped.code == 3
    assert statuses(stopped.out) == {"rows": "relocated"}
    shown = stopped.out.splitlines()[3:]
    assert shown[1].startswith(
        "rows: src/mmvq.cpp: relocated: it stood in `static int calc_rows(int n) {` and would stand"
    )
    assert shown[2] == "    before  line 7, in `static int calc_rows(int n) {`"
    assert shown[3].startswith("    now     line 14, in `static int rows_per_block(int n) {`")
    assert on_disk(doubtful) == before
    unmoved = doubtful.run("rebase", "--continue")
    assert unmoved.code == 3
    assert unmoved.err == (
        "error: `rows` is relocated, and nothing was changed for it. If it is right as it is, say `llamapatch rebase "
        "--continue --accept rows`.\n"
    )
    done = doubtful.run("rebase", "--continue", "--accept", "rows")
    assert done.code == 0, done.err
    assert statuses(done.out) == {"rows": "relocated, accepted"}
    assert doubtful.run("apply").code == 0
    text = (doubtful.patched / "src/mmvq.cpp").read_text()
    assert text[text.index("static int rows_per_block") :].split("}\n\n")[0].endswith("    return lp(1);\n")
    assert text.count("lp(1)") == 1


def test_accepted_beforehand(doubtful: Project) -> None:
    assert doubtful.run("rebase", "--onto", "v0.6.0", "--accept", "rows").code == 0
    assert doubtful.series().pin.version == "v0.6.0"


def test_upstream_took_the_patch(project: Project) -> None:
    project.patch("taken", replace={"README.md": ("# llama.cpp\n", "# llama.cpp\n\nFast.\n")})
    project.patch("after", replace={"run.sh": ("exit 0\n", "exit 3\n")}, requires=("taken",))
    assert project.run("lock").code == 0
    release(project, "v0.6.0", edit={"README.md": "# llama.cpp\n\nFast.\n"})
    before = on_disk(project)
    stopped = project.run("rebase", "--onto", "v0.6.0")
    assert stopped.code == 3
    assert statuses(stopped.out) == {"taken": "already-upstream", "after": "exact"}
    assert on_disk(project) == before
    done = project.run("rebase", "--continue", "--accept", "taken")
    assert done.code == 0, done.err
    assert project.series().ids == ("after",)
    assert project.series().get("after").meta.requires == []
    assert not (project.root / "patches/phase1/taken").exists()


def test_the_old_tree_is_not_needed(drifted: Project, tmp_path: Path) -> None:
    """Upstream is a tarball of the new release; neither store nor cache know the old one."""
    archive = tmp_path / "llama.cpp-0.6.0.tar.gz"
    folder = tmp_path / "unpacked" / "llama.cpp-0.6.0"
    shutil.copytree(drifted.upstream, folder, symlinks=True)
    shutil.rmtree(folder / ".git")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    shutil.rmtree(drifted.state)
    shutil.rmtree(drifted.root.parent / "cache", ignore_errors=True)
    (drifted.root / "llamapatch.toml").write_text("")
    for where in (archive, folder):
        dry = drifted.run("rebase", "--onto", str(where), "--as", "v0.6.0", "--dry-run")
        assert dry.code == 0, dry.err
        assert set(statuses(dry.out).values()) == {"exact", "merged"}
    done = drifted.run("rebase", "--onto", str(archive), "--as", "v0.6.0")
    assert done.code == 0, done.err
    assert drifted.series().pin.tree == git(drifted.upstream, "rev-parse", "v0.6.0^{tree}")
    assert [s.kind for s in drifted.series().pin.source] == ["tarball"]
    assert drifted.run("apply").code == 0


def test_a_shallow_clone_and_a_bare_repository(drifted: Project, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{drifted.upstream}", "shallow")
    git(tmp_path, "clone", "-q", "--bare", str(drifted.upstream), "bare.git")
    for name in ("shallow", "bare.git"):
        result = drifted.run("rebase", "--onto", str(tmp_path / name), "--dry-run", "--json")
        assert result.code == 0, result.err
        data = json.loads(result.out)
        assert data["onto"]["version"] == "v0.6.0"
        assert data["onto"]["behind"]["commits"] == (1 if name == "bare.git" else None)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "give one of --onto, --continue, --skip and --abort."),
        (["--onto", "v0.6.0", "--skip"], 2, "give one of --onto, --continue, --skip and --abort."),
        (["--continue", "--dry-run"], 2, "--dry-run goes with --onto."),
        (["--continue"], 2, "no rebase is under way."),
        (["--skip"], 2, "no rebase is under way."),
        (["--abort"], 2, "no rebase is under way."),
        (["--onto", "npm:nonsense"], 2, "--onto npm:nonsense is no source."),
        (["--onto", "./nowhere"], 2, "--onto ./nowhere is no path that exists, and no ref."),
        (["--onto", "--upload-pack=x"], 2, "--onto --upload-pack=x is no path that exists, and no ref."),
        (["--onto", "v0.6.0", "--accept", "nobody"], 2, "there is no patch `nobody`."),
        (["--onto", "v9.9.9"], 1, "git https://example.org/llama.cpp v9.9.9:"),
    ],
)
def test_refusals(drifted: Project, words: list[str], code: int, says: str) -> None:
    before = on_disk(drifted)
    result = drifted.run("rebase", *words)
    assert (result.code, result.out) == (code, "")
    assert says in result.err
    assert on_disk(drifted) == before


def test_a_ref_that_the_server_does_not_have(drifted: Project) -> None:
    toml = drifted.root / "patches/series.toml"
    toml.write_text(toml.read_text().replace("https://example.org/llama.cpp", f"file://{drifted.upstream}"))
    result = drifted.run("rebase", "--onto", "v9.9.9")
    assert result.code == 2
    assert f"git file://{drifted.upstream} v9.9.9: it has no v9.9.9. Check the name and the version." in result.err


def test_states_that_are_in_the_way(clash: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Settings = clash.settings()
    monkeypatch.setattr("llamapatch.tree.store.LOCK_SECONDS", 0.1)
    settings.state.mkdir(exist_ok=True)
    with FileLock(settings.state / "lock"):
        assert clash.run("rebase", "--onto", "v0.6.0").code == 5
    assert clash.run("rebase", "--onto", "v0.6.0").code == 3
    again = clash.run("rebase", "--onto", "v0.6.0")
    assert again.code == 2
    assert "a rebase is under way." in again.err
    owned = parked(clash) / "lp/sampler.cpp"
    owned.write_text("void sample() { edited(); }\n")
    result = clash.run("rebase", "--continue")
    assert result.code == 2
    assert "lp/sampler.cpp is an overlay file of `sampler`; its source lies in ggml_kernels/." in result.err
    # The series changes underneath.
    (clash.root / "ggml_kernels/sampler/sampler.cpp").write_text("void sample() { other(); }\n")
    for word in ("--continue", "--skip"):
        result = clash.run("rebase", word)
        assert result.code == 4
        assert "the series has changed since the rebase began." in result.err
    assert clash.run("rebase", "--abort").code == 0
    stale = clash.run("rebase", "--onto", "v0.6.0")
    assert stale.code == 4
    assert "patches/series.lock is out of date. Run `llamapatch lock` first." in stale.err
    assert clash.run("lock").code == 0
    (clash.root / "patches/preimages.bundle").unlink()
    missing = clash.run("rebase", "--onto", "v0.6.0", "--dry-run")
    assert missing.code == 4
    assert "patches/preimages.bundle does not exist." in missing.err


def test_a_damaged_resolution_is_named(clash: Project) -> None:
    folder = clash.folder("warps") / "resolutions"
    folder.mkdir()
    (folder / "x.json").write_text("{}")
    result = clash.run("rebase", "--onto", "v0.6.0", "--dry-run")
    assert result.code == 2
    assert f"{folder}/x.json is no recorded resolution. Mend or remove it." in result.err


def test_the_packaged_series_is_read_only(drifted: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(drifted, "root", empty)
    result = drifted.run("rebase", "--onto", str(drifted.upstream))
    assert result.code == 2
    assert "it is read-only here." in result.err
