"""File contents by id, from wherever they are: made in memory, unpacked from the pre-images, or read from git."""

from __future__ import annotations

from collections.abc import Iterable

from llamapatch.git import Git
from llamapatch.tree.objects import ObjectPool


class Blobs:
    """Reads from `known` first, then from `git` (None: there is nothing else); new contents go to `pool` too."""

    def __init__(self, git: Git | None, pool: ObjectPool, known: dict[str, bytes] | None = None) -> None:
        self.git = git
        self.pool = pool
        self.known: dict[str, bytes] = known if known is not None else {}

    def fetch(self, oids: Iterable[str]) -> None:
        """Read several with one process; asking one by one later costs a process each."""
        missing = sorted({oid for oid in oids if oid not in self.known})
        if missing and self.git is not None:
            self.known |= self.git.read_blobs(missing)

    def get(self, oid: str) -> bytes:
        """The content; `InternalError` when it is nowhere."""
        self.fetch([oid])
        return self.known[oid]

    def keep(self, oid: str) -> None:
        """Have a known content stored with whatever else was made; one that git holds already costs nothing."""
        if oid in self.known:
            self.pool.objects.setdefault(oid, ("blob", self.known[oid]))

    def add(self, data: bytes) -> str:
        """Keep a new content and return its id."""
        oid = self.pool.add("blob", data)
        self.known[oid] = data
        return oid
