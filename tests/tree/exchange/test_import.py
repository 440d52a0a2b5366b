"""Patches come in from everything that others write, and from our own exports to the byte."""

from __future__ import annotations

import base64
import email.mime.application
import email.mime.multipart
import json
import os
import quopri
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import GIT_ENV, MMVQ, Project, git
from tests.tree.exchange.conftest import clean_clone

Make = Callable[[str], Project]


def facts(project: Project) -> dict[str, bytes]:
    """Every file of the series that people write, by its path."""
    found = {}
    for top in ("patches", "ggml_kernels"):
        for path in sorted((project.root / top).rglob("*")):
            if path.is_file() and path.name not in ("series.toml", "series.lock", "preimages.bundle"):
                found[path.relative_to(project.root).as_posix()] = path.read_bytes()
    return found


def commit(clone: Path, message: str, files: dict[str, str | None], *args: str) -> str:
    """One commit in a fork; returns its id."""
    for name, text in files.items():
        if text is None:
            (clone / name).unlink()
        else:
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes(text.encode())
    git(clone, "add", "-A", "-f")
    git(clone, "commit", "-q", "-m", message, *args)
    return git(clone, "rev-parse", "HEAD")


def tip_tree(project: Project) -> str:
    lock = project.series().lock
    assert lock is not None
    return lock.patches[-1].tree if lock.patches else lock.upstream_tree


@pytest.mark.parametrize("form", ["--mbox", "--quilt"])
def test_our_own_exports_come_back_to_the_byte(hard: Project, make_project: Make, tmp_path: Path, form: str) -> None:
    """import(export(x)): the same patch.toml, README.md, change.patch and kernels; export(import(y)): the same y."""
    selector = "all" if form == "--mbox" else "..last"
    ids = list(hard.series().ids) if form == "--mbox" else list(hard.series().ids)[:-1]
    exported = tmp_path / "exported"
    assert hard.run("export", selector, form, "-o", str(exported)).code == 0
    other = make_project("other")
    assert other.run("lock").code == 0
    result = other.run("import", str(exported))
    assert result.code == 0, result.err + result.out
    assert list(other.series().ids) == ids
    mine = {k: v for k, v in facts(hard).items() if "/folder/" not in k or form == "--mbox"}
    assert facts(other) == mine
    assert [p.tree for p in other.series().lock.patches] == [hard.trees[i] for i in ids]  # type: ignore[union-attr]
    again = tmp_path / "again"
    assert other.run("export", form, "-o", str(again)).code == 0
    if form == "--mbox":
        assert again.read_bytes() == exported.read_bytes()
    else:
        assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in exported.iterdir()}
    assert other.run("check").code == 0
    assert other.run("verify").code == 0


HARD_MESSAGE = """\
[x] ggml : a title : with colons

The message quotes a patch:

---
diff --git a/README.md b/README.md
--- a/README.md
+++ b/README.md
@@ -1 +1 @@
-# llama.cpp
+# quoted
---

and goes on.

Co-authored-by: Bob <bob@localhost>
"""


@pytest.fixture
def fork(project: Project, tmp_path: Path) -> Path:
    """Three commits on upstream: text, a binary file with a mode, a rename with a change."""
    assert project.run("lock").code == 0
    clone = clean_clone(project, tmp_path / "fork")
    (clone / "message").write_text(HARD_MESSAGE)
    os.environ["GIT_AUTHOR_DATE"] = "2026-05-06T23:30:00-0500"
    (clone / "src/sampling.cpp").write_text(
        (clone / "src/sampling.cpp").read_text().replace("// line 5\n", "// five\n")
    )
    (clone / "src/crlf.txt").write_bytes(b"one\r\nzwei\r\nthree\r\n")
    git(clone, "add", "-A", ":!message")
    git(clone, "commit", "-q", "-F", "message")
    (clone / "message").unlink()
    (clone / "tool").write_bytes(b"\0\1\2" * 300)
    (clone / "tool").chmod(0o755)
    commit(clone, "ggml-cuda: add a tool (#1234)", {})
    text = MMVQ.replace("return 1;\n}\n\nint launch", "return 3;\n}\n\nint launch")
    commit(clone, "Move it", {"src/mmvq.cpp": None, "src/mmvq2.cpp": text})
    return clone


