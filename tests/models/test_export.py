from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from llamapatch.errors import UsageProblem
from llamapatch.models.export import export_gguf
from llamapatch.models.gguf_file import read_gguf
from llamapatch.models.shape import Shape
from llamapatch.upstream.fetch import Upstream
from tests.models.conftest import IN_CI, Words

State = dict[str, npt.NDArray[np.float32]]


def toy_shape(words: Words) -> Shape:
    return Shape(n_vocab=words.n_vocab, n_embd=64, n_layer=2, n_head=4, n_head_kv=2, n_ff=96, n_ctx=128)


def toy_state(shape: Shape) -> State:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(dims).astype(np.float32) / 8 for name, dims in shape.tensors().items()}


def test_same_input_same_bytes(tmp_path: Path, byte_tokenizer: Words) -> None:
    shape = toy_shape(byte_tokenizer)
    state = toy_state(shape)
    backwards = dict(reversed(state.items()))
    (tmp_path / "elsewhere").mkdir()
    first, second = tmp_path / "a.gguf", tmp_path / "elsewhere" / "b.gguf"
    export_gguf(state, byte_tokenizer.path, shape, first, metadata={"general.name": "toy"})
    export_gguf(backwards, byte_tokenizer.path, shape, second, metadata={"general.name": "toy"})
    assert first.read_bytes() == second.read_bytes()


def test_what_is_in_the_file(tmp_path: Path, byte_tokenizer: Words) -> None:
    shape = toy_shape(byte_tokenizer)
    state = toy_state(shape)
    path = tmp_path / "toy.gguf"
    export_gguf(state, byte_tokenizer.path, shape, path)
    file = read_gguf(path)
    assert {n: t.shape for n, t in file.tensors.items()} == shape.tensors()
    for name, weight in state.items():
        norm = name.endswith("_norm.weight")
        assert file.tensors[name].type_name == ("F32" if norm else "F16")
        assert np.array_equal(file.array(name), weight if norm else weight.astype(np.float16).astype(np.float32))
    assert file.need("tokenizer.ggml.model") == "gpt2"
    assert file.need("tokenizer.ggml.pre") == "gpt-2"
    assert file.need("tokenizer.ggml.add_bos_token") is False
    assert len(file.need("tokenizer.ggml.tokens")) == byte_tokenizer.n_vocab
    assert file.need("tokenizer.ggml.token_type")[:2] == [3, 1]
    assert file.need("llama.attention.head_count_kv") == 2
    assert file.need("llama.rope.dimension_count") == 16


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("blk.1.ffn_up.weight", float("nan"), "blk.1.ffn_up.weight holds nan"),
        ("blk.0.attn_q.weight", 7e4, "F16 cannot hold"),
        ("output_norm.weight", float("inf"), "F16 cannot hold"),
    ],
)
def test_weights_that_f16_cannot_hold(
    tmp_path: Path, byte_tokenizer: Words, name: str, value: float, says: str
) -> None:
    shape = toy_shape(byte_tokenizer)
    state = toy_state(shape)
    state[name].flat[3] = value
    with pytest.raises(UsageProblem, match=says):
        export_gguf(state, byte_tokenizer.path, shape, tmp_path / "toy.gguf")
    assert not list(tmp_path.glob("*toy.gguf*"))


def test_weights_of_another_shape(tmp_path: Path, byte_tokenizer: Words) -> None:
    shape = toy_shape(byte_tokenizer)
    path = tmp_path / "toy.gguf"
    state = toy_state(shape)
    lacking = {k: v for k, v in state.items() if k != "blk.1.ffn_up.weight"}
    with pytest.raises(UsageProblem, match=r"lack blk\.1\.ffn_up"):
        export_gguf(lacking, byte_tokenizer.path, shape, path)
    with pytest.raises(UsageProblem, match=r"has the shape \(2, 2\)"):
        export_gguf(state | {"token_embd.weight": np.ones((2, 2), np.float32)}, byte_tokenizer.path, shape, path)
    with pytest.raises(UsageProblem, match=r"unknown weight output\.weight"):
        export_gguf(state | {"output.weight": np.ones((2, 2), np.float32)}, byte_tokenizer.path, shape, path)
    assert not path.exists()


