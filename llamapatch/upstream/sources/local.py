"""The user's own llama.cpp: a checkout, a bare repository, a plain folder or an archive. It is only read.

A repository's objects are read through git's alternates mechanism by a repository of ours, so git never runs a writing
command inside the user's, takes no lock there and never follows a partial clone's offer to fetch what is missing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llamapatch.errors import UsageProblem
from llamapatch.git import Git, GitError
from llamapatch.upstream.content import altering_attributes, folder_entries, write_tree
from llamapatch.upstream.sources.base import Found, Place, SourceFailedError
from llamapatch.upstream.sources.tarball import Tarball
from llamapatch.upstream.store import alternates, reason


def from_path(path: Path) -> LocalRepository | LocalFolder | Tarball:
    """The source for what a user named with ``--upstream``; raises `UsageProblem` when it is nothing of use."""
    remedy = "Give --upstream a llama.cpp checkout, bare repository, folder or tar archive, or leave it out."
    if not path.exists():
        raise UsageProblem(f"upstream {path} does not exist.", remedy)
    if not os.access(path, os.R_OK):
        raise UsageProblem(f"upstream {path} cannot be read.", remedy)
    if path.is_file():
        return Tarball(str(path), path.parent)
    git_dir = git_dir_of(path)
    if git_dir is not None:
        return LocalRepository(path, git_dir)
    if not any(path.iterdir()):
        raise UsageProblem(f"upstream {path} is an empty folder.", remedy)
    return LocalFolder(path)


def git_dir_of(path: Path) -> Path | None:
    """The git directory of a checkout (also a linked worktree or submodule) or bare repository at `path` itself.

    Folders above are not asked: sources unpacked inside somebody's repository are not that repository.
    """
    dot = path / ".git"
    if dot.is_dir():
        return dot
    if dot.is_file():
        text = dot.read_text(encoding="utf-8", errors="surrogateescape")
        if text.startswith("gitdir:"):
            return (path / text.removeprefix("gitdir:").strip()).resolve()
    is_bare = (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()
    return path if is_bare else None


@dataclass(frozen=True)
class LocalRepository:
    """The git repository at `path`. It has the wanted tree if the tree's object is there, whatever refers to it."""

    path: Path
    git_dir: Path

    @property
    def name(self) -> str:
        return f"git repository {self.path}"

    def bring(self, place: Place) -> Found:
        place.meter.step(f"reading {self.path}")
        objects = self._objects()
        borrowed = alternates([objects])
        if place.wanted is not None and self.has(place.wanted, place.git):
            tree, remark = place.wanted, ""
        else:
            tree, remark = self._nearest(place, borrowed)
        return Found(tree, (objects,), remark, self._incomplete())

    def has(self, tree: str, reader: Git) -> bool:
        """Whether the tree's own object is here; `reader` is a repository of ours, whose objects do not count."""
        try:
            return reader.run("cat-file", "-t", tree, env={"GIT_OBJECT_DIRECTORY": str(self._objects())}) == "tree"
        except GitError:
            return False

    def _objects(self) -> Path:
        user = Git(self.git_dir)
        try:
            form = user.run("rev-parse", "--show-object-format")
            common = (self.git_dir / user.run("rev-parse", "--git-common-dir")).resolve()
        except GitError as error:
            raise UsageProblem(
                f"{self.path} looks like a git repository, but git cannot read it: {reason(error)}.",
                f"See what `git -C {self.path} status` says.",
            ) from error
        if form != "sha1":
            raise UsageProblem(f"{self.path} uses {form} object names; upstream's tree is named by sha1.")
        return common / "objects"

    def _nearest(self, place: Place, borrowed: dict[str, str]) -> tuple[str, str]:
        """The tree of the tag that should have held the wanted one, else of HEAD, and which of them it is."""
        user = Git(self.git_dir)
        for rev, label in ((f"refs/tags/{place.version}", f"its tag {place.version}"), ("HEAD", "its HEAD")):
            try:
                commit = user.run("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
                # Only the commit is read: in a partial clone its tree may not be there.
                header = place.git.run("cat-file", "commit", commit, env=borrowed).split("\n", 1)[0]
            except GitError:
                continue
            return header.split()[1], f"that is {label}"
        raise UsageProblem(f"{self.path} is a git repository without a commit.", "Check out llama.cpp there first.")

    def _incomplete(self) -> str:
        user = Git(self.git_dir)
        if user.succeeds("config", "--get-regexp", r"^(remote\..*\.promisor|extensions\.partialclone)$"):
            return "it is a partial clone"
        if (self.git_dir / "shallow").is_file():
            return "it is a shallow clone"
        return "it is damaged"


@dataclass(frozen=True)
class LocalFolder:
    """The files of a folder that is no repository, all of them: whatever else lies there makes it another tree."""

    path: Path

    @property
    def name(self) -> str:
        return f"folder {self.path}"

    def bring(self, place: Place) -> Found:
        place.meter.step(f"hashing the files of {self.path}")
        entries = list(folder_entries(self.path))
        if not entries:
            raise SourceFailedError("it holds no file")
        tree = write_tree(place.git, entries, place.scratch / "index")
        remark = "every file in it counts, build results too"
        if files := altering_attributes(place.git, tree):
            remark += f"; if it was unpacked from an archive, mind the export attributes in {', '.join(files)}"
        return Found(tree, remark=remark)