def test_format_patch_and_mbox(project: Project, fork: Path, tmp_path: Path) -> None:
    """What git format-patch writes, quotations, brackets, binary files, modes and renames included."""
    git(fork, "format-patch", "-q", "-o", str(tmp_path / "out"), "HEAD~3")
    result = project.run("import", str(tmp_path / "out"), "--phase", "phase1", "--reason", "Needed.")
    assert result.code == 0, result.err + result.out
    assert result.out == (
        "0001-x-ggml-a-title-with-colons.patch  exact  x-ggml-a-title-with-colons\n"
        "0002-ggml-cuda-add-a-tool-1234.patch   exact  ggml-cuda-add-a-tool-1234\n"
        "0003-Move-it.patch                     exact  move-it\n"
        "taken: x-ggml-a-title-with-colons, ggml-cuda-add-a-tool-1234, move-it\n"
    )
    assert tip_tree(project) == git(fork, "rev-parse", "HEAD^{tree}")
    patch = project.series().patches[0]
    assert patch.meta.title == "[x] ggml : a title : with colons"
    assert patch.meta.authors == ["a <a@localhost>", "Bob <bob@localhost>"]
    assert patch.meta.upstream.reason == "Needed."
    assert HARD_MESSAGE.partition("\n\n")[2].strip() in (patch.folder / "README.md").read_text()
    mailbox = subprocess.run(
        ["git", "format-patch", "--stdout", "HEAD~3"], cwd=fork, env=GIT_ENV, capture_output=True
    ).stdout
    (tmp_path / "all.mbox").write_bytes(mailbox)
    result = project.run("import", str(tmp_path / "all.mbox"), "--phase", "phase2")
    assert result.code == 0
    assert result.out == (
        "all.mbox #1  already-upstream  -  the tree has it already\n"
        "all.mbox #2  already-upstream  -  the tree has it already\n"
        "all.mbox #3  already-upstream  -  the tree has it already\n"
        "nothing was taken\n"
    )
    assert project.run("check").code == 0


def test_encoded_mail(project: Project, fork: Path, tmp_path: Path) -> None:
    """What mail systems do: base64, quoted-printable, an attachment, CRLF line ends throughout, a folded subject."""
    command = ["git", "format-patch", "--stdout", "HEAD~2..HEAD~1"]
    raw = subprocess.run(command, cwd=fork, env=GIT_ENV, capture_output=True, check=True).stdout
    head, _, body = raw.partition(b"\n\n")
    whole = email.mime.multipart.MIMEMultipart()
    whole["From"], whole["Date"], whole["Subject"] = "a <a@localhost>", "Wed, 6 May 2026 23:30:00 -0500", "[PATCH] it"
    part = email.mime.application.MIMEApplication(body)
    part.add_header("Content-Disposition", "attachment", filename="x.patch")
    whole.attach(part)
    forms = {
        "b64": head + b"\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(body),
        "qp": head + b"\nContent-Transfer-Encoding: quoted-printable\n\n" + quopri.encodestring(body),
        "dos": raw.replace(b"\n", b"\r\n"),
        "part": b"From x Mon Sep 17 00:00:00 2001\n" + whole.as_bytes(),
        "folded": raw.replace(b"Subject: [PATCH] ", b"Subject: [PATCH v2\n 1/1] Re: "),
    }
    for name, data in forms.items():
        (tmp_path / name).write_bytes(data)
        result = project.run("import", str(tmp_path / name), "--phase", "phase1", "--dry-run", "--json")
        assert result.code == 0, (name, result.out, result.err)
        rows = json.loads(result.out)["rows"]
        wanted = "it" if name == "part" else "ggml-cuda-add-a-tool-1234"
        assert [(r["id"], r["status"], r["taken"]) for r in rows] == [(wanted, "exact", True)], name


