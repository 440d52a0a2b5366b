"""A project for tests: a toy upstream, a series made with git itself, and the command line.

Patches are made by editing a witness repository and asking git for the diff, so the tree that a patch must produce is
known from git and not from the code under test.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llamapatch.cli.main import main
from llamapatch.config import Settings, load_settings
from llamapatch.series.load import Series, load_series

GIT_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "a"), ("EMAIL", "a@localhost"), ("DATE", "2026-01-01T00:00:00Z"))
    },
}

# Two functions with the same tail: a hunk that lands in the wrong one still "applies".
MMVQ = """\
#include "common.h"

static int calc_rows(int n) {
    if (n > 8) {
        return 2;
    }
    return 1;
}

static int calc_nwarps(int n) {
    if (n > 8) {
        return 2;
    }
    return 1;
}

int launch(int n) {
    int rows = calc_rows(n);
    int warps = calc_nwarps(n);
    return rows * warps;
}
"""
UPSTREAM_FILES = {
    "CMakeLists.txt": "project(llama)\nadd_library(ggml\n    src/mmvq.cpp\n    src/sampling.cpp\n)\n",
    "README.md": "# llama.cpp\n",
    "run.sh": "#!/bin/sh\nexit 0\n",
    "src/mmvq.cpp": MMVQ,
    "src/common.h": "#pragma once\n",
    "src/old.cpp": "int old_thing() { return 0; }\n",
    "src/sampling.cpp": "".join(f"// line {i}\n" for i in range(1, 41)),
    "src/no-newline.txt": "one\ntwo",
    "src/crlf.txt": "one\r\ntwo\r\nthree\r\n",
    ".gitattributes": "*.txt text eol=crlf\n",
    ".gitignore": "*.o\n/build*\n",
}
DIFF = (
    *("-c", "core.quotePath=false", "diff", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "-U3"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--diff-algorithm=myers", "--indent-heuristic"),
)


def git(where: Path, *args: str, input: bytes | None = None) -> str:
    """Git itself, not our facade."""
    done = subprocess.run(["git", "-C", str(where), *args], env=GIT_ENV, check=True, capture_output=True, input=input)
    return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


def make_upstream(path: Path, files: dict[str, str] | None = None) -> Path:
    """A repository with one commit of `files`, stored byte for byte."""
    path.mkdir()
    git(path, "init", "-q", "-b", "master")
    (path / ".git/info").mkdir(exist_ok=True)
    (path / ".git/info/attributes").write_text("* -text\n")
    for name, text in (files or UPSTREAM_FILES).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(text.encode())
    if files is None:
        (path / "run.sh").chmod(0o755)
        (path / "link").symlink_to("README.md")
    git(path, "add", "-A", "-f")
    git(path, "commit", "-q", "-m", "## SQUASHED ##")
    return path


@dataclass
class Result:
    """What one invocation of the command line did."""

    code: int
    out: str
    err: str


@dataclass
class Project:
    """A project folder and its witness. `trees` maps a patch id to the tree that git made of it."""

    root: Path
    upstream: Path
    capsys: pytest.CaptureFixture[str]
    phases: dict[str, list[str]] = field(default_factory=lambda: {"phase0": [], "phase1": [], "phase2": []})
    trees: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.witness = self.root.parent / f"witness-{self.root.name}"
        subprocess.run(["git", "clone", "-q", self.upstream, self.witness], env=GIT_ENV, check=True)
        (self.witness / ".git/info").mkdir(exist_ok=True)
        (self.witness / ".git/info/attributes").write_text("* -text\n")
        git(self.witness, "config", "core.autocrlf", "false")
        git(self.witness, "rm", "-q", "-r", "--cached", ".")
        git(self.witness, "reset", "-q", "--hard")
        self.base_tree = git(self.upstream, "rev-parse", "HEAD^{tree}")
        (self.root / "llamapatch.toml").write_text(f'upstream = "{self.upstream}"\n')
        (self.root / "ggml_kernels").mkdir()
        self.write_series()

    @property
    def state(self) -> Path:
        return self.root / ".llamapatch"

    @property
    def patched(self) -> Path:
        return self.state / "trees" / "patched"

    @property
    def store(self) -> Path:
        return self.state / "store.git"

    def settings(self) -> Settings:
        return load_settings(self.root)

    def series(self) -> Series:
        return load_series(self.settings())

    def folder(self, patch_id: str) -> Path:
        phase = next(p for p, ids in self.phases.items() if patch_id in ids)
        return self.root / "patches" / phase / patch_id

    def write_series(self) -> None:
        lines = [
            "schema = 1",
            "[upstream]",
            'version = "v0.5.0"',
            'url = "https://example.org/llama.cpp"',
            f'tree = "{self.base_tree}"',
            "[[upstream.source]]",
            'kind = "git"',
            'url = "https://example.org/llama.cpp"',
            'ref = "v0.5.0"',
        ]
        for phase, ids in self.phases.items():
            lines += ["[[phase]]", f'id = "{phase}"', f'title = "Title of {phase}"', "patches = ["]
            lines += [*(f'    "{i}",' for i in ids), "]"]
        (self.root / "patches").mkdir(exist_ok=True)
        (self.root / "patches/series.toml").write_text("\n".join(lines) + "\n")

    def patch(
        self,
        patch_id: str,
        phase: str = "phase1",
        *,
        edit: dict[str, str | None] | None = None,
        replace: dict[str, tuple[str, str]] | None = None,
        overlay: dict[str, str] | None = None,
        requires: tuple[str, ...] = (),
        conflicts: tuple[str, ...] = (),
        more: str = "",
    ) -> None:
        """Append a patch: `edit` gives whole new files (None deletes), `replace` one (old, new) passage per file,
        `overlay` files by their path in the tree."""
        for path, (old, new) in (replace or {}).items():
            text = (self.witness / path).read_bytes().decode()
            assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
            (self.witness / path).write_bytes(text.replace(old, new).encode())
        for path, content in (edit or {}).items():
            if content is None:
                (self.witness / path).unlink()
            else:
                (self.witness / path).parent.mkdir(parents=True, exist_ok=True)
                (self.witness / path).write_bytes(content.encode())
        git(self.witness, "add", "-A", "-f")
        raw = git(self.witness, *DIFF, "--cached", "HEAD") + "\n"
        diff = re.sub(r"(?m)^(@@ -[0-9,]* \+[0-9,]* @@).*$", r"\1", re.sub(r"(?m)^index .*\n", "", raw)).lstrip("\n")
        self.phases[phase].append(patch_id)
        folder = self.folder(patch_id)
        folder.mkdir(parents=True)
        if diff:
            (folder / "change.patch").write_bytes(diff.encode("utf-8", "surrogateescape"))
        (folder / "README.md").write_text(f"# {patch_id}\n\nWhy it exists.\n")
        overlays = ""
        for to, content in (overlay or {}).items():
            source = f"{patch_id}/{Path(to).name}"
            (self.root / "ggml_kernels" / patch_id).mkdir(exist_ok=True)
            (self.root / "ggml_kernels" / source).write_text(content)
            overlays += f'[[overlay]]\nfrom = "{source}"\nto = "{to}"\n'
            (self.witness / to).parent.mkdir(parents=True, exist_ok=True)
            (self.witness / to).write_text(content)
        quoted = {k: ", ".join(f'"{i}"' for i in ids) for k, ids in (("r", requires), ("c", conflicts))}
        (folder / "patch.toml").write_text(
            f'schema = 1\nid = "{patch_id}"\ntitle = "Title of {patch_id}"\nphase = "{phase}"\n'
            f'authors = ["Ada <ada@localhost>"]\ndate = 2026-03-04\nrequires = [{quoted["r"]}]\n'
            f'conflicts = [{quoted["c"]}]\n[upstream]\nstatus = "never"\nreason = "a test"\n'
            f'[effect]\nclass = "equivalent"\n{overlays}{more}'
        )
        git(self.witness, "add", "-A", "-f")
        git(self.witness, "commit", "-q", "-m", patch_id)
        self.trees[patch_id] = git(self.witness, "rev-parse", "HEAD^{tree}")
        self.write_series()

    def fill(self) -> None:
        """Four patches: `foundation`; `sampler` and `warps` (which edit neighbouring lines of one file, so that each
        can be merged without the other); `warps-more`, which builds on `warps`. Then lock them."""
        self.patch(
            "foundation",
            "phase0",
            replace={"CMakeLists.txt": ("    src/sampling.cpp\n", "    src/sampling.cpp\n    ${LP_SOURCES}\n")},
            overlay={"lp/ggml-lp.h": "#pragma once\n// switches\n"},
        )
        self.patch(
            "sampler",
            replace={"src/sampling.cpp": ("// line 10\n", "// line 10\nsample();\n")},
            overlay={"lp/sampler.cpp": "void sample() {}\n"},
            requires=("foundation",),
        )
        self.patch(
            "warps",
            "phase2",
            replace={
                "src/sampling.cpp": ("// line 30\n", "// line 30, warps\n"),
                "src/mmvq.cpp": ("int warps = calc_nwarps(n);", "int warps = calc_nwarps(n) + 1;"),
            },
            edit={"src/old.cpp": None, "src/new.cpp": "int new_thing() { return 1; }\n"},
            requires=("foundation",),
        )
        self.patch(
            "warps-more",
            "phase2",
            replace={"src/mmvq.cpp": ("calc_nwarps(n) + 1;", "calc_nwarps(n) + 2;")},
            requires=("warps",),
        )
        assert self.run("lock").code == 0

    def run(self, *args: str) -> Result:
        """The command line in this process, from the project's folder."""
        before = Path.cwd()
        os.chdir(self.root)
        self.capsys.readouterr()
        try:
            code = int(main(list(args)))
        finally:
            os.chdir(before)
        said = self.capsys.readouterr()
        return Result(code, said.out, said.err)

    def applied(self) -> list[str]:
        """The applied ids, read with git from the commits' trailers."""
        if not (self.store / "refs/llamapatch/applied").is_file():
            return []
        raw = git(
            self.store,
            "log",
            "--reverse",
            "--format=%(trailers:key=Llamapatch-Id,valueonly)",
            "refs/llamapatch/applied",
        )
        return [line for line in raw.splitlines() if line]

    def applied_tree(self) -> str:
        return git(self.store, "rev-parse", "refs/llamapatch/applied^{tree}")

    def disk_tree(self, folder: Path | None = None) -> str:
        """The tree of what lies in a worktree, by git itself in a throw-away repository."""
        folder = folder or self.patched
        scratch = self.root.parent / "scratch.git"
        if not scratch.is_dir():
            git(self.root, "init", "-q", "--bare", str(scratch))
            (scratch / "info").mkdir(exist_ok=True)
            (scratch / "info/attributes").write_text("* -text\n")
        where = ("--git-dir", str(scratch), "--work-tree", str(folder))
        (scratch / "index").unlink(missing_ok=True)
        git(folder, *where, "add", "-A", "-f")
        return git(folder, *where, "write-tree")
