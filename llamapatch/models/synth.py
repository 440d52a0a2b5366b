"""Random-weight GGUF files of real architecture shapes, for speed and memory work where weights' values do not matter.

Tensors are generated and written one at a time, so a 2.5 GB file takes about 115 MB of memory. Every weight comes
from raw random bits through a table of normal quantiles: the file depends on the seed alone, not on numpy's version.

Scales. With E columns, a matrix of standard deviation 1/sqrt(E) keeps the variance of an RMS-normalised input; the two
matrices that write into the residual stream (attn_output, ffn_down) are smaller by sqrt(2 * layers), so that the stream
stays of order one at any depth. The embedding, tied to the output as in Llama-3.2-1B, has standard deviation
2/sqrt(E): logits spread by about two, so that a sampler sees neither a flat nor a one-token distribution.

Quantised files hold random blocks written directly (codes drawn from a bell, the block scale chosen for the standard
deviation above), with every matrix in the one type, as ``llama-quantize --pure`` leaves it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import IO

import gguf
import numpy as np
import numpy.typing as npt

from llamapatch.errors import UsageProblem
from llamapatch.models.corpus import BlobReader
from llamapatch.models.export import write_shape
from llamapatch.models.files import need_space, whole_file
from llamapatch.models.gguf_file import GgufFile, read_gguf
from llamapatch.models.shape import Shape

VOCABULARY = "models/ggml-vocab-llama-bpe.gguf"
TYPES = ("f16", "q4_0", "q4_K")
_CHUNK = 1 << 22  # weights made at a time; a multiple of every block size
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SynthShape(Shape):
    """A `Shape` that may have experts (`n_expert` > 0, of which `n_expert_used` run per token)."""

    n_expert: int = 0
    n_expert_used: int = 0

    def tensors(self) -> dict[str, tuple[int, ...]]:
        dense = super().tensors()
        if not self.n_expert:
            return dense
        out: dict[str, tuple[int, ...]] = {}
        for name, dims in dense.items():
            if "ffn_gate" in name:
                out[name.replace("ffn_gate", "ffn_gate_inp")] = (self.n_expert, self.n_embd)
            if any(f".{part}." in name for part in ("ffn_gate", "ffn_up", "ffn_down")):
                out[name.replace(".weight", "_exps.weight")] = (self.n_expert, *dims)
            else:
                out[name] = dims
        return out


SHAPES = {
    # The shape of Llama-3.2-1B (without its rope frequency factors).
    "llama-1b": SynthShape(128256, 2048, 16, 32, 8, 8192, 32768, 500000.0),
    "llama-300m": SynthShape(128256, 1024, 16, 16, 4, 4096, 32768, 500000.0),
    "moe-tiny": SynthShape(128256, 1024, 8, 16, 4, 2048, 32768, 500000.0, n_expert=8, n_expert_used=2),
    # Almost nothing but a real vocabulary's output row: for work on sampling.
    "vocab-128k": SynthShape(128256, 64, 1, 1, 1, 128, 32768, 500000.0),
}

_QUANT = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "q4_K": (gguf.GGMLQuantizationType.Q4_K, gguf.LlamaFileType.MOSTLY_Q4_K_S),
}


@dataclass(frozen=True)
class Planned:
    """One tensor to be written."""

    name: str
    shape: tuple[int, ...]
    type: gguf.GGMLQuantizationType
    std: float

    @property
    def nbytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // block * int(size)


def shape_named(name: str) -> SynthShape:
    """One of `SHAPES`."""
    if name not in SHAPES:
        raise UsageProblem(f"unknown shape `{name}`.", f"Known: {', '.join(SHAPES)}.")
    return SHAPES[name]


def plan_tensors(shape: SynthShape, type_name: str) -> list[Planned]:
    """Every tensor with its type and standard deviation; norms and the experts' router stay F32, as upstream's are."""
    if type_name not in _QUANT:
        raise UsageProblem(f"unknown type `{type_name}`.", f"Known: {', '.join(TYPES)}.")
    kind = _QUANT[type_name][0]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    planned = []
    for name, dims in shape.tensors().items():
        columns = dims[-1]
        if len(dims) == 1 or "ffn_gate_inp" in name:
            planned.append(Planned(name, dims, gguf.GGMLQuantizationType.F32, _std(name, dims, shape)))
            continue
        if columns % block:
            raise UsageProblem(
                f"{name} has rows of {columns} weights; {type_name} needs a multiple of {block}.",
                "Choose --type f16 or q4_0 for this shape.",
            )
        planned.append(Planned(name, dims, kind, _std(name, dims, shape)))
    return planned


def file_size(shape: SynthShape, type_name: str, vocabulary_bytes: int = 8 << 20) -> int:
    """About how many bytes the file takes."""
    return sum(p.nbytes for p in plan_tensors(shape, type_name)) + vocabulary_bytes


def write_synthetic(
    path: Path,
    shape: str | SynthShape,
    type: str,
    *,
    vocab_gguf: Path,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> None:
    """Write a random model to `path`.

    `shape` names one of `SHAPES` (or is one), `type` one of `TYPES`; the tokenizer is copied from `vocab_gguf`, whose
    number of tokens must be the shape's. The same arguments give the same bytes. Raises `EnvironmentProblem` before
    writing when the disk is too full; an interrupted call leaves nothing behind.
    """
    name = shape if isinstance(shape, str) else "synthetic"
    dims = shape_named(shape) if isinstance(shape, str) else shape
    planned = plan_tensors(dims, type)
    vocabulary = read_gguf(vocab_gguf)
    n_tokens = len(vocabulary.get("tokenizer.ggml.tokens", []))
    if n_tokens != dims.n_vocab:
        raise UsageProblem(f"{vocab_gguf} has {n_tokens} tokens; this shape has {dims.n_vocab}.")
    need_space(path.parent, sum(p.nbytes for p in planned) + vocabulary.size)
    with whole_file(path) as part:
        writer = gguf.GGUFWriter(str(part), "llama")
        try:
            writer.add_name(f"llamapatch synthetic {name}")
            writer.add_description(f"random weights, seed {seed}: for speed and memory, it says nothing")
            writer.add_file_type(_QUANT[type][1])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            write_shape(writer, dims)
            if dims.n_expert:
                writer.add_expert_count(dims.n_expert)
                writer.add_expert_used_count(dims.n_expert_used)
            _copy_tokenizer(vocabulary, writer)
            for p in planned:
                storage = np.dtype(np.float32 if p.type == gguf.GGMLQuantizationType.F32 else np.float16)
                writer.add_tensor_info(p.name, p.shape, storage, p.nbytes, raw_dtype=p.type)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            assert writer.fout is not None
            stream = writer.fout[0]
            _pad(stream)
            for index, p in enumerate(planned):
                if report is not None:
                    report(f"{p.name} ({index + 1} of {len(planned)})")
                for piece in _weights(p, np.random.PCG64([seed, index])):
                    stream.write(piece.data)
                _pad(stream)
        finally:
            writer.close()


def read_vocabulary(repo: BlobReader, tree: str, path: Path) -> None:
    """Copy upstream's own vocabulary-only GGUF of Llama 3 (128,256 tokens) out of `tree` to `path`."""
    found = [f for f in repo.tree_files(tree) if f.path == VOCABULARY]
    if not found:
        raise UsageProblem(f"tree {tree} has no {VOCABULARY}.", "Use the pinned upstream tree.")
    with whole_file(path) as part:
        part.write_bytes(repo.read_blobs([found[0].blob])[found[0].blob])


