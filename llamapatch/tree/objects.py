"""Git objects made in memory: ids first, one pack at the end.

Applying a series touches few paths of a tree of some thousand files. Spawning git for each blob, tree and commit would
cost more than all the work, so ids are computed here (they are plain SHA-1 over a header and the content) and whatever
a store lacks is handed to ``git index-pack``, which checks and stores it in one step. Nothing is written before that:
a dry run and a verification use the same code and simply throw the objects away.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from llamapatch.errors import ConflictError, MismatchError
from llamapatch.git import Git

Kind = Literal["blob", "tree", "commit"]
ABSENT = "0" * 40
PACK_TYPE: dict[Kind, int] = {"commit": 1, "tree": 2, "blob": 3}
IDENTITY = "llamapatch <llamapatch@localhost>"


@dataclass(frozen=True)
class Entry:
    """A file in a tree: mode (``100644``, ``100755``, ``120000``) and blob id."""

    mode: str
    oid: str


@dataclass
class ObjectPool:
    """Objects that were made but not stored: id -> (kind, content)."""

    objects: dict[str, tuple[Kind, bytes]] = field(default_factory=dict)

    def add(self, kind: Kind, data: bytes) -> str:
        """Add an object and return its id."""
        oid = hash_object(kind, data)
        self.objects[oid] = (kind, data)
        return oid

    def commit(self, tree: str, parent: str | None, *, author: str, epoch: int, message: str) -> str:
        """Add a commit; `author` is ``Name <mail>``, `epoch` the UTC second of both dates."""
        lines = [f"tree {tree}"]
        if parent:
            lines.append(f"parent {parent}")
        lines += [f"author {author} {epoch} +0000", f"committer {IDENTITY} {epoch} +0000", "", message]
        return self.add("commit", "\n".join(lines).encode())

    def pack(self, oids: Iterable[str]) -> bytes:
        """A version-2 pack file of the objects named."""
        wanted = sorted(set(oids))
        parts = [b"PACK" + struct.pack(">II", 2, len(wanted))]
        for oid in wanted:
            kind, data = self.objects[oid]
            # Level 1: sources of some kB; the pack is made again cheaply, and time matters more than size here.
            parts += [pack_header(kind, len(data)), zlib.compress(data, 1)]
        body = b"".join(parts)
        return body + hashlib.sha1(body, usedforsecurity=False).digest()

    def store(self, git: Git) -> int:
        """Write what the repository lacks, all or nothing; returns how many objects that were."""
        if not self.objects:
            return 0
        asked = "".join(f"{oid}\n" for oid in self.objects).encode()
        answer = git.run("cat-file", "--batch-check", input=asked)
        missing = [line.split()[0] for line in answer.splitlines() if line.endswith(" missing")]
        if missing:
            git.run_bytes("index-pack", "--stdin", "--strict", input=self.pack(missing))
        return len(missing)


def pack_header(kind: Kind, size: int) -> bytes:
    """What precedes an object of this kind and size in a pack."""
    byte = PACK_TYPE[kind] << 4 | size & 15
    size >>= 4
    head = bytearray()
    while size:
        head.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    head.append(byte)
    return bytes(head)


def hash_object(kind: str, data: bytes) -> str:
    """The id that git gives this object."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


