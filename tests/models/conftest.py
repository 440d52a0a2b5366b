"""A toy vocabulary, a toy text, and the real upstream tree and build for the marked tests."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import gguf
import pytest

from llamapatch.config import load_settings, packaged_home
from llamapatch.git import Git
from llamapatch.models.corpus import Corpus, read_corpus
from llamapatch.series.load import load_series
from llamapatch.upstream.fetch import Upstream, ensure_upstream

IN_CI = os.environ.get("CI") == "true"
# Read before any fixture clears the environment.
GIVEN_BIN = os.environ.get("LLAMAPATCH_BIN")


@pytest.fixture(scope="session")
def upstream() -> Upstream:
    """The pinned tree, through the package's own fetching."""
    settings = load_settings()
    return ensure_upstream(settings, load_series(settings).pin)


@pytest.fixture(scope="session")
def corpus(upstream: Upstream) -> Corpus:
    return read_corpus(Git(upstream.git_dir), upstream.tree)


@pytest.fixture(scope="session")
def bin_folder() -> Path:
    """A base build: LLAMAPATCH_BIN, else what `llamapatch build` left in the checkout. CI must have one."""
    folder = Path(GIVEN_BIN) if GIVEN_BIN else packaged_home() / ".llamapatch" / "build" / "base" / "bin"
    if not (folder / "llama-perplexity").is_file():
        if IN_CI:
            pytest.fail(f"{folder} has no llama-perplexity")
        pytest.skip("needs a build: set LLAMAPATCH_BIN, or run `llamapatch build --variant base`")
    return folder


@dataclass(frozen=True)
class Words:
    """A byte-level BPE without merges, as `tokenizers` stores it: 256 bytes and the separator."""

    path: Path
    n_vocab: int


@pytest.fixture
def byte_tokenizer(tmp_path: Path) -> Words:
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    vocab = {token: i for i, token in enumerate(["<|endoftext|>", *letters])}
    stored = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    return Words(path, len(vocab))


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """A vocabulary-only GGUF of 512 tokens."""
    path = tmp_path / "vocabulary.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([f"token {i}" for i in range(512)])
    writer.add_token_types([gguf.TokenType.NORMAL] * 512)
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
