"""A folder or an archive as a git tree, byte for byte.

Only plumbing that looks at nothing but contents: no ``.gitattributes``, ``.gitignore`` or line-ending setting can
change the result. What git records is kept, and no more: regular files with their executable bit, symbolic links.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llamapatch.errors import EnvironmentProblem
from llamapatch.git import Git

# Far above llama.cpp's 175 MB, far below what fills a disk: an archive that unpacks to more is not upstream.
MAX_BYTES = 4 << 30
# Likewise above its 3,600 files, and above any path or extended header that tar reads into memory whole.
MAX_FILES = 200_000
MAX_HEADER = 1 << 20
_DAMAGE = (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error)
_ALTERS = re.compile(rb"\s(export-ignore|export-subst|ident|eol=crlf|filter=|working-tree-encoding=)")


class BadArchiveError(EnvironmentProblem):
    """An archive that is damaged, or that is not a source archive."""


class _Member(tarfile.TarInfo):
    """tarfile reads extended headers into memory, whatever size they claim; this one looks at the claim first."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in tarfile.REGULAR_TYPES and self.size > MAX_HEADER:
            raise BadArchiveError(f"it has a header of {self.size} bytes")
        inherited: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return inherited


@dataclass(frozen=True)
class Entry:
    """One path of a tree: `mode` as git writes it; the content is a file on disk, or bytes (a link's target)."""

    path: str
    mode: str
    content: Path | bytes


def folder_entries(folder: Path) -> Iterator[Entry]:
    """Every file and link below `folder`; ``.git`` is no content. Sockets, pipes and devices are refused."""
    todo = [folder]
    while todo:
        here = todo.pop()
        with os.scandir(here) as found:
            entries = list(found)
        for entry in entries:
            if entry.name == ".git":
                continue
            path = Path(entry.path)
            name = path.relative_to(folder).as_posix()
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                todo.append(path)
            elif stat.S_ISLNK(mode):
                yield Entry(name, "120000", os.fsencode(os.readlink(path)))  # noqa: PTH115 (keeps raw bytes)
            elif stat.S_ISREG(mode):
                yield Entry(name, "100755" if mode & stat.S_IXUSR else "100644", path)
            else:
                raise EnvironmentProblem(f"{path} is neither a file nor a link.")


def archive_entries(
    archive: Path, member: str, scratch: Path, on_bytes: Callable[[int], None] | None = None
) -> Iterator[Entry]:
    """Every file and link of a tar archive below its one top folder and, in that, below `member`.

    Nothing is unpacked to a path that the archive names: contents go to numbered files in `scratch`, links are only
    read. So an absolute path, ``..``, a link that leads out or names that differ only in case can do no harm; the
    first two are refused, as git refuses them. Raises `BadArchiveError`.
    """
    scratch.mkdir()
    written = 0
    known: dict[str, Entry] = {}
    inside = [part for part in member.split("/") if part]
    try:
        with tarfile.open(archive, tarinfo=_Member) as tar:
            for number, info in enumerate(tar):
                parts = [p for p in info.name.split("/") if p not in ("", ".")]
                if info.name.startswith("/") or ".." in parts:
                    raise BadArchiveError(f"it holds the path {info.name!r}, which leads out of it")
                # Before anything else, and for what is skipped as well: finding the next header means unpacking it.
                written += info.size
                if written > MAX_BYTES or number >= MAX_FILES:
                    raise BadArchiveError(f"it unpacks to more than {MAX_BYTES >> 30} GiB or {MAX_FILES} files")
                if parts[1 : 1 + len(inside)] != inside or len(parts) <= 1 + len(inside):
                    continue
                # What was a submodule has a file that pointed to its repository: no content, as in a folder.
                if parts[-1] == ".git" and info.isreg():
                    continue
                # Only what would enter the tree: published archives hold a `.git` of their own beside `member`.
                if any(p.lower() == ".git" for p in parts[1 + len(inside) :]):
                    raise BadArchiveError(f"it holds the path {info.name!r}, which git takes for a repository")
                name = "/".join(parts[1 + len(inside) :])
                if info.issym():
                    known[info.name] = Entry(name, "120000", os.fsencode(info.linkname))
                elif info.islnk():
                    # A second name of a file that came earlier in the archive.
                    if info.linkname not in known:
                        raise BadArchiveError(f"{info.name!r} is a hard link to {info.linkname!r}, which is not in it")
                    first = known[info.linkname]
                    known[info.name] = Entry(name, first.mode, first.content)
                elif info.isreg():
                    target = scratch / f"{number:08d}"
                    stream = tar.extractfile(info)
                    assert stream is not None
                    with target.open("wb") as out:
                        shutil.copyfileobj(stream, out)
                    known[info.name] = Entry(name, "100755" if info.mode & stat.S_IXUSR else "100644", target)
                elif not info.isdir():
                    raise BadArchiveError(f"{info.name!r} is neither a file nor a link")
                if on_bytes is not None:
                    on_bytes(written)
    except _DAMAGE as error:
        raise _damaged(error) from error
    # A path that occurs twice: the later one counts, as when unpacking.
    yield from {entry.path: entry for entry in known.values()}.values()


