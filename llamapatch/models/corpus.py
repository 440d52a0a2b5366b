"""The reference model's text: source files of the pinned upstream tree, split by path.

The rule needs no download beyond upstream itself and gives the same bytes everywhere:

* C, C++, CUDA, Python and Markdown files of the tree, in git's path order;
* vendored and generated files, the Vulkan backend's embedded shaders, and files over 400 kB are left out;
* a file is held out for evaluation when ``int(sha1(path), 16) % 40 == 0``.

Nothing of upstream's text is redistributed: both halves are read from the user's own copy at run time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from llamapatch.git import TreeFile

SUFFIXES = (".cpp", ".h", ".c", ".cu", ".cuh", ".hpp", ".md", ".py")
LEFT_OUT = ("vendor/", "unicode-data", "ggml-vulkan", "template-instances")
MAX_BYTES = 400_000
HELD_OUT_MODULUS = 40


class BlobReader(Protocol):
    """What this module needs of a git repository."""

    def tree_files(self, tree: str) -> list[TreeFile]: ...

    def read_blobs(self, blobs: list[str]) -> dict[str, bytes]: ...


@dataclass(frozen=True)
class Corpus:
    """File contents, one string per file, in path order."""

    train: list[str]
    evaluation: list[str]

    @property
    def evaluation_text(self) -> str:
        """The held-out files joined by a newline: what perplexity is measured on."""
        return "\n".join(self.evaluation)


def is_wanted(path: str, size: int) -> bool:
    """Whether the data rule takes a file of `size` bytes at `path`."""
    return path.endswith(SUFFIXES) and size < MAX_BYTES and not any(part in path for part in LEFT_OUT)


def is_held_out(path: str) -> bool:
    """Whether a file belongs to the evaluation half."""
    digest = hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()
    return int(digest, 16) % HELD_OUT_MODULUS == 0


def read_corpus(repo: BlobReader, tree: str) -> Corpus:
    """Read both halves of the text from `tree`; files that are not UTF-8 are left out."""
    return _split((f.path, blob) for f, blob in _blobs(repo, tree, held_out=None))


def read_evaluation_text(repo: BlobReader, tree: str) -> str:
    """Read the evaluation half alone (31 files of v0.5.0), which is quick."""
    return _split((f.path, blob) for f, blob in _blobs(repo, tree, held_out=True)).evaluation_text


def _blobs(repo: BlobReader, tree: str, held_out: bool | None) -> list[tuple[TreeFile, bytes]]:
    files = [
        f
        for f in repo.tree_files(tree)
        if is_wanted(f.path, f.size) and (held_out is None or is_held_out(f.path) is held_out)
    ]
    contents = repo.read_blobs([f.blob for f in files])
    return [(f, contents[f.blob]) for f in files]


def _split(files: Iterable[tuple[str, bytes]]) -> Corpus:
    train: list[str] = []
    evaluation: list[str] = []
    for path, raw in files:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            continue
        (evaluation if is_held_out(path) else train).append(text.replace("\r\n", "\n").replace("\r", "\n"))
    return Corpus(train, evaluation)
