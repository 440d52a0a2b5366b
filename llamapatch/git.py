"""The one facade over git (through GitPython) that every room uses.

Only plumbing runs here, with an explicit ``--git-dir``, no user or system configuration, no hooks and a fixed locale,
so that neither the user's settings nor an enclosing repository can change a result. GitPython's ``IndexFile`` is not
used: it cannot apply patches and reads configuration on its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# GitPython refuses to be imported where there is no git; we say so ourselves, with a remedy, when git is needed.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
import git as gitpython

from llamapatch.errors import EnvironmentProblem, InternalError, LlamapatchError, UsageProblem
from llamapatch.process import run

os.environ.pop("GIT_PYTHON_REFRESH")

_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.autocrlf=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "core.safecrlf=false",
    "commit.gpgsign=false",
    "diff.suppressBlankEmpty=false",
    "gc.auto=0",
    "safe.directory=*",
    "submodule.recurse=false",
    "transfer.credentialsInUrl=die",
    "protocol.file.allow=always",
)
# Bytes; a commit with its trees and its pack takes more.
_LITTLE = 128 << 10
_KEPT_ENV = ("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK")
_KEPT_SUFFIXES = ("_proxy", "_PROXY")


@dataclass(frozen=True)
class TreeFile:
    """One file of a tree: mode as git prints it (``100644``), blob id, size in bytes."""

    path: str
    mode: str
    blob: str
    size: int


class GitError(LlamapatchError):
    """A git command failed; `stderr` holds what it said."""

    def __init__(self, args: tuple[str, ...], code: int, stderr: str, note: str = "") -> None:
        said = (stderr.strip().splitlines() or ["no output"])[0]
        super().__init__(f"git {args[0] if args else ''} failed with status {code}: {said}{note}")
        self.code = code
        self.stderr = stderr


class Git:
    """Plumbing on one repository, named by its git directory.

    `work_tree` is needed only by commands that touch files. Nothing is read from the ambient ``GIT_*`` environment.
    """

    def __init__(self, git_dir: Path, work_tree: Path | None = None) -> None:
        self.git_dir = git_dir
        self.work_tree = work_tree

    @classmethod
    def init_bare(cls, git_dir: Path) -> Git:
        """Create an empty bare repository at `git_dir` (its parent must exist)."""
        repo = cls(git_dir)
        _execute(("init", "--quiet", "--bare", "--template=", str(git_dir)), cwd=git_dir.parent, env={})
        return repo

    def run(
        self,
        *args: str,
        input: bytes | None = None,
        env: dict[str, str] | None = None,
        index: Path | None = None,
    ) -> str:
        """Run ``git ARGS`` and return its output as text, trailing newline removed; raises `GitError`."""
        return self.run_bytes(*args, input=input, env=env, index=index).decode("utf-8", "surrogateescape").rstrip("\n")

    def run_bytes(
        self,
        *args: str,
        input: bytes | None = None,
        env: dict[str, str] | None = None,
        index: Path | None = None,
    ) -> bytes:
        """`run` with raw bytes; `index` names a private index file (``GIT_INDEX_FILE``)."""
        where = {"GIT_DIR": str(self.git_dir)}
        if self.work_tree is not None:
            where["GIT_WORK_TREE"] = str(self.work_tree)
        if index is not None:
            where["GIT_INDEX_FILE"] = str(index)
        return _execute(args, cwd=self.work_tree or self.git_dir, env=where | (env or {}), input=input)

    def transfer(self, *args: str, timeout: float, on_line: Callable[[str], None] | None = None) -> str:
        """Run ``git ARGS`` against another machine: streamed, ended with all its helpers after `timeout` seconds.

        The only call that reads the user's git configuration, for what a network needs (proxy, mirrors, credentials,
        certificates); what it brings must be proven by its hash. Nothing can ask a question: the child has no terminal.
        """
        env = clean_environment() | {"GIT_DIR": str(self.git_dir), "GIT_ASKPASS": "true"}
        del env["GIT_CONFIG_GLOBAL"], env["GIT_CONFIG_NOSYSTEM"]
        done = run(["git", *args], cwd=self.git_dir, env=env, timeout=timeout, on_line=on_line, check=False)
        if done.code != 0:
            raise GitError(args, done.code, done.stderr)
        return done.stdout.rstrip("\n")

    def succeeds(self, *args: str) -> bool:
        """Whether ``git ARGS`` exits with 0."""
        try:
            self.run_bytes(*args)
        except GitError:
            return False
        return True

    def has_object(self, oid: str) -> bool:
        """Whether an object with this id is stored here."""
        return self.succeeds("cat-file", "-e", oid)

    def tree_of(self, rev: str) -> str:
        """The tree id of a commit or tree."""
        return self.run("rev-parse", "--verify", "--quiet", f"{rev}^{{tree}}")

    def ref(self, name: str) -> str | None:
        """The object a full ref name points to, or None."""
        try:
            return self.run("rev-parse", "--verify", "--quiet", name)
        except GitError:
            return None

    def tree_files(self, tree: str, *paths: str) -> list[TreeFile]:
        """Every file of `tree` (all, or those under `paths`), in git's byte order."""
        raw = self.run_bytes("ls-tree", "-r", "-z", "-l", "--full-tree", tree, "--", *paths)
        files = []
        for entry in raw.split(b"\0"):
            if not entry:
                continue
            meta, path = entry.split(b"\t", 1)
            mode, kind, blob, size = meta.decode().split()
            if kind == "blob":
                files.append(TreeFile(path.decode("utf-8", "surrogateescape"), mode, blob, int(size)))
        return files

    def read_blobs(self, blobs: list[str]) -> dict[str, bytes]:
        """The contents of many blobs with one process; a missing one raises `InternalError`."""
        wanted = list(dict.fromkeys(blobs))
        raw = self.run_bytes("cat-file", "--batch", input="".join(f"{b}\n" for b in wanted).encode())
        out: dict[str, bytes] = {}
        at = 0
        for blob in wanted:
            end = raw.index(b"\n", at)
            fields = raw[at:end].split()
            if len(fields) != 3:
                raise InternalError(f"object {blob} is missing from {self.git_dir}")
            size = int(fields[2])
            out[blob] = raw[end + 1 : end + 1 + size]
            at = end + 1 + size + 1
        return out

    def read_file(self, rev: str, path: str) -> bytes | None:
        """The content of `path` in `rev`, or None when it is not there."""
        files = self.tree_files(rev, path)
        return self.read_blobs([files[0].blob])[files[0].blob] if files else None

    def write_blob(self, data: bytes) -> str:
        """Store `data`, unfiltered, and return its id."""
        return self.run("hash-object", "-w", "--no-filters", "--stdin", input=data)


