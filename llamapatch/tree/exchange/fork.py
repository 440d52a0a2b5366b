"""Patches from a git repository: a commit, a range, or a whole fork with its merges.

A fork is walked along first parents. A plain commit is a patch. What a merge brought in is taken commit by commit
(*linear*) when those commits, carried onto the merge's first parent, make exactly the tree that the merge has; a merge
that holds resolutions of its own is taken as one patch, its net change (*net*). A merge of upstream is not taken: what
it brought is upstream's.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from llamapatch.errors import InternalError, UsageProblem
from llamapatch.git import Git, GitError
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import FileChange
from llamapatch.tree.exchange.incoming import Found, Incoming, NotTaken
from llamapatch.tree.exchange.mail import authors_of
from llamapatch.tree.objects import ABSENT, Entry, ObjectPool, TreeState
from llamapatch.tree.thread import Change, rethread
from llamapatch.upstream.sources.local import git_dir_of

Merges = Literal["auto", "linear", "net"]
_TITLE = 200


@dataclass(frozen=True)
class Commit:
    """A commit of a fork."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: str
    epoch: int
    message: str

    @property
    def origin(self) -> str:
        return self.id[:12]

    @property
    def title(self) -> str:
        return " ".join(self.message.partition("\n\n")[0].split())[:_TITLE] or f"commit {self.origin}"


@dataclass(frozen=True)
class Fork:
    """What a repository gives: `found` in order, and the net change of the whole range (None for single commits)."""

    found: Found
    net: Incoming | None


def open_repository(path: Path) -> Git:
    """The repository that `path` is, or lies in; only read. `UsageProblem` when there is none."""
    path = path.resolve()
    if not path.is_dir():
        raise UsageProblem(f"{path} does not exist.", "Name a git repository with `--from`.")
    for folder in (path, *path.parents):
        git_dir = git_dir_of(folder)
        if git_dir is not None:
            git = Git(git_dir)
            if _run(git, "rev-parse", "--show-object-format") != "sha1":
                raise UsageProblem(f"{path} uses sha256 object names, upstream's repository sha1.", "Convert it first.")
            return git
    raise UsageProblem(f"{path} is no git repository.", "Name one with `--from`.")


def read_commits(git: Git, revisions: list[str]) -> Fork:
    """Each of `revisions` as one patch."""
    found: Found = []
    for revision in revisions:
        commit = _commit(git, revision)
        if len(commit.parents) > 1:
            found.append(NotTaken(commit.origin, "a merge commit; give its range with `--range`"))
        else:
            found.append(_incoming(git, commit))
    return Fork(found, None)


def read_range(git: Git, base: str, tip: str, merges: Merges) -> Fork:
    """The fork's own commits between `base` (upstream, or where the fork began) and `tip`."""
    root, last = _commit(git, base), _commit(git, tip)
    listing = _run(git, "rev-list", "--first-parent", "--reverse", f"{root.id}..{last.id}")
    found: Found = []
    for oid in listing.split():
        commit = _commit(git, oid)
        if len(commit.parents) < 2:
            found.append(_incoming(git, commit))
        else:
            found += _merge(git, commit, root, merges)
    if not found:
        raise UsageProblem(f"{base}..{tip} holds no commit.", "Swap the two, or name another range.")
    try:
        files, contents = _changes(git, root.tree, last.tree)
    except _UnfitError:
        return Fork(found, None)
    net = Incoming(f"{base}..{tip}", f"What only merge commits of {tip} hold", changes=files, contents=contents)
    return Fork(found, net)


def find_base(git: Git, tip: str, tree: str) -> str:
    """The nearest ancestor of `tip` that has the tree `tree`; `UsageProblem` when there is none."""
    for line in _run(git, "log", "--format=%H %T", tip).splitlines():
        oid, found = line.split()
        if found == tree:
            return oid
    raise UsageProblem(
        f"no ancestor of `{tip}` has the pinned tree {tree}.",
        "Say where the fork left upstream: `--range BASE..BRANCH`.",
    )


def _merge(git: Git, commit: Commit, root: Commit, merges: Merges) -> Found:
    first, *others = commit.parents
    name = f"{commit.origin} ({commit.title})"
    if all(_is_ancestor(git, other, root.id) for other in others):
        return [NotTaken(name, "a merge of upstream: what it brought is upstream's")]
    listing = _run(git, "rev-list", "--reverse", "--topo-order", "--no-merges", *others, f"^{first}", f"^{root.id}")
    commits = [_commit(git, oid) for oid in listing.split()]
    parts: Found = [_incoming(git, part) for part in commits]
    if merges == "linear" or (merges == "auto" and _reproduces(git, first, parts, commit)):
        names = ", ".join(part.origin for part in commits)
        return [*parts, NotTaken(name, f"a merge: linearised, its commits ({names}) are taken one by one")]
    net = _incoming(git, commit)
    why = "as asked" if merges == "net" else "it holds resolutions of its own"
    whole = f"part of the merge {commit.origin}, which is taken as one net change ({why})"
    passed: Found = [NotTaken(part.origin, whole) for part in commits]
    return [
        *passed,
        net if isinstance(net, NotTaken) else replace(net, origin=f"{commit.origin}, net change of a merge"),
    ]


