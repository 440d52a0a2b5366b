from __future__ import annotations

import hashlib
import math
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from llamapatch.errors import EnvironmentProblem, UsageProblem
from llamapatch.git import Git
from llamapatch.models import synth
from llamapatch.models.gguf_file import read_gguf
from llamapatch.models.synth import SHAPES, SynthShape, file_size, plan_tensors, read_vocabulary, write_synthetic
from llamapatch.upstream.fetch import Upstream

DENSE = SynthShape(512, 256, 2, 4, 2, 512, 128)
EXPERTS = SynthShape(512, 256, 2, 4, 2, 256, 128, n_expert=4, n_expert_used=2)


def tensor_bytes(path: Path) -> str:
    """A hash of the weights alone: what must not change with a release of numpy or gguf."""
    data = path.read_bytes()
    digest = hashlib.sha256()
    for t in read_gguf(path).tensors.values():
        assert t.nbytes is not None
        digest.update(data[t.offset : t.offset + t.nbytes])
    return digest.hexdigest()[:16]


@pytest.mark.parametrize(
    ("kind", "expected"), [("f16", "bbe4d94b29dce839"), ("q4_0", "96a0d360c38238f6"), ("q4_K", "3919bbafb9e18d2a")]
)
def test_the_seed_decides_every_byte(tmp_path: Path, vocabulary: Path, kind: str, expected: str) -> None:
    a, b, c = (tmp_path / n for n in ("a.gguf", "b.gguf", "c.gguf"))
    write_synthetic(a, DENSE, kind, vocab_gguf=vocabulary, seed=3)
    write_synthetic(b, DENSE, kind, vocab_gguf=vocabulary, seed=3)
    write_synthetic(c, DENSE, kind, vocab_gguf=vocabulary, seed=4)
    assert a.read_bytes() == b.read_bytes()
    assert tensor_bytes(a) != tensor_bytes(c)
    assert tensor_bytes(a) == expected
    estimated = file_size(DENSE, kind, vocabulary_bytes=0)
    assert estimated <= a.stat().st_size < estimated + 64 * 1024


@pytest.mark.parametrize("kind", ["f16", "q4_0", "q4_K"])
@pytest.mark.parametrize("shape", [DENSE, EXPERTS], ids=["dense", "experts"])
def test_weights_have_the_scale_that_keeps_activations_of_order_one(
    tmp_path: Path, vocabulary: Path, kind: str, shape: SynthShape
) -> None:
    path = tmp_path / "m.gguf"
    write_synthetic(path, shape, kind, vocab_gguf=vocabulary)
    file = read_gguf(path)
    assert {n: t.shape for n, t in file.tensors.items()} == shape.tensors()
    for name, tensor in file.tensors.items():
        w = file.array(name).astype(np.float64)
        if w.ndim == 1:
            assert (w == 1).all()
            continue
        expected = 1 / math.sqrt(w.shape[-1])
        expected *= 2 if name.startswith("token_embd") else 1
        expected /= math.sqrt(2 * shape.n_layer) if "attn_output" in name or "ffn_down" in name else 1
        tolerance = 5 / math.sqrt(w.size)
        assert w.std() == pytest.approx(expected, rel=max(0.01, tolerance))
        assert abs(w.mean()) < tolerance * expected
        assert tensor.type_name == ("F32" if "ffn_gate_inp" in name else kind.upper())
        # Rows are independent: no piece of the stream is used twice.
        rows = w.reshape(-1, w.shape[-1])
        assert len(np.unique(rows[:, :16], axis=0)) == len(rows)


def test_the_vocabulary_is_copied_whole(tmp_path: Path, vocabulary: Path) -> None:
    path = tmp_path / "m.gguf"
    write_synthetic(path, EXPERTS, "f16", vocab_gguf=vocabulary)
    ours, theirs = read_gguf(path), read_gguf(vocabulary)
    keys = [k for k in theirs.fields if k.startswith("tokenizer.")]
    assert len(keys) == 6
    assert all(ours.fields[k] == theirs.fields[k] for k in keys)
    assert (ours.need("llama.expert_count"), ours.need("llama.expert_used_count")) == (4, 2)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk_is_noticed_before_writing(
    tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 1))
    with pytest.raises(EnvironmentProblem, match="GB free"):
        write_synthetic(tmp_path / "m.gguf", DENSE, "f16", vocab_gguf=vocabulary)
    assert not list(tmp_path.glob("*m.gguf*"))