class TreeState:
    """A tree being edited. Directories that were not touched keep the ids they were read with."""

    def __init__(self, root: str) -> None:
        # directory -> name -> (mode, id); a subdirectory's id is None while it is dirty.
        self._dirs: dict[str, dict[str, tuple[str, str | None]]] = {"": {}}
        self._root: str | None = root

    @classmethod
    def empty(cls) -> TreeState:
        """A tree without a file."""
        state = cls("")
        state._root = None
        return state

    @classmethod
    def read(cls, git: Git, tree: str) -> TreeState:
        """Every directory of `tree`, with one process. `MismatchError` for a path that git itself would not write."""
        state = cls(tree)
        raw = git.run_bytes("ls-tree", "-r", "-t", "-z", "--full-tree", tree)
        for line in raw.split(b"\0"):
            if line:
                meta, path = line.split(b"\t", 1)
                mode, kind, oid = meta.decode().split()
                parent, _, name = path.decode("utf-8", "surrogateescape").rpartition("/")
                if name in (".", "..") or name.lower() == ".git":
                    raise MismatchError(
                        f"tree {tree} holds the path `{parent}/{name}`, which leads out of it.", "Use another upstream."
                    )
                state._dirs[parent][name] = (mode, oid)
                if kind == "tree":
                    state._dirs[f"{parent}/{name}" if parent else name] = {}
        return state

    def copy(self) -> TreeState:
        """An independent copy."""
        twin = TreeState("")
        twin._root = self._root
        twin._dirs = {path: dict(entries) for path, entries in self._dirs.items()}
        return twin

    def get(self, path: str) -> Entry | None:
        """The file at `path`, or None when it is absent or a directory."""
        parent, _, name = path.rpartition("/")
        entry = self._dirs.get(parent, {}).get(name)
        if entry is None or entry[1] is None or entry[0] == "040000":
            return None
        return Entry(entry[0], entry[1])

    def has_room(self, path: str) -> bool:
        """Whether a file could be put at `path`: no directory is there, and none of its parents is a file."""
        parents = path.split("/")[:-1]
        return path not in self._dirs and all(self.get("/".join(parents[: n + 1])) is None for n in range(len(parents)))

    def set(self, path: str, entry: Entry) -> None:
        """Put a file at `path`; `ConflictError` where a directory stands, or where a parent is a file."""
        if path in self._dirs:
            raise ConflictError(f"`{path}` is a directory in the tree; a file cannot be placed there.")
        parent, _, name = path.rpartition("/")
        self._touch(parent)
        self._dirs[parent][name] = (entry.mode, entry.oid)

    def remove(self, path: str) -> None:
        """Take the file at `path` away, and the directories that it leaves empty."""
        parent, _, name = path.rpartition("/")
        del self._dirs[parent][name]
        self._touch(parent)
        while parent and not self._dirs[parent]:
            del self._dirs[parent]
            parent, _, name = parent.rpartition("/")
            del self._dirs[parent][name]

    def files(self) -> dict[str, Entry]:
        """Every file: path -> entry."""
        return {
            f"{parent}/{name}" if parent else name: Entry(mode, oid)
            for parent, entries in self._dirs.items()
            for name, (mode, oid) in entries.items()
            if mode != "040000" and oid is not None
        }

    def write(self, pool: ObjectPool) -> str:
        """Add the trees that changed to `pool` and return the root's id."""
        if self._root is None:
            self._root = self._write("", pool)
        return self._root

    def _write(self, folder: str, pool: ObjectPool) -> str:
        entries = self._dirs[folder]
        for name, (mode, oid) in list(entries.items()):
            if oid is None:
                entries[name] = (mode, self._write(f"{folder}/{name}" if folder else name, pool))
        lines = []
        for name, (mode, oid) in entries.items():
            raw = name.encode("utf-8", "surrogateescape")
            # git orders a directory as if its name ended with a slash, and writes 40000 for its mode.
            order = raw + b"/" if mode == "040000" else raw
            lines.append((order, mode.lstrip("0").encode() + b" " + raw + b"\0" + bytes.fromhex(oid or "")))
        return pool.add("tree", b"".join(line for _, line in sorted(lines)))

    def _touch(self, folder: str) -> None:
        """Mark `folder` and its parents dirty, creating what is missing."""
        self._root = None
        path = ""
        for name in folder.split("/") if folder else ():
            parent, path = path, f"{path}/{name}" if path else name
            entry = self._dirs[parent].get(name)
            if entry is not None and entry[0] != "040000":
                raise ConflictError(f"`{path}` is a file in the tree; nothing can be placed below it.")
            self._dirs.setdefault(path, {})
            self._dirs[parent][name] = ("040000", None)
