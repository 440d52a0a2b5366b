"""A series with everything that is hard to carry in a patch, and the tools that others use."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project import GIT_ENV, Project, git

HARD_README = """\
# hard

Everything that mail, quilt and patch could stumble over.

---
diff --git a/README.md b/README.md
--- a/README.md
+++ b/README.md
@@ -1 +1 @@
-# llama.cpp
+# not a change, but a quotation

From the first day on, a line that mailboxes end at:
From nobody Mon Sep 17 00:00:00 2001
Index: nothing
--{one}
1,2c3
Subject: not a header, and trailing blanks{three}
""".format(one=" ", three="   ")


@pytest.fixture
def quilt() -> str:
    """The real quilt; its absence fails where CI says so (`.ci/run` installs it)."""
    if shutil.which("quilt") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("quilt is missing: apt-get install quilt")
        pytest.skip("quilt is not installed")
    return "quilt"


@pytest.fixture
def hard(project: Project) -> Project:
    """Five patches on the toy upstream, locked: overlays, modes, links, CRLF, no newline at the end, odd names, a folder
    and a link that give way to files, an emptied and an empty file, a title with brackets, a README full of traps."""
    project.patch(
        "foundation",
        "phase0",
        replace={"CMakeLists.txt": ("    src/sampling.cpp\n", "    src/sampling.cpp\n    ${LP_SOURCES}\n")},
        overlay={"lp/ggml-lp.h": "#pragma once\n// switches\n", "lp/no-newline.h": "#pragma once"},
    )
    project.patch(
        "hard",
        replace={"src/crlf.txt": ("two\r\n", "zwei\r\nzweieinhalb\r\n"), "src/no-newline.txt": ("two", "two\nthree")},
        edit={
            "dir/a b.txt": "a\n",
            "dir/é.txt": "ü\n",
            'dir/q"uote.txt': "q\n",
            "empty": "",
            "src/old.cpp": None,
            "long.txt": "x" * 1500 + "\n",
        },
        requires=("foundation",),
    )
    (project.witness / "run.sh").chmod(0o644)
    (project.witness / "README.md").chmod(0o755)
    (project.witness / "link").unlink()
    (project.witness / "link").symlink_to("run.sh")
    project.patch("modes", edit={"src/common.h": ""}, requires=("hard",))
    project.patch("last", "phase2", replace={"src/sampling.cpp": ("// line 30\n", "// line 30, äöü\n")})
    for name in ("dir/a b.txt", "dir/é.txt", 'dir/q"uote.txt', "link"):
        (project.witness / name).unlink()
    (project.witness / "dir").rmdir()
    project.patch("folder", "phase2", edit={"dir": "now a file\n", "link": "no link any more\n"}, requires=("modes",))
    folder = project.folder("hard")
    (folder / "README.md").write_text(HARD_README)
    meta = folder / "patch.toml"
    meta.write_text(
        "# a comment that survives\n"
        + meta.read_text().replace('"Title of hard"', '"[x] Ünïcode: a title with [brackets] = and _ and =?"')
    )
    (project.folder("last") / "README.md").write_bytes(b"# last\r\n\r\nDOS text, no newline at the end")
    assert project.run("lock").code == 0
    return project


def clean_clone(project: Project, where: Path) -> Path:
    """A clean checkout of upstream, byte for byte."""
    subprocess.run(["git", "clone", "-q", "--no-checkout", project.upstream, where], env=GIT_ENV, check=True)
    (where / ".git/info").mkdir(exist_ok=True)
    (where / ".git/info/attributes").write_text("* -text\n")
    git(where, "config", "core.autocrlf", "false")
    git(where, "reset", "-q", "--hard")
    return where


def tree_on_disk(where: Path) -> str:
    """The tree of the files that lie in a checkout, whatever is committed there."""
    env = GIT_ENV | {"GIT_INDEX_FILE": str(where / ".git/witness-index")}
    subprocess.run(["git", "add", "-A", "-f", "."], cwd=where, env=env, check=True)
    done = subprocess.run(["git", "write-tree"], cwd=where, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()