def test_an_interruption_leaves_nothing(tmp_path: Path, vocabulary: Path) -> None:
    def interrupt(line: str) -> None:
        if "attn_v" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "m.gguf", DENSE, "f16", vocab_gguf=vocabulary, report=interrupt)
    assert [p.name for p in tmp_path.iterdir() if "m.gguf" in p.name] == []


def test_bad_requests(tmp_path: Path, vocabulary: Path) -> None:
    out = tmp_path / "m.gguf"
    with pytest.raises(UsageProblem, match="unknown shape"):
        write_synthetic(out, "llama-9t", "f16", vocab_gguf=vocabulary)
    with pytest.raises(UsageProblem, match="unknown type"):
        write_synthetic(out, DENSE, "q9", vocab_gguf=vocabulary)
    with pytest.raises(UsageProblem, match="multiple of 256"):
        write_synthetic(out, "vocab-128k", "q4_K", vocab_gguf=vocabulary)
    with pytest.raises(UsageProblem, match="512 tokens; this shape has 128256"):
        write_synthetic(out, "vocab-128k", "f16", vocab_gguf=vocabulary)
    with pytest.raises(UsageProblem, match="no folder"):
        write_synthetic(tmp_path / "no" / "m.gguf", DENSE, "f16", vocab_gguf=vocabulary)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "params", "f16_gb"),
    [
        ("llama-1b", 1_235_814_400, 2.48),
        ("llama-300m", None, 0.76),
        ("moe-tiny", None, 1.12),
        ("vocab-128k", None, 0.025),
    ],
)
def test_the_real_shapes(name: str, params: int | None, f16_gb: float) -> None:
    planned = plan_tensors(SHAPES[name], "f16")
    total = sum(math.prod(p.shape) for p in planned)
    assert params is None or total == params  # Llama-3.2-1B's own count
    assert sum(p.nbytes for p in planned) / 1e9 + 0.008 == pytest.approx(f16_gb, rel=0.03)
    assert SHAPES[name].head_dim == 64


@pytest.mark.upstream
@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "kind", "layers"),
    [
        ("vocab-128k", "f16", 1),
        ("vocab-128k", "q4_0", 1),
        ("moe-tiny", "q4_K", 8),
        ("llama-300m", "q4_0", 16),
        ("llama-1b", "q4_K", 2),
    ],
)
def test_upstream_loads_and_runs_them(
    tmp_path: Path, upstream: Upstream, bin_folder: Path, shape: str, kind: str, layers: int
) -> None:
    """Finite perplexity of the order of the vocabulary, tensors checked by upstream's loader."""
    vocabulary, model, text = tmp_path / "v.gguf", tmp_path / "m.gguf", tmp_path / "text.txt"
    read_vocabulary(Git(upstream.git_dir), upstream.tree, vocabulary)
    dims = SynthShape(**{**SHAPES[shape].__dict__, "n_layer": layers})
    write_synthetic(model, dims, kind, vocab_gguf=vocabulary)
    text.write_text("int main(int argc, char ** argv) { return argc + 12345; }\n" * 40)
    # --no-repack: gcc 12 miscompiles upstream's AMX tile set-up (stores to its argument are dropped), not our concern.
    argv = [bin_folder / "llama-perplexity", "-m", model, "-f", text, "-c", "64", "-b", "64", "--chunks", "2"]
    done = subprocess.run([*argv, "--check-tensors", "--no-repack"], check=False, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    ppl = float(said.split("Final estimate: PPL = ")[1].split()[0])
    assert 5e3 < ppl < 5e7
    model.unlink()


def test_sizes_of_pieces_fit_every_block() -> None:
    assert synth._CHUNK % 256 == 0
