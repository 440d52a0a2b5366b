"""The reference model in torch: a Llama decoder that upstream's `llama` architecture computes identically.

Shapes below use B = batch, T = tokens, E = n_embd, H = query heads, G = KV heads, D = 64 (head size).
RMSNorm before attention and feed-forward, rotary positions on adjacent pairs (upstream's NORM rope), grouped-query
attention, SwiGLU, input and output embeddings tied (Touvron et al., arXiv 2302.13971; Ainslie et al.,
arXiv 2305.13245).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamapatch.models.shape import Shape

__all__ = ["Block", "Llama", "Shape"]


class Block(nn.Module):
    """One decoder layer: x [B, T, E] -> [B, T, E]."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.shape = s
        kv = s.n_head_kv * s.head_dim
        self.attn_norm = nn.RMSNorm(s.n_embd, eps=s.norm_eps)
        self.attn_q = nn.Linear(s.n_embd, s.n_embd, bias=False)
        self.attn_k = nn.Linear(s.n_embd, kv, bias=False)
        self.attn_v = nn.Linear(s.n_embd, kv, bias=False)
        self.attn_output = nn.Linear(s.n_embd, s.n_embd, bias=False)
        self.ffn_norm = nn.RMSNorm(s.n_embd, eps=s.norm_eps)
        self.ffn_gate = nn.Linear(s.n_embd, s.n_ff, bias=False)
        self.ffn_up = nn.Linear(s.n_embd, s.n_ff, bias=False)
        self.ffn_down = nn.Linear(s.n_ff, s.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, e = x.shape
        d = self.shape.head_dim
        h = self.attn_norm(x)
        q = _rotate(self.attn_q(h).view(b, t, -1, d).transpose(1, 2), cos, sin)
        k = _rotate(self.attn_k(h).view(b, t, -1, d).transpose(1, 2), cos, sin)
        v = self.attn_v(h).view(b, t, -1, d).transpose(1, 2)
        # Repeating K and V is faster on CPU than enable_gqa, which falls back to the unfused path there.
        group = self.shape.n_head // self.shape.n_head_kv
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_output(y.transpose(1, 2).reshape(b, t, e))
        h = self.ffn_norm(x)
        out: Tensor = x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))
        return out


class Llama(nn.Module):
    """Token ids [B, T] -> hidden states [B, T, E]; logits are ``hidden @ token_embd.weight.T``."""

    cos: Tensor
    sin: Tensor

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.shape = s
        self.token_embd = nn.Embedding(s.n_vocab, s.n_embd)
        self.blk = nn.ModuleList(Block(s) for _ in range(s.n_layer))
        self.output_norm = nn.RMSNorm(s.n_embd, eps=s.norm_eps)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)
        pairs = torch.arange(0, s.head_dim, 2) / s.head_dim
        angle = torch.arange(s.n_ctx)[:, None] * s.rope_base ** -pairs[None]
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embd(ids)
        t = ids.shape[1]
        for block in self.blk:
            x = block(x, self.cos[:t], self.sin[:t])
        out: Tensor = self.output_norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.token_embd.weight.T


def _rotate(z: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate adjacent pairs of z [B, H, T, D] by position; cos, sin [T, D/2]."""
    a, b = z[..., ::2], z[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(z.dtype)