def test_tokenizers_that_upstream_would_read_differently(tmp_path: Path, byte_tokenizer: Words) -> None:
    shape = toy_shape(byte_tokenizer)
    stored = json.loads(byte_tokenizer.path.read_text(encoding="utf-8"))
    prefixed = json.loads(json.dumps(stored))
    prefixed["pre_tokenizer"]["add_prefix_space"] = True
    smaller = json.loads(json.dumps(stored))
    smaller["model"]["vocab"].popitem()
    for changed, says in [
        (prefixed, "no byte-level BPE"),
        (smaller, "entries"),
        ({"model": 3}, "no file of the"),
        ([], "no file of"),
    ]:
        bad = tmp_path / "bad.json"
        bad.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(UsageProblem, match=says):
            export_gguf(toy_state(shape), bad, shape, tmp_path / "toy.gguf")
    with pytest.raises(UsageProblem, match="there is no tokenizer"):
        export_gguf(toy_state(shape), tmp_path / "none.json", shape, tmp_path / "toy.gguf")


def test_a_failed_export_leaves_the_old_file(tmp_path: Path, byte_tokenizer: Words) -> None:
    shape = toy_shape(byte_tokenizer)
    path = tmp_path / "toy.gguf"
    path.write_bytes(b"old")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageProblem, match="general"):
        export_gguf(toy_state(shape), byte_tokenizer.path, shape, path, metadata={"llama.block_count": "9"})
    assert path.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == before


TOKENISE = r"""
#include "llama.h"
#include <cstdio>
#include <fstream>
#include <sstream>
#include <vector>
int main(int argc, char ** argv) {
    if (argc != 3) return 2;
    std::stringstream text;
    text << std::ifstream(argv[2], std::ios::binary).rdbuf();
    const std::string s = text.str();
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    llama_model * model = llama_model_load_from_file(argv[1], params);
    if (!model) return 3;
    std::vector<llama_token> ids(s.size() + 8);
    const llama_vocab * vocab = llama_model_get_vocab(model);
    const int n = llama_tokenize(vocab, s.data(), (int) s.size(), ids.data(), (int) ids.size(), true, false);
    for (int i = 0; i < n; ++i) std::printf("%d\n", ids[i]);
    return n > 0 ? 0 : 4;
}
"""


@pytest.mark.upstream
@pytest.mark.slow
def test_upstream_tokenises_as_the_tokenizers_library_does(
    tmp_path: Path, upstream: Upstream, bin_folder: Path
) -> None:
    """Every token of the evaluation text, and of text that pre-tokenizers disagree about."""
    if not IN_CI:
        pytest.importorskip("torch")
    from llamapatch.git import Git
    from llamapatch.models.corpus import read_evaluation_text
    from llamapatch.models.reference import reference_model
    from llamapatch.models.weights import load_model

    git = Git(upstream.git_dir)
    for header in [f for f in git.tree_files(upstream.tree, "include", "ggml/include") if f.path.endswith(".h")]:
        (tmp_path / Path(header.path).name).write_bytes(git.read_blobs([header.blob])[header.blob])
    source, tool = tmp_path / "tokenise.cpp", tmp_path / "tokenise"
    source.write_text(TOKENISE)
    libraries = [f"-L{bin_folder}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{bin_folder}"]
    subprocess.run(["g++", "-std=c++17", f"-I{tmp_path}", source, "-o", tool, *libraries], check=True)
    odd = "\n\n  x\t y's WE'LL  \r\n é漢字🙂 a\u00a0b 12345 ½ <|endoftext|> \u0300combining ...!!?\n   "
    tokenizer = load_model(reference_model()).tokenizer
    for text in (read_evaluation_text(git, upstream.tree), odd):
        file = tmp_path / "text.txt"
        file.write_bytes(text.encode())
        done = subprocess.run([tool, reference_model(), file], check=True, capture_output=True, text=True)
        assert [int(line) for line in done.stdout.split()] == tokenizer.encode(text).ids