def clean_environment() -> dict[str, str]:
    """The environment git gets: PATH, home, proxies and certificates; no ``GIT_*``, no configuration, the C locale."""
    kept = {k: v for k, v in os.environ.items() if k in _KEPT_ENV or k.endswith(_KEPT_SUFFIXES)}
    config = {"GIT_CONFIG_COUNT": str(len(_CONFIG))}
    for i, item in enumerate(_CONFIG):
        key, value = item.split("=", 1)
        config |= {f"GIT_CONFIG_KEY_{i}": key, f"GIT_CONFIG_VALUE_{i}": value}
    return (
        kept
        | config
        | {
            "LC_ALL": "C",
            "TZ": "UTC",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
        }
    )


def _full(where: Path) -> str:
    """git seldom says why it could not write; a disk without space is worth a word."""
    try:
        free = shutil.disk_usage(where).free
    except OSError:
        return ""
    return f" (no space left on the disk of {where})" if free < _LITTLE else ""


def _execute(args: tuple[str, ...], cwd: Path, env: dict[str, str], input: bytes | None = None) -> bytes:
    """Run git through GitPython, which only ever adds to ``os.environ``: ambient GIT_* are removed with env(1)."""
    if shutil.which("git") is None:
        raise EnvironmentProblem(
            "git is not on PATH.", "Install it: `apt install git` (Debian, Ubuntu) or `dnf install git` (Fedora)."
        )
    ambient = [name for name in os.environ if name.startswith("GIT_")]
    prefix = ["env", *(word for name in ambient for word in ("-u", name))] if ambient else []
    # Variables that our own environment sets must survive the removal, so they follow it on env's command line.
    full = clean_environment() | {"GIT_CEILING_DIRECTORIES": str(cwd.parent)} | env
    if prefix:
        prefix += [f"{k}={v}" for k, v in full.items() if k.startswith("GIT_")]
    with tempfile.TemporaryFile() as stdin:
        stdin.write(input or b"")
        stdin.seek(0)
        code, out, err = gitpython.Git(str(cwd)).execute(
            [*prefix, "git", *args],
            istream=stdin,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            env=full,
        )
    if code != 0:
        message = err if isinstance(err, str) else bytes(err).decode("utf-8", "replace")
        raise GitError(args, int(code or 1), message, _full(cwd))
    return out if isinstance(out, bytes) else str(out).encode()


def user_identity() -> str:
    """``Name <mail>`` as the user's git knows them; `UsageProblem` when it does not.

    The one question that is put to the user's configuration: whose a new patch is.
    """
    values = {}
    for key in ("user.name", "user.email"):
        done = run(["git", "config", "--get", key], check=False)
        values[key] = done.stdout.strip()
    name = os.environ.get("GIT_AUTHOR_NAME") or values["user.name"]
    address = os.environ.get("GIT_AUTHOR_EMAIL") or values["user.email"]
    if not name or not address:
        raise UsageProblem("git does not know who you are.", "Say whose the patch is: `--author 'Name <mail>'`.")
    return f"{name} <{address}>"
