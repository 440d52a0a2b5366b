from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llamapatch.git import Git, TreeFile
from llamapatch.models.corpus import Corpus, is_held_out, is_wanted, read_corpus, read_evaluation_text
from llamapatch.upstream.fetch import Upstream


@dataclass
class Shelf:
    """A repository of named contents."""

    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)

    def tree_files(self, tree: str) -> list[TreeFile]:
        return [TreeFile(p, "100644", p, len(data)) for p, data in sorted(self.files.items())]

    def read_blobs(self, blobs: list[str]) -> dict[str, bytes]:
        self.asked += blobs
        return {b: self.files[b] for b in blobs}


@pytest.mark.parametrize(
    ("path", "size", "wanted"),
    [
        ("src/llama.cpp", 10, True),
        ("ggml/include/ggml.h", 399_999, True),
        ("ggml/include/ggml.h", 400_000, False),
        ("vendor/nlohmann/json.hpp", 10, False),
        ("src/unicode-data.cpp", 10, False),
        ("ggml/src/ggml-vulkan/ggml-vulkan.cpp", 10, False),
        ("ggml/src/ggml-cuda/template-instances/mmq.cu", 10, False),
        ("README.md", 10, True),
        ("CMakeLists.txt", 10, False),
        ("a/b.cuh", 10, True),
        ("a/b.metal", 10, False),
    ],
)
def test_which_files_are_wanted(path: str, size: int, wanted: bool) -> None:
    assert is_wanted(path, size) is wanted


def test_held_out_is_decided_by_the_paths_sha1() -> None:
    paths = [f"src/file{i}.cpp" for i in range(4000)]
    held = [p for p in paths if is_held_out(p)]
    assert held == [p for p in paths if int(hashlib.sha1(p.encode()).hexdigest(), 16) % 40 == 0]
    assert 60 < len(held) < 140


def test_halves_line_ends_and_files_that_are_no_text() -> None:
    held = next(f"h{i}.cpp" for i in range(1000) if is_held_out(f"h{i}.cpp"))
    kept = [f"t{i}.cpp" for i in range(9) if not is_held_out(f"t{i}.cpp")][:3]
    shelf = Shelf({held: b"eval\r\nuation\r", kept[0]: b"a\r\nb", kept[1]: b"\xff\xfe", kept[2]: "é".encode()})
    corpus = read_corpus(shelf, "tree")
    assert corpus == Corpus(train=["a\nb", "é"], evaluation=["eval\nuation\n"])
    shelf.asked.clear()
    assert read_evaluation_text(shelf, "tree") == corpus.evaluation_text
    assert shelf.asked == [held], "the training half is not read for the evaluation text"


@pytest.mark.upstream
def test_the_real_tree(corpus: Corpus, upstream: Upstream) -> None:
    assert (len(corpus.train), len(corpus.evaluation)) == (1551, 31)
    assert sum(map(len, corpus.train)) == 27_532_059
    text = corpus.evaluation_text.encode()
    assert len(text) == 516_194
    assert hashlib.sha256(text).hexdigest() == "a7cff858f2a8285e9af0045a90ab8bdbf5b96448398e01fef150e71712a6c40d"
    assert read_evaluation_text(Git(upstream.git_dir), upstream.tree).encode() == text


@pytest.mark.upstream
@pytest.mark.slow
def test_the_tokenizer_comes_out_byte_for_byte(corpus: Corpus, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from llamapatch.models.reference import card
    from llamapatch.models.train import train_tokenizer

    path = tmp_path / "tokenizer.json"
    train_tokenizer(corpus.train, 4096).save(str(path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card().tokenizer_sha256