PLAIN = """\
What it does, in one paragraph
that goes on.

--- llama.cpp-old/src/old.cpp\t2026-01-01 00:00:00
+++ llama.cpp/src/old.cpp\t2026-01-02 00:00:00
@@ -1 +1,2 @@ function text
 int old_thing() { return 0; }
+int more_thing() { return 1; }
Only in llama.cpp: nothing
diff -ruN llama.cpp-old/src/n.cpp llama.cpp/src/n.cpp
--- llama.cpp-old/src/n.cpp\t1970-01-01 00:00:00.000000000 +0000
+++ llama.cpp/src/n.cpp\t2026-01-02 00:00:00
@@ -0,0 +1 @@
+new
"""


def test_a_plain_diff(project: Project, tmp_path: Path) -> None:
    """diff -ruN, whose names have a folder before them; exact or not at all."""
    assert project.run("lock").code == 0
    (tmp_path / "0007-fix_it.diff").write_text(PLAIN)
    result = project.run("import", str(tmp_path / "0007-fix_it.diff"), "--phase", "phase1", "--class", "equivalent")
    assert result.code == 0, result.err + result.out
    assert result.out == "0007-fix_it.diff  exact  fix-it\ntaken: fix-it\n"
    patch = project.series().get("fix-it")
    assert patch.meta.title == "fix it"
    assert patch.meta.effect.effect_class == "equivalent"
    assert patch.meta.authors == ["unknown <unknown@localhost>"]
    assert patch.diff.decode() == (
        "diff --git a/src/n.cpp b/src/n.cpp\nnew file mode 100644\n--- /dev/null\n+++ b/src/n.cpp\n@@ -0,0 +1 @@\n+new\n"
        "diff --git a/src/old.cpp b/src/old.cpp\n--- a/src/old.cpp\n+++ b/src/old.cpp\n@@ -1 +1,2 @@\n"
        " int old_thing() { return 0; }\n+int more_thing() { return 1; }\n"
    )
    # One line off: patch and git apply would take it.
    (tmp_path / "off.diff").write_text(PLAIN.replace("@@ -1 +1,2 @@", "@@ -2 +2,2 @@").replace("n.cpp", "m.cpp"))
    result = project.run("import", str(tmp_path / "off.diff"), "--phase", "phase1")
    assert result.code == 3
    assert result.out == (
        "off.diff  conflict  -  the patch: src/old.cpp, hunk 1 does not match at line 2: the tree has `int more_thing() "
        "{ return 1; }`, the patch expects `int old_thing() { return 0; }` (and the file that it was made for is not at "
        "hand)\n"
        "nothing was taken: not everything fits\n"
    )


def test_no_prefix_and_strip(project: Project, tmp_path: Path) -> None:
    """Paths without a/ and b/, found out; and with two folders more, told by --strip."""
    assert project.run("lock").code == 0
    body = "@@ -1 +1 @@\n-#pragma once\n+#pragma twice\n"
    (tmp_path / "p0.diff").write_text(
        "diff --git src/common.h src/common.h\n--- src/common.h\n+++ src/common.h\n" + body
    )
    (tmp_path / "p3.diff").write_text("--- a/x/y/src/common.h\n+++ b/x/y/src/common.h\n" + body)
    assert project.run("import", str(tmp_path / "p0.diff"), "--phase", "phase1", "--dry-run").code == 0
    assert project.run("import", str(tmp_path / "p3.diff"), "--phase", "phase1", "--dry-run").code == 3
    assert project.run("import", str(tmp_path / "p3.diff"), "--phase", "phase1", "--dry-run", "--strip", "3").code == 0