def extract_member(archive: Path, name: str, target: Path) -> bool:
    """Write the one file `name` of a tar archive to `target`; False when it is not there. Raises `BadArchiveError`."""
    unpacked = 0
    try:
        with tarfile.open(archive, tarinfo=_Member) as tar:
            for number, info in enumerate(tar):
                unpacked += info.size
                if unpacked > MAX_BYTES or number >= MAX_FILES:
                    raise BadArchiveError(f"it unpacks to more than {MAX_BYTES >> 30} GiB or {MAX_FILES} files")
                if info.name == name and info.isreg():
                    stream = tar.extractfile(info)
                    assert stream is not None
                    with target.open("wb") as out:
                        shutil.copyfileobj(stream, out)
                    return True
    except _DAMAGE as error:
        raise _damaged(error) from error
    return False


def _damaged(error: Exception) -> BadArchiveError:
    # gzip, bz2 and lzma report damage as OSError or EOFError; a full disk must keep its own name.
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    # tarfile's own words may be a list of all the formats that it is not.
    detail = "" if "\n" in str(error) else f" ({error})"
    return BadArchiveError(f"it is no readable tar archive{detail}")


def write_tree(git: Git, entries: Iterable[Entry], index: Path) -> str:
    """Store `entries` in `git` and return the id of their tree. `index` is a path for a private index file."""
    listed = list(entries)
    on_disk = [e for e in listed if isinstance(e.content, Path)]
    # The list is one name per line: a name that holds a line break goes on its own.
    plain = [e for e in on_disk if "\n" not in str(e.content)]
    listing = b"".join(os.fsencode(e.content) + b"\n" for e in plain if isinstance(e.content, Path))
    ids = git.run("hash-object", "-w", "--no-filters", "--stdin-paths", input=listing).split()
    blobs = dict(zip((e.path for e in plain), ids, strict=True))
    for entry in listed:
        if entry.path not in blobs:
            data = entry.content if isinstance(entry.content, bytes) else entry.content.read_bytes()
            blobs[entry.path] = git.write_blob(data)
    lines = b"".join(f"{e.mode} {blobs[e.path]}\t".encode() + os.fsencode(e.path) + b"\0" for e in listed)
    git.run("update-index", "-z", "--index-info", input=lines, index=index)
    return git.run("write-tree", index=index)


def altering_attributes(git: Git, tree: str) -> list[str]:
    """The ``.gitattributes`` files of `tree` by which ``git archive`` leaves files out or rewrites them.

    A source archive of such a tree is another tree, and nothing in the archive can bring the original back.
    """
    files = [f for f in git.tree_files(tree) if f.path.rsplit("/", 1)[-1] == ".gitattributes"]
    texts = git.read_blobs([f.blob for f in files])
    return [f.path for f in files if _ALTERS.search(texts[f.blob])]
