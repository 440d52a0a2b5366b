"""The per-user cache: one bare repository of upstream trees, each proven before a ref names it.

Layout under ``settings.cache``::

    upstream.git/            refs/llamapatch/upstream/<tree> -> that tree (a ref to a tree object, no commit)
    upstream.lock            held by the process that is fetching
    upstream-tmp/<random>/   its scratch; what a killed process left is removed by the next one that gets the lock
    upstream-seen/<key>      the tree of a folder or archive that has been read before, see `fingerprint`
    upstream-from/<tree>     where the tree came from, for messages only

What makes it safe: every object is re-hashed from its content by ``git index-pack``, and the whole of the tree is
walked inside the one new pack, before anything enters the repository; then pack, index and, last, ref are renamed into
place. A process killed at any point leaves at worst a pack that no ref names.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from llamapatch.errors import EnvironmentProblem, LlamapatchError
from llamapatch.git import Git, GitError

REF_PREFIX = "refs/llamapatch/upstream/"
# Long enough for a colleague's slow download, short enough that a hung one is noticed.
LOCK_WAIT_SECONDS = 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class MissingObjectsError(LlamapatchError):
    """A tree is named but some of its objects are not there."""

    def __init__(self, tree: str, missing: int) -> None:
        super().__init__(f"{missing} objects of tree {tree} are missing")
        self.missing = missing


class DamagedObjectsError(EnvironmentProblem):
    """Objects are there but cannot be read, or are not what their names say."""


class Store:
    """The cache at `folder` (created when first written to)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git = Git(folder / "upstream.git")

    # -- reading, without a lock -------------------------------------------------------------------------------------

    def holds(self, tree: str) -> bool:
        """Whether `tree` is here, ref and every object (some 20 ms: names and sizes, not contents)."""
        if not (self.git.git_dir / "HEAD").is_file() or self.git.ref(REF_PREFIX + tree) != tree:
            return False
        return self.git.succeeds("rev-list", "--objects", "--quiet", tree)

    def origin(self, tree: str) -> str:
        """Where `tree` came from when it was fetched."""
        try:
            return (self.folder / "upstream-from" / tree).read_text(encoding="utf-8").strip()
        except OSError:
            return "an earlier run"

    def recall(self, key: str) -> str | None:
        """The tree that `remember` noted for `key`."""
        try:
            tree = (self.folder / "upstream-seen" / key).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return tree if len(tree) == 40 else None

    def check_contents(self, tree: str) -> None:
        """Hash every stored object again (about 2 s); a bad one raises `GitError`."""
        self.git.run("fsck", "--full", "--no-dangling", "--no-progress", tree)

    # -- writing, with the lock held ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, on_wait: Callable[[], None]) -> Iterator[Path]:
        """Hold the cache's lock and get an empty scratch folder in it, gone afterwards; `on_wait` tells a wait."""
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "upstream.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                try:
                    lock.acquire(timeout=LOCK_WAIT_SECONDS)
                except Timeout:
                    raise EnvironmentProblem(
                        f"another process has been holding {lock.lock_file} for {LOCK_WAIT_SECONDS / 60:.0f} minutes.",
                        "End it, or set LLAMAPATCH_CACHE to another folder.",
                    ) from None
            try:
                nursery = self.folder / "upstream-tmp"
                # Whoever wrote these held the lock; nobody holds it but us.
                shutil.rmtree(nursery, ignore_errors=True)
                nursery.mkdir(exist_ok=True)
                scratch = Path(tempfile.mkdtemp(dir=nursery))
                try:
                    yield scratch
                finally:
                    shutil.rmtree(nursery, ignore_errors=True)
            finally:
                lock.release()

    def publish(self, tree: str, git: Git, borrowed: Sequence[Path], scratch: Path, origin: str) -> None:
        """Bring `tree` with all it holds from `git` (and the `borrowed` object folders) into the cache, proven.

        Raises `MissingObjectsError` when an object of the tree is nowhere to be found.
        """
        with self._explained():
            pack = self._pack(tree, git, borrowed, scratch)
            self._ensure_repository(scratch)
            packs = self.git.git_dir / "objects" / "pack"
            packs.mkdir(parents=True, exist_ok=True)
            # Readers find a pack through its index, so that goes last.
            for suffix in (".pack", ".idx"):
                part = pack.with_suffix(suffix)
                _flush(part)
                part.replace(packs / part.name)
            _flush(packs)
            self._note("upstream-from", tree, origin, scratch)
            self.git.run("update-ref", REF_PREFIX + tree, tree)

    def remember(self, key: str, tree: str, scratch: Path) -> None:
        """Note that the folder or archive with this fingerprint is `tree`."""
        with self._explained():
            self._note("upstream-seen", key, tree, scratch)

    def remember_source(self, key: str, tree: str) -> None:
        """`remember`, for a source that is not on this machine and never changes; takes the lock itself."""
        if self.recall(key) != tree:
            with self.locked(lambda: None) as scratch:
                self.remember(key, tree, scratch)

    def _pack(self, tree: str, git: Git, borrowed: Sequence[Path], scratch: Path) -> Path:
        """One pack of exactly `tree`, hashed from its contents and walked on its own."""
        env = alternates(borrowed)
        listing = git.run("rev-list", "--objects", "--no-object-names", "--missing=print", tree, env=env).split()
        if missing := sum(1 for oid in listing if oid.startswith("?")):
            raise MissingObjectsError(tree, missing)
        proof = Git.init_bare(scratch / "proof.git")
        packs = proof.git_dir / "objects" / "pack"
        wanted = "".join(f"{oid}\n" for oid in listing).encode()
        try:
            # No search for new deltas: those that the source has are reused, and 4 CPU seconds are saved.
            name = git.run("pack-objects", "--quiet", "--window=0", str(packs / "pack"), input=wanted, env=env)
            pack = packs / f"pack-{name}.pack"
            # pack-objects copies the source's bytes and believes its index. index-pack believes nothing.
            for guess in (*packs.glob("*.idx"), *packs.glob("*.rev")):
                guess.unlink()
            proof.run("index-pack", str(pack))
            proof.run("rev-list", "--objects", "--quiet", tree)
        except GitError as error:
            if speaks_of_full_disk(error.stderr):
                raise
            raise DamagedObjectsError(f"the objects of tree {tree} are damaged: {reason(error)}.") from error
        return pack

    def _ensure_repository(self, scratch: Path) -> None:
        if (self.git.git_dir / "HEAD").is_file() and self.git.succeeds("rev-parse", "--git-dir"):
            return
        # Renamed into place, so that there is never half a repository; half of an older one makes room.
        fresh = Git.init_bare(scratch / "new.git").git_dir
        if self.git.git_dir.exists():
            self.git.git_dir.rename(scratch / "damaged.git")
        fresh.rename(self.git.git_dir)

    def _note(self, folder: str, name: str, text: str, scratch: Path) -> None:
        (self.folder / folder).mkdir(exist_ok=True)
        draft = scratch / "note"
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(self.folder / folder / name)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """A full or forbidden disk under the cache, as an error with a remedy; trouble elsewhere passes."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise self.trouble(True, "") from error
            if error.filename is not None and self.folder in (where := Path(error.filename), *where.parents):
                raise self.trouble(False, error.strerror or str(error)) from error
            raise
        except GitError as error:
            if speaks_of_full_disk(error.stderr):
                raise self.trouble(True, "") from error
            raise

    def trouble(self, full: bool, why: str) -> EnvironmentProblem:
        """The error for a cache that cannot be written."""
        if full:
            return EnvironmentProblem(
                f"no space left for the upstream cache in {self.folder} (about 200 MB are needed while fetching).",
                "Free some, or set LLAMAPATCH_CACHE to a folder on another disk.",
            )
        return EnvironmentProblem(
            f"the upstream cache in {self.folder} cannot be written: {why}.",
            "Set LLAMAPATCH_CACHE to a folder that you may write to.",
        )


def alternates(folders: Sequence[Path]) -> dict[str, str]:
    """The environment that lets git read objects from other repositories' ``objects`` folders, and only read."""
    quoted = ['"' + str(f).replace("\\", "\\\\").replace('"', '\\"') + '"' for f in folders]
    return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": ":".join(quoted)} if quoted else {}


def reason(error: GitError) -> str:
    """The line of git's complaint that says why."""
    lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))]
    # The first one: what follows is git going on about what to do.
    return (fatal or lines or [f"git ended with status {error.code}"])[0].split(": ", 1)[-1].rstrip(".")


def speaks_of_full_disk(text: str) -> bool:
    """Whether a child's output blames a full disk or quota."""
    words = [os.strerror(number) for number in _FULL] + ["out of diskspace"]  # the last is git's own
    return any(word.lower() in text.lower() for word in words)


def fingerprint(path: Path) -> str:
    """A key for the present state of a file or folder from names, modes, sizes and times; contents are not read.

    Like git's own index it trusts the file system's nanosecond times, the change time included.
    """
    digest = hashlib.sha256()
    for name, stat in _states(path):
        state = (stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        digest.update(os.fsencode(name) + b"\0" + repr(state).encode() + b"\0")
    return digest.hexdigest()


def _states(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    if not path.is_dir():
        yield str(path.resolve()), path.stat()
        return
    yield str(path.resolve()), path.stat()
    todo = [path]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                stat = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    todo.append(Path(entry.path))
                    # A folder is only its contents to git, but its change time tells of removed and added names.
                yield entry.path, stat


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