DEP3 = """\
Description: Use two warps
 They are faster than one.
 .
 A second paragraph.
Author: Jörg <j@localhost>
Origin: vendor
Forwarded: https://example.org/pull/7
Last-Update: 2026-02-03
---
This patch header follows DEP-3: http://dep.debian.net/deps/dep3/
--- a/src/mmvq.cpp
+++ b/src/mmvq.cpp
@@ -18,4 +18,4 @@
     int rows = calc_rows(n);
-    int warps = calc_nwarps(n);
+    int warps = 2;
     return rows * warps;
 }
"""


def test_a_quilt_folder(project: Project, tmp_path: Path) -> None:
    """DEP-3 headers, -p0, comments, a name in a folder; what series does not list or cannot have is reported."""
    assert project.run("lock").code == 0
    quilt = tmp_path / "debian"
    (quilt / "sub").mkdir(parents=True)
    listed = "# our queue\nwarps.diff # why\nsub/p0.patch -p0\ngone.patch\n../../x.patch\nrev.patch -R\n"
    (quilt / "series").write_text(listed)
    (quilt / "warps.diff").write_text(DEP3)
    (quilt / "sub/p0.patch").write_text(
        "Subject: one\nApplied-Upstream: https://example.org/c/1\n\n--- src/common.h\n+++ src/common.h\n@@ -1 +1 @@\n"
        "-#pragma once\n+#pragma twice\n"
    )
    (quilt / "rev.patch").write_text(DEP3)
    (quilt / "stray.patch").write_text(DEP3)
    result = project.run("import", str(quilt), "--phase", "phase1")
    assert result.code == 0, result.err + result.out
    assert result.out == (
        "warps.diff     exact    use-two-warps\n"
        "sub/p0.patch   exact    one\n"
        "gone.patch     skipped  -              series lists it, but it is not there\n"
        "../../x.patch  skipped  -              its path leaves the folder\n"
        "rev.patch      skipped  -              series applies it in reverse (-R)\n"
        "stray.patch    skipped  -              series does not list it\n"
        "taken: use-two-warps, one\n"
    )
    meta = project.series().get("use-two-warps").meta
    assert (meta.title, meta.authors, meta.date.isoformat()) == ("Use two warps", ["Jörg <j@localhost>"], "2026-02-03")
    assert meta.upstream.model_dump() == {
        "status": "forwarded",
        "reason": "Forwarded: https://example.org/pull/7",
        "url": "https://example.org/pull/7",
    }
    assert project.series().get("one").meta.upstream.status == "merged"
    readme = (project.series().get("use-two-warps").folder / "README.md").read_text()
    assert "They are faster than one.\n\nA second paragraph.\n" in readme


def test_three_way_from_index_lines(project: Project, tmp_path: Path) -> None:
    """A patch of upstream's file as it is, imported behind patches that moved its lines: merged, not applied."""
    project.patch("header", replace={"src/sampling.cpp": ("// line 1\n", "// one\n// more\n// line 1\n")})
    assert project.run("lock").code == 0
    clone = clean_clone(project, tmp_path / "fork")
    text = (clone / "src/sampling.cpp").read_text()
    commit(clone, "Change line 20", {"src/sampling.cpp": text.replace("// line 20\n", "// twenty\n")})
    commit(clone, "Change line 1", {"src/sampling.cpp": text.replace("// line 1\n", "// the first\n")})
    git(clone, "format-patch", "-q", "-o", str(tmp_path / "out"), "HEAD~2")
    first, second = sorted((tmp_path / "out").iterdir())
    result = project.run("import", str(first), "--phase", "phase1")
    assert result.code == 0, result.out
    assert "merged  change-line-20" in result.out
    assert b"@@ -19,7 +19,7 @@" in project.series().get("change-line-20").diff
    before = facts(project)
    result = project.run("import", str(first), str(second), "--phase", "phase1")
    assert result.code == 3
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[0] == "0001-Change-line-20.patch already-upstream - the tree has it already"
    assert lines[1].startswith("0002-Change-line-1.patch conflict - src/sampling.cpp:")
    assert lines[2:] == ["nothing was taken: not everything fits"]
    assert facts(project) == before