def _std(name: str, dims: tuple[int, ...], shape: SynthShape) -> float:
    if len(dims) == 1:
        return 0.0  # a norm: all ones
    base = 1 / math.sqrt(dims[-1])
    if name.startswith("token_embd"):
        return 2 * base
    return base / math.sqrt(2 * shape.n_layer) if "attn_output" in name or "ffn_down" in name else base


def _copy_tokenizer(vocabulary: GgufFile, writer: gguf.GGUFWriter) -> None:
    for key, item in vocabulary.fields.items():
        if key.startswith("tokenizer."):
            writer.add_key_value(key, item.value, item.type, item.sub_type)


def _pad(stream: IO[bytes]) -> None:
    stream.write(bytes(-stream.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))


def _weights(p: Planned, bits: np.random.PCG64) -> Iterator[Bytes]:
    """The tensor's bytes in pieces of at most `_CHUNK` weights."""
    total = math.prod(p.shape)
    if len(p.shape) == 1:
        yield np.ones(total, dtype="<f4").view(np.uint8)
        return
    for start in range(0, total, _CHUNK):
        count = min(_CHUNK, total - start)
        if p.type == gguf.GGMLQuantizationType.Q4_0:
            yield _q4_0(count, p.std, bits)
        elif p.type == gguf.GGMLQuantizationType.Q4_K:
            yield _q4_k(count, p.std, bits)
        else:
            storage = "<f4" if p.type == gguf.GGMLQuantizationType.F32 else "<f2"
            table = (_quantiles(1 << 16) * p.std).astype(storage)
            yield table[_random_bytes(2 * count, bits).view("<u2")].view(np.uint8)


