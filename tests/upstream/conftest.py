"""A small upstream with every kind of file that git knows, and a real one for the marked tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from llamapatch.config import Settings
from llamapatch.series.model import Source, UpstreamPin

# Read before any fixture isolates the environment: CI and people share one real download this way.
SHARED_CACHE = os.environ.get("LLAMAPATCH_CACHE")
GIT_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "a"), ("EMAIL", "a@localhost"), ("DATE", "2026-01-01T00:00:00Z"))
    },
}


def git(where: Path, *args: str) -> str:
    """Git itself, not our facade: the tests' independent witness."""
    done = subprocess.run(["git", "-C", str(where), *args], env=GIT_ENV, check=True, capture_output=True)
    return done.stdout.decode().rstrip("\n")


@dataclass(frozen=True)
class Toy:
    """A repository with two versions: v1 (the pin) and v2."""

    path: Path
    tree: str
    other_tree: str


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    path = tmp_path / "toy upstream"
    path.mkdir()
    git(path, "init", "-q", "-b", "master")
    files = {
        "CMakeLists.txt": b"project(toy)\n",
        "run.sh": b"#!/bin/sh\n",
        "src/llama.cpp": b"int main() { return 0; }\n" * 200,
        "src/deep/er/x.h": b"\r\nwindows\r\n",
        "empty": b"",
        "a name with spaces and \xc3\xa9": b"x",
        "line\nbreak": b"y",
        # Both would change what a naive `git add` stores.
        ".gitignore": b"*.log\n/ignored/\n",
        "ignored/kept.log": b"tracked although ignored\n",
        "sub/.gitattributes": b"*.txt text\n",
        "sub/crlf.txt": b"one\r\ntwo\r\n",
    }
    for name, data in files.items():
        target = path / os.fsdecode(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (path / "run.sh").chmod(0o755)
    (path / "link").symlink_to("src/llama.cpp")
    (path / "dangling").symlink_to("nowhere/at all")
    # Attributes in the tree must not change what is stored, so the tree is made with plumbing.
    lines = []
    for entry in sorted(path.rglob("*")):
        name = entry.relative_to(path).as_posix()
        if name.startswith(".git/") or (entry.is_dir() and not entry.is_symlink()) or name == ".git":
            continue
        data = str(entry.readlink()).encode() if entry.is_symlink() else entry.read_bytes()
        mode = "120000" if entry.is_symlink() else "100755" if entry.stat().st_mode & 0o100 else "100644"
        blob = (
            subprocess.run(
                ["git", "-C", path, "hash-object", "-w", "--no-filters", "--stdin"],
                input=data,
                env=GIT_ENV,
                check=True,
                capture_output=True,
            )
            .stdout.decode()
            .strip()
        )
        lines.append(f"{mode} {blob}\t{name}\0")
    subprocess.run(
        ["git", "-C", path, "update-index", "-z", "--index-info"],
        input="".join(lines).encode(),
        env=GIT_ENV,
        check=True,
    )
    git(path, "commit", "-q", "-m", "one")
    git(path, "tag", "v1")
    tree = git(path, "rev-parse", "HEAD^{tree}")
    (path / "src/llama.cpp").write_text("int main() { return 2; }\n")
    git(path, "add", "src/llama.cpp")
    git(path, "commit", "-q", "-m", "two")
    git(path, "tag", "-a", "-m", "annotated", "v2")
    return Toy(path, tree, git(path, "rev-parse", "HEAD^{tree}"))


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(upstream: Path | None = None, cache: Path | None = None) -> Settings:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        return Settings(root=home, home=home, cache=cache or tmp_path / "cache", upstream=upstream, jobs=1)

    return make


@pytest.fixture
def make_pin(toy: Toy) -> Callable[..., UpstreamPin]:
    def make(*sources: Source, tree: str = "", version: str = "v1") -> UpstreamPin:
        listed = list(sources) or [Source(kind="git", url=toy.path.as_uri(), ref="v1")]
        return UpstreamPin(version=version, tree=tree or toy.tree, url=listed[0].url, source=listed)

    return make


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names, modes, sizes and times of everything below `folder`: equal snapshots mean that nothing was written."""
    states = {}
    for path in (folder, *folder.rglob("*")):
        stat = path.lstat()
        states[str(path)] = (stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return states


def corrupt_blob(git_dir: Path, rev: str) -> None:
    """Flip a bit in the middle of a packed blob, as a failing disk does."""
    oid = git(git_dir, "rev-parse", rev)
    pack = next((git_dir / "objects" / "pack").glob("*.pack"))
    rows = [row.split() for row in git(git_dir, "verify-pack", "-v", str(pack.with_suffix(".idx"))).splitlines()]
    stored, offset = next((int(row[3]), int(row[4])) for row in rows if row[0] == oid)
    data = bytearray(pack.read_bytes())
    data[offset + stored // 2] ^= 0x40
    pack.chmod(0o644)
    pack.write_bytes(data)