def test_a_look_alike_is_not_taken_for_the_place(project: Project, tmp_path: Path) -> None:
    """The function that a patch changes is gone, and one of its shape stands above: exit 3, or --accept."""
    gone = MMVQ.replace(
        "static int calc_nwarps(int n) {\n    if (n > 8) {\n        return 2;\n    }\n    return 1;\n}\n\n", ""
    )
    project.patch("gone", edit={"src/mmvq.cpp": gone})
    assert project.run("lock").code == 0
    clone = clean_clone(project, tmp_path / "fork")
    text = MMVQ.replace("return 1;\n}\n\nint launch", "return 3;\n}\n\nint launch")
    commit(clone, "Three warps", {"src/mmvq.cpp": text})
    words = ("import", "--from", str(clone), "HEAD", "--phase", "phase1")
    before = facts(project)
    result = project.run(*words)
    assert result.code == 3
    assert result.out.partition("  ")[2] == (
        "relocated  -  src/mmvq.cpp:7: it stood in `static int calc_nwarps(int n) {` and would stand in "
        "`static int calc_rows(int n) {` (`--accept three-warps` agrees)\nnothing was taken: not everything fits\n"
    )
    assert facts(project) == before
    assert project.run(*words, "--accept", "three-warps").code == 0
    assert project.run("check").code == 0


def test_keep_going_takes_what_fits(project: Project, fork: Path, tmp_path: Path) -> None:
    git(fork, "format-patch", "-q", "-o", str(tmp_path / "out"), "HEAD~3")
    broken = tmp_path / "out/0001-x-ggml-a-title-with-colons.patch"
    broken.write_bytes(broken.read_bytes().replace(b"-// line 5\n", b"-// line X\n"))
    result = project.run("import", str(tmp_path / "out"), "--phase", "phase1", "--keep-going")
    assert result.code == 3
    assert "taken: ggml-cuda-add-a-tool-1234, move-it\n" in result.out
    assert project.series().ids == ("ggml-cuda-add-a-tool-1234", "move-it")
    assert project.run("check").code == 0


def test_before_and_after(sampler: Project, tmp_path: Path) -> None:
    """Between the patches that are there: what stands behind is carried over, or nothing is written."""
    diff = "--- a/src/sampling.cpp\n+++ b/src/sampling.cpp\n@@ -1,2 +1,3 @@\n // line 1\n+// above\n // line 2\n"
    (tmp_path / "x.diff").write_text(diff)
    result = sampler.run("import", str(tmp_path / "x.diff"), "--before", "sampler", "--id", "above", "--title", "Above")
    assert result.code == 0, result.out + result.err
    assert sampler.series().ids == ("foundation", "above", "sampler", "warps", "warps-more")
    assert result.out == (
        "x.diff      exact        above\n"
        "the series  re-threaded  sampler\n"
        "the series  re-threaded  warps\n"
        "taken: above\n"
    )
    assert b"@@ -9,6 +9,7 @@" in sampler.series().get("sampler").diff
    assert sampler.run("check").code == 0
    clash = diff.replace("@@ -1,2 +1,3 @@", "@@ -10,3 +10,3 @@").replace(
        " // line 1\n+// above\n // line 2\n", " // line 9\n-// line 10\n+// ten\n // line 11\n"
    )
    (tmp_path / "y.diff").write_text(clash)
    before = facts(sampler)
    result = sampler.run("import", str(tmp_path / "y.diff"), "--after", "above", "--id", "clash", "--keep-going")
    assert result.code == 3
    assert "stands behind an imported patch and no longer fits" in result.out
    assert result.out.endswith("nothing was taken: not everything fits\n")
    assert facts(sampler) == before