def _random_bytes(count: int, bits: np.random.PCG64) -> Bytes:
    words = bits.random_raw(-(-count // 8)).astype("<u8", copy=False)
    return words.view(np.uint8)[:count]


@lru_cache(maxsize=4)
def _quantiles(count: int) -> npt.NDArray[np.float64]:
    """Normal quantiles at (i + 1/2)/count, to six decimals so that no libm's last digit can show."""
    normal = NormalDist()
    return np.array([round(normal.inv_cdf((i + 0.5) / count), 6) for i in range(count)])


@lru_cache(maxsize=4)
def _codes(centre: float, low: int, high: int) -> tuple[Bytes, float]:
    """A table from a random byte to a 4-bit code, bell-shaped and symmetric about `centre`, and its deviation.

    Codes of a real block spread by about 3 (the largest of 32 or so normal weights takes the outermost code).
    """
    table = np.clip(np.rint(centre + 3.0 * _quantiles(256) + 1e-9), low, high).astype(np.uint8)
    mirrored = (2 * centre - table[::-1]).astype(np.uint8)
    table[:128] = mirrored[:128]  # exactly symmetric, whatever rounding does at the centre
    spread = float(np.sqrt(np.mean((table - centre) ** 2)))
    return table, spread


def _nibbles(count: int, table: Bytes, bits: np.random.PCG64) -> Bytes:
    codes: Bytes = table[_random_bytes(count, bits)]
    return np.bitwise_or(codes[0::2], np.left_shift(codes[1::2], 4), dtype=np.uint8)


def _q4_0(count: int, std: float, bits: np.random.PCG64) -> Bytes:
    """Blocks of 32: f16 d, 16 bytes of codes; a weight is d * (code - 8)."""
    table, spread = _codes(8.0, 1, 15)
    blocks = np.empty((count // 32, 18), dtype=np.uint8)
    blocks[:, :2] = np.array([std / spread], dtype="<f2").view(np.uint8)
    blocks[:, 2:] = _nibbles(count, table, bits).reshape(-1, 16)
    return blocks.reshape(-1)


def _q4_k(count: int, std: float, bits: np.random.PCG64) -> Bytes:
    """Blocks of 256: f16 d, f16 dmin, 12 bytes of eight 6-bit scales and mins, 128 bytes of codes.

    A weight is d * scale * code - dmin * min. Codes are symmetric about 7.5, so min = scale and dmin = 7.5 d give a
    mean of zero; scales are drawn from 32 .. 63.
    """
    table, spread = _codes(7.5, 0, 15)
    n = count // 256
    scale = 32 + (_random_bytes(8 * n, bits).reshape(n, 8) & 31)
    d = std / spread / math.sqrt(float(np.mean(np.arange(32, 64) ** 2.0)))
    packed = np.empty((n, 12), dtype=np.uint8)
    low, high = scale[:, :4], scale[:, 4:]
    # Bytes 0-3: scale 0-3 with the top bits of scale 4-7; 4-7 the same for the mins; 8-11: the low nibbles of both.
    packed[:, 0:4] = packed[:, 4:8] = low | (high >> 4) << 6
    packed[:, 8:12] = (high & 15) | (high & 15) << 4
    blocks = np.empty((n, 144), dtype=np.uint8)
    blocks[:, :4] = np.array([d, 7.5 * d], dtype="<f2").view(np.uint8)
    blocks[:, 4:16] = packed
    blocks[:, 16:] = _nibbles(count, table, bits).reshape(n, 128)
    return blocks.reshape(-1)
