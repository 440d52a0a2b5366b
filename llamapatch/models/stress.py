"""The reference model's twin with activation outliers: the same function, harder to quantise.

Large language models have a few channels whose activations are many times larger than the others (Dettmers et al.,
arXiv 2208.07339; Xiao et al., arXiv 2211.10438); a model of a few million weights has none, so whatever quantises
activations looks better on it than it is. `write_stress` injects them: a channel's activations are multiplied by 8 or
16 where they are made, and the weights that read the channel are divided by the same. What is multiplied and what is
divided, for one layer:

    site   made by                        read by
    attn   attn_norm weight               columns of attn_q, attn_k, attn_v
    vo     rows of attn_v                 columns of attn_output (one for each query head of the group)
    ffn    ffn_norm weight                columns of ffn_gate, ffn_up
    down   rows of ffn_up                 columns of ffn_down

Both scales are powers of two, so a rescaled weight has the same digits and only another exponent, and a product of an
activation and a weight is the same number as before. That fails where F16 ends: below 2^-14 it has fewer digits. A
channel whose weights would lose one is rejected. For the norms, which are F32, there is a way out when too few channels
are left: all activations of the site are divided by a `lift`, a power of two as well, and its matrices multiplied by
it; outliers are then still 8 and 16 times as large as the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from llamapatch.errors import UsageProblem
from llamapatch.models.files import need_space, whole_file
from llamapatch.models.forward import SITES, Floats, dense_llama, forward
from llamapatch.models.gguf_file import GgufFile, read_gguf, sha256_of
from llamapatch.models.reference import reference_model

NAME = "llamapatch-ref-stress-f16.gguf"
SHARE = 0.01
SCALES = (16, 8)
LIFTS = (1, 2, 4, 8, 16)
_PROBE_TOKENS = 256
_PLAIN = {int(gguf.GGMLQuantizationType.F32): "<f4", int(gguf.GGMLQuantizationType.F16): "<f2"}
_KV_GROUPS = "llama.attention.head_count_kv"


@dataclass(frozen=True)
class Site:
    """What was done at one place of one layer: the scale of each chosen channel, the common `lift`, and how many of the
    site's `channels` were rejected because a weight would have lost digits at the larger scale."""

    layer: int
    name: str
    channels: int
    lift: int
    scales: dict[int, int]
    rejected: int