def test_an_import_can_be_undone(sampler: Project, tmp_path: Path) -> None:
    diff = "--- a/src/common.h\n+++ b/src/common.h\n@@ -1 +1 @@\n-#pragma once\n+#pragma twice\n"
    (tmp_path / "x.diff").write_text(diff)
    before = facts(sampler)
    lock = (sampler.root / "patches/series.lock").read_bytes()
    assert sampler.run("import", str(tmp_path / "x.diff"), "--after", "warps", "--id", "twice").code == 0
    after = facts(sampler)
    assert sampler.run("undo").code == 0
    assert facts(sampler) == before
    assert (sampler.root / "patches/series.lock").read_bytes() == lock
    assert sampler.run("redo").code == 0
    assert facts(sampler) == after
    assert sampler.run("check").code == 0


def test_new_files_as_overlay(project: Project, tmp_path: Path) -> None:
    """--overlay moves new files to ggml_kernels/; one that a later patch edits stays in the diffs."""
    assert project.run("lock").code == 0
    clone = clean_clone(project, tmp_path / "fork")
    commit(clone, "Kernel", {"src/lp/kernel.cu": "kernel\n", "src/lp/edited.cu": "one\n", "src/lp/note.md": "n\n"})
    commit(clone, "Edit", {"src/lp/edited.cu": "two\n", "src/old.cpp": '#include "kernel.cu"\n'})
    words = ("import", "--from", str(clone), "--phase", "phase1", "--overlay", "src/lp/*.cu=mine")
    result = project.run(*words)
    assert result.code == 0, result.out + result.err
    assert (project.root / "ggml_kernels/mine/kernel.cu").read_text() == "kernel\n"
    kernel, edit = project.series().patches
    assert kernel.overlay == {"src/lp/kernel.cu": b"kernel\n"}
    assert b"edited.cu" in kernel.diff and b"kernel.cu" not in kernel.diff
    assert edit.meta.requires == ["kernel"]
    assert tip_tree(project) == git(clone, "rev-parse", "HEAD^{tree}")


def test_a_whole_fork_with_merges(project: Project, tmp_path: Path) -> None:
    """One command for a branch with a feature merge, a merge that holds a resolution and an empty commit: the result is
    the branch's tree, and every commit is accounted for."""
    assert project.run("lock").code == 0
    clone = clean_clone(project, tmp_path / "fork")
    text = (clone / "src/sampling.cpp").read_text()
    commit(clone, "First", {"src/common.h": "#pragma once\n// ours\n"})
    git(clone, "checkout", "-q", "-b", "feature")
    commit(clone, "Feature, part 1", {"src/feature.cpp": "1\n"})
    commit(clone, "Feature, part 2", {"src/feature.cpp": "1\n2\n"})
    git(clone, "checkout", "-q", "master")
    commit(clone, "Second", {"README.md": "# ours\n"})
    git(clone, "checkout", "-q", "-b", "clash")
    commit(clone, "Theirs", {"src/sampling.cpp": text.replace("// line 9\n", "// theirs\n")})
    git(clone, "checkout", "-q", "master")
    git(clone, "merge", "-q", "--no-ff", "-m", "Merge feature", "feature")
    commit(clone, "Ours", {"src/sampling.cpp": text.replace("// line 9\n", "// ours\n")})
    subprocess.run(["git", "merge", "-q", "clash"], cwd=clone, env=GIT_ENV, capture_output=True)
    commit(clone, "Merge clash", {"src/sampling.cpp": text.replace("// line 9\n", "// both\n")})
    git(clone, "commit", "-q", "--allow-empty", "-m", "Nothing")
    log = git(clone, "log", "--format=%H %s").splitlines()
    ids = {line.split(" ", 1)[1]: line[:12] for line in log}
    result = project.run("import", "--from", str(clone), "--phase", "fork", "--phase-title", "The fork")
    assert result.code == 0, result.out + result.err
    assert [" ".join(line.split()) for line in result.out.splitlines()] == [
        f"{ids['First']} exact first",
        f"{ids['Second']} exact second",
        f"{ids['Feature, part 1']} exact feature-part-1",
        f"{ids['Feature, part 2']} exact feature-part-2",
        f"{ids['Merge feature']} (Merge feature) skipped - a merge: linearised, its commits ({ids['Feature, part 1']}, "
        f"{ids['Feature, part 2']}) are taken one by one",
        f"{ids['Ours']} exact ours",
        f"{ids['Theirs']} skipped - part of the merge {ids['Merge clash']}, which is taken as one net change (it holds "
        "resolutions of its own)",
        f"{ids['Merge clash']}, net change of a merge exact merge-clash",
        f"{ids['Nothing']} empty - it changes nothing",
        "the patches together make exactly what the branch as a whole makes",
        "taken: first, second, feature-part-1, feature-part-2, ours, merge-clash",
    ]
    assert tip_tree(project) == git(clone, "rev-parse", "HEAD^{tree}")
    assert project.series().get("feature-part-2").meta.requires == ["feature-part-1"]
    assert project.series().file.phase[-1].title == "The fork"
    assert project.run("check").code == 0
    assert project.run("apply").code == 0
    assert project.disk_tree() == git(clone, "rev-parse", "HEAD^{tree}")