def _reproduces(git: Git, first: str, parts: Found, merge: Commit) -> bool:
    """Whether the commits of a merge, carried one by one onto its first parent, make its tree."""
    if any(isinstance(part, NotTaken) for part in parts):
        return False
    state = TreeState.read(git, git.tree_of(first))
    blobs = Blobs(git, ObjectPool())
    changes = [Change(part.origin, part.changes) for part in parts if isinstance(part, Incoming)]
    outcomes = rethread(changes, state, blobs)
    return all(outcome.carried for outcome in outcomes) and state.write(blobs.pool) == merge.tree


def _incoming(git: Git, commit: Commit) -> Incoming | NotTaken:
    """A commit against its first parent."""
    if not commit.parents:
        shallow = git.git_dir / "shallow"
        if shallow.is_file() and commit.id in shallow.read_text(encoding="ascii", errors="replace"):
            raise UsageProblem(f"{git.git_dir} ends at {commit.origin}, its parent is not there.", _DEEPEN)
        return NotTaken(commit.origin, f"a root commit ({commit.title}): there is nothing that it changes")
    body = commit.message.partition("\n\n")[2].strip("\n")
    try:
        files, contents = _changes(git, git.tree_of(commit.parents[0]), commit.tree)
    except _UnfitError as error:
        return NotTaken(commit.origin, f"{error}, which cannot be part of a patch")
    return Incoming(
        origin=commit.origin,
        title=commit.title,
        body=body,
        authors=authors_of(commit.author, body),
        date=datetime.datetime.fromtimestamp(commit.epoch, datetime.UTC).date(),
        changes=files,
        contents=contents,
    )


class _UnfitError(Exception):
    """What a commit changes that no patch can hold."""


def _changes(git: Git, old: str, new: str) -> tuple[tuple[FileChange, ...], dict[str, bytes]]:
    """What differs between two trees, and every content that has a part in it."""
    fields = _run(git, "diff-tree", "-r", "-z", "--no-renames", old, new).split("\0")
    changes: list[FileChange] = []
    for meta, path in zip(fields[::2], fields[1::2], strict=False):
        old_mode, new_mode, old_oid, new_oid, _ = meta.lstrip(":").split()
        if "160000" in (old_mode, new_mode):
            raise _UnfitError(f"it changes {path}, a submodule")
        if not path.isprintable() and any("\udc80" <= c <= "\udcff" for c in path):
            raise _UnfitError("it changes a file whose name is not UTF-8")
        pre, post = (Entry(m, o) if o != ABSENT else None for m, o in ((old_mode, old_oid), (new_mode, new_oid)))
        changes.append(FileChange(path, pre, post))
    oids = sorted({entry.oid for c in changes for entry in (c.pre, c.post) if entry is not None})
    try:
        return tuple(changes), git.read_blobs(oids) if oids else {}
    except (GitError, InternalError) as error:
        raise UsageProblem(f"{git.git_dir} lacks contents that the fork changed: {error.message}.", _DEEPEN) from error


_DEEPEN = "A shallow or partial clone cannot be imported; fetch what is missing (`git fetch --unshallow`)."


def _commit(git: Git, revision: str) -> Commit:
    if revision.startswith("-"):
        raise UsageProblem(f"`{revision}` is no revision.", "Name a commit or a branch.")
    form = "--format=%H%n%T%n%P%n%an <%ae>%n%at%n%B"
    raw = _run(git, "log", "-1", "--encoding=UTF-8", form, f"{revision}^{{commit}}")
    text = raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    oid, tree, parents, author, epoch, *message = text.split("\n")
    return Commit(oid, tree, tuple(parents.split()), author, int(epoch or 0), "\n".join(message))


def _is_ancestor(git: Git, one: str, other: str) -> bool:
    return git.succeeds("merge-base", "--is-ancestor", one, other)


def _run(git: Git, *args: str) -> str:
    try:
        return git.run(*args)
    except GitError as error:
        said = (error.stderr.strip().splitlines() or ["no output"])[0]
        remedy = _DEEPEN if "missing" in said or "could not" in said.lower() else "Check the revision with `git log`."
        raise UsageProblem(f"{git.git_dir}: {said}.", remedy) from error