@dataclass(frozen=True)
class Stress:
    """The twin of a model: which channels became outliers, from which `seed`."""

    source_sha256: str
    seed: int
    sites: tuple[Site, ...]

    def data(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {
            "source_sha256": self.source_sha256,
            "seed": self.seed,
            "sites": [vars(site) | {"scales": {str(c): s for c, s in site.scales.items()}} for site in self.sites],
        }


def stress_model(folder: Path, seed: int = 0) -> Path:
    """The packaged reference model's twin in `folder`, written anew (a fraction of a second; one seed, one file)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    write_stress(reference_model(), path, seed)
    return path


def plan_stress(source: Path, seed: int) -> Stress:
    """What `write_stress` would do."""
    return _Twin(read_gguf(source), seed).facts(source)


def write_stress(source: Path, path: Path, seed: int) -> Stress:
    """Write the twin of the F16 or F32 model `source` to `path`.

    Raises `UsageProblem` for a model that is no dense llama or is quantised.
    """
    file = read_gguf(source)
    twin = _Twin(file, seed)
    need_space(path.parent, file.size)
    with whole_file(path) as part:
        writer = gguf.GGUFWriter(str(part), "llama")
        try:
            for key, item in file.fields.items():
                if key == "general.name":
                    writer.add_name(f"{item.value} with outliers")
                elif key != "general.architecture":
                    writer.add_key_value(key, item.value, item.type, item.sub_type)
            for name, weight in twin.weights.items():
                writer.add_tensor(name, weight)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
    return twin.facts(source)


def outlier_ratios(path: Path, seed: int = 0) -> dict[str, list[float]]:
    """By site, for each layer: the largest activation over the median one (absolute values), on 256 tokens drawn from
    `seed`."""
    file = read_gguf(path)
    tokens = np.random.default_rng(seed).integers(0, len(file.need("tokenizer.ggml.tokens")), _PROBE_TOKENS)
    found = forward(file, tokens).inputs
    layers = 1 + max(layer for layer, _ in found)
    return {site: [_ratio(found[layer, site]) for layer in range(layers)] for site in SITES}


def _ratio(activations: Floats) -> float:
    size = np.abs(activations)
    return round(float(size.max() / np.median(size)), 2)


class _Twin:
    """The twin's weights, made in the order in which each step can still be exact: rows grow before columns shrink."""

    def __init__(self, file: GgufFile, seed: int) -> None:
        dense_llama(file)
        self.weights = {name: _stored(file, name) for name in file.tensors}
        self.random = np.random.default_rng(seed)
        self.seed = seed
        heads = int(file.need("llama.attention.head_count"))
        groups = int(file.get(_KV_GROUPS, heads))
        width = int(file.need("llama.embedding_length")) // heads
        # Which columns of attn_output read row c of attn_v: the same place in every query head of the group.
        readers = [
            [(c // width * (heads // groups) + head) * width + c % width for head in range(heads // groups)]
            for c in range(groups * width)
        ]
        self.sites: list[Site] = []
        for layer in range(int(file.need("llama.block_count"))):
            n_ff = self.weights[f"blk.{layer}.ffn_up.weight"].shape[0]
            self._pair(layer, "vo", "attn_v", "attn_output", readers)
            self._pair(layer, "down", "ffn_up", "ffn_down", [[c] for c in range(n_ff)])
            self._norm(layer, "attn", "attn_norm", ("attn_q", "attn_k", "attn_v"))
            self._norm(layer, "ffn", "ffn_norm", ("ffn_gate", "ffn_up"))

    def facts(self, source: Path) -> Stress:
        return Stress(sha256_of(source), self.seed, tuple(self.sites))

    def _pair(self, layer: int, site: str, maker: str, reader: str, columns: Sequence[Sequence[int]]) -> None:
        """Rows of one matrix times the scale, the columns that read them divided by it."""
        rows, matrix = (f"blk.{layer}.{name}.weight" for name in (maker, reader))
        place = np.array(columns)
        sound = {
            scale: _sound(self.weights[rows], scale, 1)
            & np.all(_sound(self.weights[matrix], 1 / scale, 0)[place], axis=1)
            for scale in SCALES
        }
        scales = self._choose(sound)
        for channel, scale in scales.items():
            self.weights[rows][channel] *= self.weights[rows].dtype.type(scale)
            self.weights[matrix][:, place[channel]] /= self.weights[matrix].dtype.type(scale)
        self._note(layer, site, sound, 1, scales)

    def _norm(self, layer: int, site: str, norm: str, readers: Sequence[str]) -> None:
        """Weights of a norm times the scale, the columns that read them divided by it."""
        gain = self.weights[f"blk.{layer}.{norm}.weight"]
        matrices = [self.weights[f"blk.{layer}.{name}.weight"] for name in readers]
        for lift in LIFTS:
            rest = all(_sound(m, lift, 0).all() for m in matrices)
            sound = {scale: np.all([_sound(m, lift / scale, 0) for m in matrices], axis=0) & rest for scale in SCALES}
            scales = self._choose(sound)
            if len(scales) == _wanted(gain.size):
                break
        factor = np.full(gain.size, lift, dtype=np.float64)
        for channel, scale in scales.items():
            factor[channel] /= scale
        gain /= factor.astype(gain.dtype)
        for matrix in matrices:
            np.multiply(matrix, factor.astype(matrix.dtype), out=matrix)
        self._note(layer, site, sound, lift, scales)

    def _choose(self, sound: dict[int, npt.NDArray[np.bool_]]) -> dict[int, int]:
        """Channels drawn from the `sound` ones of each scale, the scales in turn; fewer where there are too few."""
        chosen: dict[int, int] = {}
        order = self.random.permutation(len(sound[SCALES[0]]))
        for turn in range(_wanted(len(order))):
            scale = SCALES[turn % len(SCALES)]
            free = [int(c) for c in order if sound[scale][c] and int(c) not in chosen]
            if free:
                chosen[free[0]] = scale
        return dict(sorted(chosen.items()))

    def _note(
        self, layer: int, name: str, sound: dict[int, npt.NDArray[np.bool_]], lift: int, scales: dict[int, int]
    ) -> None:
        usable = sound[max(SCALES)]
        self.sites.append(Site(layer, name, usable.size, lift, scales, int(np.count_nonzero(~usable))))


def _wanted(channels: int) -> int:
    return max(1, round(SHARE * channels))


def _stored(file: GgufFile, name: str) -> npt.NDArray[Any]:
    tensor = file.tensors[name]
    if tensor.type_id in _PLAIN:
        return file.array(name).astype(_PLAIN[tensor.type_id])
    raise UsageProblem(
        f"{file.path}: tensor {name} is {tensor.type_name}; only F16 and F32 can be rescaled exactly.",
        "Give the unquantised model.",
    )


def _sound(weight: npt.NDArray[Any], factor: float, axis: int) -> npt.NDArray[np.bool_]:
    """For each column (`axis` 0) or row (1): whether all its weights times the power of two `factor` keep their digits
    and do not overflow."""
    wide = weight.astype(np.float64) * factor
    with np.errstate(over="ignore"):
        kept = wide == wide.astype(weight.dtype).astype(np.float64)
    result: npt.NDArray[np.bool_] = np.all(kept, axis=axis)
    return result
