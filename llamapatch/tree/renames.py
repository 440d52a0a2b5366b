"""Where a file went that upstream moved: by content, and only among files that are new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

from llamapatch.git import Git
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import FileChange
from llamapatch.tree.diff import split_lines
from llamapatch.tree.thread import is_binary

# git's own threshold for a rename.
_ALIKE = 0.5
# With no list of the old files a sibling (arch/x86/quants.c beside arch/arm/quants.c) cannot be told from a moved file
# by anything but near identity.
_ALIKE_UNKNOWN = 0.9
# How much better the best candidate must be than the next.
_MARGIN = 0.15


class Renames:
    """Candidates are the files of tree `new` that are not in `old_paths` (None: nobody knows what was there)."""

    def __init__(self, git: Git, new: str, old_paths: Container[str] | None, blobs: Blobs) -> None:
        self.git, self.new, self.old_paths, self.blobs = git, new, old_paths, blobs
        self.found: dict[str, str | None] = {}

    def moved_to(self, file: FileChange) -> str | None:
        """The path that `file` has now, or None when there is no file, or more than one, that it can be."""
        if file.pre is None:
            return None
        if file.path not in self.found:
            self.found[file.path] = self._search(file.path, file.pre.oid)
        return self.found[file.path]

    def _search(self, path: str, oid: str) -> str | None:
        data = self.blobs.get(oid)
        suffix = path.rsplit("/", 1)[-1].rpartition(".")[2]
        candidates = [
            f
            for f in self.git.tree_files(self.new)
            if (self.old_paths is None or f.path not in self.old_paths)
            and f.path.rpartition(".")[2] == suffix
            and f.size <= 2 * len(data) + 100
            and len(data) <= 2 * f.size + 100
        ]
        same = [f.path for f in candidates if f.blob == oid]
        if same or is_binary(data):
            return same[0] if len(same) == 1 else None
        self.blobs.fetch(f.blob for f in candidates)
        wanted = Counter(split_lines(data))
        scores = sorted(((_alike(wanted, self.blobs.get(f.blob)), f.path) for f in candidates), reverse=True)
        best, path = scores[0] if scores else (0.0, "")
        second = scores[1][0] if len(scores) > 1 else 0.0
        enough = _ALIKE if self.old_paths is not None else _ALIKE_UNKNOWN
        return path if best >= enough and best - second >= _MARGIN else None


def _alike(wanted: Counter[bytes], data: bytes) -> float:
    """The share of lines that two contents have in common, blank ones and lone braces left out."""
    other = Counter(split_lines(data))
    both, either = wanted & other, wanted | other
    told = {line for line in either if len(line.strip()) > 2}
    total = sum(either[line] for line in told)
    return sum(both[line] for line in told) / total if total else 0.0
