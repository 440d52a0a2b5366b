"""The `llama` architecture in numpy, 32-bit throughout: for looking at activations, not for speed.

Same mathematics as `net` (RMSNorm, rotary positions on adjacent pairs, grouped-query attention, SwiGLU, tied
embeddings), without torch. Below, T = tokens, E = n_embd, H = query heads, G = KV heads, D = head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llamapatch.errors import UsageProblem
from llamapatch.models.gguf_file import GgufFile

Floats = npt.NDArray[np.float32]
# What feeds a matrix, by the matrices it feeds: (q, k, v), (attn_output), (gate, up), (ffn_down).
SITES = ("attn", "vo", "ffn", "down")


@dataclass(frozen=True)
class Forward:
    """`logits` (T, vocabulary), and `inputs`: the activations (T, channels) that enter the matrices, by
    (layer, site of `SITES`)."""

    logits: Floats
    inputs: dict[tuple[int, str], Floats] = field(repr=False)


def dense_llama(file: GgufFile) -> GgufFile:
    """`file`, or a `UsageProblem` unless it is a plain dense llama model."""
    arch = file.get("general.architecture")
    if arch != "llama" or file.get("llama.expert_count", 0):
        raise UsageProblem(
            f"{file.path} is a {arch} model{' with experts' if arch == 'llama' else ''}.", "Give a dense llama model."
        )
    return file


def forward(file: GgufFile, ids: npt.NDArray[np.integer], convert: Callable[[Floats], Floats] | None = None) -> Forward:
    """One causal pass over the token ids (T,); `convert` is what a kernel does to activations before it multiplies
    them with a matrix of a layer. Raises `UsageProblem` for a model that is no dense llama.
    """
    weights = {name: dense_llama(file).array(name) for name in file.tensors}
    heads = int(file.need("llama.attention.head_count"))
    groups = int(file.get("llama.attention.head_count_kv", heads))
    size = int(file.need("llama.embedding_length")) // heads
    eps = np.float32(file.need("llama.attention.layer_norm_rms_epsilon"))
    cos, sin = _angles(len(ids), size, float(file.get("llama.rope.freq_base", 10000.0)))
    inputs: dict[tuple[int, str], Floats] = {}
    x = weights["token_embd.weight"][ids]
    for layer in range(int(file.need("llama.block_count"))):

        def enter(site: str, activations: Floats, *names: str, layer: int = layer) -> list[Floats]:
            inputs[layer, site] = activations
            read = activations if convert is None else convert(activations)
            return [read @ weights[f"blk.{layer}.{name}.weight"].T for name in names]

        h = _rms(x, weights[f"blk.{layer}.attn_norm.weight"], eps)
        q, k, v = enter("attn", h, "attn_q", "attn_k", "attn_v")
        y = _attention(
            _rotate(q.reshape(len(ids), heads, size), cos, sin),
            _rotate(k.reshape(len(ids), groups, size), cos, sin),
            v.reshape(len(ids), groups, size),
        )
        x = x + enter("vo", y, "attn_output")[0]
        gate, up = enter("ffn", _rms(x, weights[f"blk.{layer}.ffn_norm.weight"], eps), "ffn_gate", "ffn_up")
        x = x + enter("down", gate / (1 + np.exp(-gate)) * up, "ffn_down")[0]
    hidden = _rms(x, weights["output_norm.weight"], eps)
    return Forward(hidden @ weights.get("output.weight", weights["token_embd.weight"]).T, inputs)


def _rms(x: Floats, weight: Floats, eps: np.float32) -> Floats:
    scaled: Floats = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight
    return scaled


def _angles(tokens: int, size: int, base: float) -> tuple[Floats, Floats]:
    angle = np.arange(tokens)[:, None] * base ** -(np.arange(0, size, 2) / size)[None]
    return np.cos(angle).astype(np.float32)[:, None], np.sin(angle).astype(np.float32)[:, None]


def _rotate(z: Floats, cos: Floats, sin: Floats) -> Floats:
    a, b = z[..., ::2], z[..., 1::2]
    return np.stack((a * cos - b * sin, a * sin + b * cos), -1).reshape(z.shape)


def _attention(q: Floats, k: Floats, v: Floats) -> Floats:
    """q (T, H, D), k and v (T, G, D) -> (T, H * D)."""
    tokens, heads, size = q.shape
    mask = np.triu(np.full((tokens, tokens), -np.inf, dtype=np.float32), 1)
    out = np.empty_like(q)
    for head in range(heads):
        group = head * k.shape[1] // heads
        scores = q[:, head] @ k[:, group].T / np.float32(np.sqrt(size)) + mask
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head] = (shares / shares.sum(axis=1, keepdims=True)) @ v[:, group]
    return out.reshape(tokens, heads * size)