def test_a_fork_that_merged_upstream(project: Project, tmp_path: Path) -> None:
    """The fork began at an older upstream and merged the pinned one later: only its own change is taken."""
    assert project.run("lock").code == 0
    clone = clean_clone(project, tmp_path / "fork")
    pinned = git(clone, "rev-parse", "HEAD")
    git(clone, "checkout", "-q", "--orphan", "old")
    text = (clone / "src/sampling.cpp").read_text()
    older = commit(clone, "older upstream", {"src/sampling.cpp": text.replace("// line 1\n", "")})
    tree = git(clone, "rev-parse", f"{pinned}^{{tree}}")
    upstream = git(clone, "commit-tree", tree, "-p", older, "-m", "pinned upstream")
    commit(clone, "Ours", {"src/sampling.cpp": text.replace("// line 1\n", "").replace("// line 30\n", "// ours\n")})
    git(clone, "merge", "-q", "-m", "Merge upstream", upstream)
    merge = git(clone, "rev-parse", "HEAD")[:12]
    result = project.run("import", "--from", str(clone), "--range", f"{upstream}..old", "--phase", "phase1")
    assert result.code == 0, result.out + result.err
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[1:] == [
        f"{merge} (Merge upstream) skipped - a merge of upstream: what it brought is upstream's",
        "the patches together make exactly what the branch as a whole makes",
        "taken: ours",
    ]
    assert lines[0].endswith(" merged ours")
    assert tip_tree(project) == git(clone, "rev-parse", "old^{tree}")
    # Without a base it is found by its tree.
    assert project.run("import", "--from", str(clone), "--range", "old", "--phase", "phase2", "--dry-run").code == 0


@pytest.mark.parametrize("merges", ["linear", "net"])
def test_the_two_ways_with_merges(project: Project, tmp_path: Path, merges: str) -> None:
    """Asked for one way only. Linear loses what only the merge holds: that comes as a patch of its own at the end."""
    assert project.run("lock").code == 0
    clone = clean_clone(project, tmp_path / "fork")
    git(clone, "checkout", "-q", "-b", "side")
    commit(clone, "Side", {"src/side.cpp": "1\n"})
    git(clone, "checkout", "-q", "master")
    commit(clone, "Main", {"src/main.cpp": "1\n"})
    git(clone, "merge", "-q", "--no-commit", "--no-ff", "side")
    commit(clone, "Evil merge", {"src/evil.cpp": "1\n"})
    result = project.run("import", "--from", str(clone), "--phase", "phase1", "--merges", merges)
    assert result.code == 0, result.out + result.err
    assert tip_tree(project) == git(clone, "rev-parse", "HEAD^{tree}")
    wanted = {"linear": ("main", "side", "resolutions-of-merges"), "net": ("main", "evil-merge")}[merges]
    assert project.series().ids == wanted


