"""``.llamapatch/store.git``: the objects, and the refs that are the whole state of a project.

* ``refs/llamapatch/base``           the synthetic commit of the pinned tree
* ``refs/llamapatch/applied``        the tip of what is applied; the ids are in its commits' trailers
* ``refs/llamapatch/trees/<name>``   the commit that the worktree ``<name>`` shows
* ``refs/llamapatch/moving/<name>``  the commit that it is being moved to; there only during a move

Objects are written first, then ONE ref decides, by compare-and-swap, so a process killed at any point leaves the old
state or the new one (docs/decisions/one-ref-decides.md). Upstream's objects are copied in (a quarter of a second,
35 MB): the store must outlive the per-user cache and the user's own repository.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llamapatch.config import Settings
from llamapatch.errors import DirtyError, EnvironmentProblem, InternalError, MismatchError
from llamapatch.git import Git, GitError
from llamapatch.locks import Owner, hold
from llamapatch.series.load import Series
from llamapatch.series.model import UpstreamPin
from llamapatch.tree.chain import TRAILER_ID, base_commit
from llamapatch.tree.objects import ABSENT, ObjectPool
from llamapatch.upstream.fetch import ensure_upstream

Report = Callable[[str], None]

REF = "refs/llamapatch"
BASE_REF = f"{REF}/base"
APPLIED_REF = f"{REF}/applied"
# How long a second process waits for the first before it gives up.
LOCK_SECONDS = 10.0
# A ref's lock file this old cannot belong to a living git: it holds one for milliseconds.
STALE_SECONDS = 3.0
# Packs that the store may have before they are joined.
PACKS = 64
# Locks that a thread of this process holds.
_HELD: set[tuple[Path, int]] = set()
# No attribute of any tree may change bytes on their way to or from a worktree, or how a diff is made.
_ATTRIBUTES = "* -text !eol -ident !filter !working-tree-encoding !diff !merge !whitespace\n"


@dataclass(frozen=True)
class AppliedPatch:
    """A patch as it was applied: its id and the commit and tree that ended it."""

    id: str
    commit: str
    tree: str


@dataclass(frozen=True)
class Store:
    """An existing store of a project."""

    settings: Settings
    git: Git

    @property
    def trees(self) -> Path:
        return self.settings.state / "trees"

    def refs(self) -> dict[str, str]:
        """Every ref of ours -> object id."""
        lines = self.git.run("for-each-ref", "--format=%(objectname) %(refname)", REF).splitlines()
        return {name: oid for oid, name in (line.split(" ", 1) for line in lines)}

    def applied(self) -> tuple[AppliedPatch, ...]:
        """What is applied, in order; empty when nothing is."""
        tip = self.git.ref(APPLIED_REF)
        return self.patches_of(tip) if tip else ()

    def patches_of(self, tip: str) -> tuple[AppliedPatch, ...]:
        """The patches between the base and a commit, from the trailers."""
        raw = self.git.run("log", "-z", "--first-parent", "--reverse", "--format=%H%n%T%n%B", tip)
        found = []
        for record in filter(None, raw.split("\0")):
            commit, tree, *body = record.strip("\n").split("\n")
            ids = [line[len(TRAILER_ID) + 2 :] for line in body if line.startswith(f"{TRAILER_ID}: ")]
            if ids:
                found.append(AppliedPatch(ids[-1], commit, tree))
        return tuple(found)

    def update_ref(self, name: str, new: str | None, old: str | None, reason: str) -> None:
        """Change one ref from `old` (None: it must not exist) to `new` (None: delete it).

        `DirtyError` when it is not what it was, `EnvironmentProblem` when it cannot be written.

        There is no call for several refs on purpose: git takes their locks together but then writes one after another,
        and a kill in between leaves some old and some new.
        """
        if new == old:
            return
        args = ("-m", reason, name, new, old or ABSENT) if new is not None else ("-d", name, old or ABSENT)
        for _ in range(2):
            try:
                self.git.run("update-ref", "--create-reflog", *args, env=_REFLOG_AUTHOR)
                return
            except GitError as error:
                failure = error
                if not ("File exists" in error.stderr and self._drop_stale_locks()):
                    break
        if not any(words in failure.stderr for words in _CHANGED):
            raise EnvironmentProblem(
                f"{name} in {self.git.git_dir} could not be written: {failure.message}.",
                "See to the disk's space and rights, and run the command again.",
            ) from failure
        raise DirtyError(
            f"the state in {self.git.git_dir} changed underneath: {failure.stderr.strip()}.",
            "Run the command again.",
        ) from failure

    def tidy(self) -> None:
        """Join small packs when there are many: every change adds one, and every git process opens them all. Nothing is
        dropped, and git may be killed in it."""
        if sum(1 for _ in (self.git.git_dir / "objects" / "pack").glob("*.pack")) > PACKS:
            with suppress(GitError):
                self.git.run("repack", "--geometric=2", "-d", "-q")

    def _drop_stale_locks(self) -> bool:
        """Remove lock files left by a git that was killed; we hold the project lock, so no other can be at work. One
        that has lost its parent may live for milliseconds more: younger files are waited for."""
        time.sleep(STALE_SECONDS)
        found = [*(self.git.git_dir / "refs").rglob("*.lock"), *self.git.git_dir.glob("*.lock")]
        for path in found:
            with suppress(FileNotFoundError):  # its owner may have ended well in the meantime
                if time.time() - path.stat().st_mtime >= STALE_SECONDS:
                    path.unlink()
        return True


# How git says that a ref is not what it was, or is just being changed.
_CHANGED = ("but expected", "already exists", "unable to resolve reference", "File exists")
_REFLOG_AUTHOR = {
    "GIT_COMMITTER_NAME": "llamapatch",
    "GIT_COMMITTER_EMAIL": "llamapatch@localhost",
}


@contextmanager
def writing(settings: Settings) -> Iterator[None]:
    """Hold the project's lock; `DirtyError` names its holder when another process keeps it for `LOCK_SECONDS`. The
    operating system frees it when its holder dies. A process that holds it may enter again."""
    settings.state.mkdir(parents=True, exist_ok=True)
    path = settings.state / "lock"
    mine = (path, threading.get_ident())
    if mine in _HELD:
        yield
        return

    def busy(owner: Owner | None) -> str:
        who = f" ({owner})" if owner else ""
        return f"another llamapatch process is at work in {settings.state}{who}; waited {LOCK_SECONDS:.0f} s."

    with hold(path, LOCK_SECONDS, busy, "Wait until it ends and try again."):
        _HELD.add(mine)
        try:
            yield
        finally:
            _HELD.discard(mine)


def existing_store(settings: Settings) -> Store | None:
    """The store if the project has one; for verbs that only read."""
    path = _path(settings)
    return Store(settings, Git(path)) if (path / "HEAD").is_file() else None


def open_store(settings: Settings, series: Series, report: Report | None = None) -> Store:
    """The store, made and filled with the pinned tree when needed; call it under `writing`.

    Upstream is only asked for when the store lacks the tree, or when the user names one: then it must be the pinned
    tree, even if the store could do without.
    """
    store = open_project_store(settings)
    pool = ObjectPool()
    base = base_commit(pool, series.pin)
    present = store.refs().get(BASE_REF)
    if present == base and settings.upstream is None:
        return store
    upstream = ensure_upstream(settings, series.pin, report)
    if upstream.tree != series.pin.tree:
        raise MismatchError(
            f"upstream from {upstream.source} has tree {upstream.tree}, the series is pinned to {series.pin.tree}.",
            f"Give `--upstream` a llama.cpp {series.pin.version}.",
        )
    if present != base:
        if not store.git.succeeds("rev-list", "--objects", "--quiet", series.pin.tree):
            if report is not None:
                report(f"copying llama.cpp {series.pin.version} into {store.git.git_dir}")
            copy_tree(upstream.git_dir, store.git, series.pin.tree)
        pool.store(store.git)
        store.update_ref(BASE_REF, base, present, f"base: llama.cpp {series.pin.version}")
    return store


def open_project_store(settings: Settings) -> Store:
    """The store, made when needed, with whatever trees it has; call it under `writing`."""
    path = _path(settings)
    if not (path / "HEAD").is_file():
        _create(path)
    return Store(settings, Git(path))


def reading_git(settings: Settings, pin: UpstreamPin, report: Report | None = None) -> Git:
    """A repository that holds the pinned tree, without making one: the store, else the per-user cache."""
    store = existing_store(settings)
    if store is not None and settings.upstream is None and store.git.ref(BASE_REF) == base_commit(ObjectPool(), pin):
        return store.git
    return Git(ensure_upstream(settings, pin, report).git_dir)


def _path(settings: Settings) -> Path:
    return settings.state / "store.git"


def _create(path: Path) -> None:
    """A repository that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_over in path.parent.glob(".store-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=".store-")) / "store.git"
    Git.init_bare(temporary)
    (temporary / "info").mkdir(exist_ok=True)
    (temporary / "info" / "attributes").write_text(_ATTRIBUTES, encoding="utf-8")
    if path.exists():
        raise DirtyError(f"{path} exists but is no git repository.", "Move it away and run the command again.")
    temporary.rename(path)
    temporary.parent.rmdir()


def copy_tree(source: Path, target: Git, tree: str) -> None:
    """Pack every object of `tree` from `source` into `target`. `source` is only read: it serves as an alternate for
    this one process, so even temporary files land in the target."""
    objects = str(source / "objects")
    quoted = '"' + objects.replace("\\", "\\\\").replace('"', '\\"') + '"'
    pack = target.git_dir / "objects" / "pack"
    for left_over in pack.glob("tmp_*") if pack.is_dir() else ():
        left_over.unlink(missing_ok=True)
    pack.mkdir(parents=True, exist_ok=True)
    target.run(
        *("pack-objects", "--revs", "--quiet", "--delta-base-offset", str(pack / "pack")),
        input=f"{tree}\n".encode(),
        env={"GIT_ALTERNATE_OBJECT_DIRECTORIES": quoted},
    )
    try:
        target.run("rev-list", "--objects", "--quiet", tree)
    except GitError as error:
        raise InternalError(f"the copy of tree {tree} from {source} is incomplete: {error.stderr.strip()}") from error