def test_commits_of_a_repository(project: Project, fork: Path) -> None:
    result = project.run("import", "--from", str(fork), "HEAD~1", "--phase", "phase1", "--id", "tool")
    assert result.code == 0, result.err + result.out
    assert project.series().ids == ("tool",)
    assert b"GIT binary patch" in project.series().get("tool").diff
    assert project.run("apply").code == 0
    assert (project.patched / "tool").read_bytes() == b"\0\1\2" * 300
    assert os.access(project.patched / "tool", os.X_OK)


def test_a_shallow_clone_is_named(project: Project, fork: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth", "2", f"file://{fork}", shallow], env=GIT_ENV, check=True)
    words = ("import", "--from", str(shallow), "--phase", "phase1", "--dry-run")
    assert project.run(*words, "HEAD").code == 0
    result = project.run(*words, "HEAD~1")
    assert (result.code, result.out) == (2, "")
    assert "its parent is not there. A shallow or partial clone cannot be imported" in result.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no source is named. Give a file, a folder, or `--from REPOSITORY`."),
        (("nowhere.patch",), "nowhere.patch cannot be read: No such file or directory."),
        (
            ("empty.patch", "--phase", "phase1"),
            "there is no patch in the source (empty.patch: empty.patch holds no diff.)",
        ),
        (("x.diff",), "no phase is named. Give `--phase` (phase0, phase1, phase2, or a new one with `--phase-title`)."),
        (("x.diff", "--phase", "phase9"), "there is no phase `phase9`."),
        (("x.diff", "--after", "nobody"), "there is no patch `nobody`."),
        (("x.diff", "--phase", "phase1", "--id", "warps"), "`warps` is taken."),
        (("x.diff", "--phase", "phase1", "--range", "a..b"), "--range is of a repository, and none is named."),
        (("--from", "nowhere", "--phase", "phase1"), "nowhere does not exist."),
        (("--from", "plain", "--phase", "phase1"), "plain is no git repository."),
        (
            ("--from", "repo", "--range", "x..y", "--phase", "phase1"),
            "unknown revision or path not in the working tree",
        ),
        (("--from", "repo", "--phase", "phase1"), "no ancestor of `HEAD` has the pinned tree"),
        (("--from", "repo", "--phase", "phase1", "--", "--all"), "`--all` is no revision."),
        (("x.diff", "--phase", "phase1", "--overlay", "nonsense"), "`nonsense` is not of the form GLOB=DIR"),
        (("x.diff", "--phase", "phase1", "--overlay", "*=../x"), "--overlay: `../x` must be a relative path"),
        (("x.diff", "--phase", "phase1", "--requires", "nobody"), "there is no patch `nobody`."),
        (("x.diff", "--phase", "phase1", "--id", "UPPER"), "`UPPER` is no patch id."),
    ],
)
def test_bad_input(sampler: Project, words: tuple[str, ...], says: str) -> None:
    (sampler.root / "plain").mkdir()
    (sampler.root / "repo").mkdir()
    git(sampler.root / "repo", "init", "-q")
    git(sampler.root / "repo", "commit", "-q", "--allow-empty", "-m", "x")
    (sampler.root / "empty.patch").write_text("nothing\n")
    (sampler.root / "x.diff").write_text("--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-# llama.cpp\n+# x\n")
    before = facts(sampler)
    result = sampler.run("import", *words)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert "Traceback" not in result.err
    assert facts(sampler) == before


def test_a_path_that_leads_out(sampler: Project) -> None:
    before = facts(sampler)
    for path in ("../x", ".git/config", "/etc/x", "src/../../x"):
        (sampler.root / "up.diff").write_text(f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n")
        result = sampler.run("import", "up.diff", "--phase", "phase1")
        assert result.code == 3
        assert result.out == (
            f"up.diff  conflict  -  `b/{path}` names no file inside the tree\nnothing was taken: not everything fits\n"
        )
    assert facts(sampler) == before
