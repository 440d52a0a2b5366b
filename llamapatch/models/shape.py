"""The reference model's hyper-parameters and tensor names, without torch: exporting and checking need only these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Hyper-parameters; the defaults are the shipped reference model's. Input and output embeddings are tied."""

    n_vocab: int = 4096
    n_embd: int = 256
    n_layer: int = 6
    n_head: int = 4
    n_head_kv: int = 2
    n_ff: int = 768
    n_ctx: int = 2048
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape (rows, columns) of every weight, named as upstream's `llama` architecture names them."""
        kv = self.n_head_kv * self.head_dim
        out: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.n_vocab, self.n_embd),
            "output_norm.weight": (self.n_embd,),
        }
        for i in range(self.n_layer):
            out |= {
                f"blk.{i}.attn_norm.weight": (self.n_embd,),
                f"blk.{i}.attn_q.weight": (self.n_embd, self.n_embd),
                f"blk.{i}.attn_k.weight": (kv, self.n_embd),
                f"blk.{i}.attn_v.weight": (kv, self.n_embd),
                f"blk.{i}.attn_output.weight": (self.n_embd, self.n_embd),
                f"blk.{i}.ffn_norm.weight": (self.n_embd,),
                f"blk.{i}.ffn_gate.weight": (self.n_ff, self.n_embd),
                f"blk.{i}.ffn_up.weight": (self.n_ff, self.n_embd),
                f"blk.{i}.ffn_down.weight": (self.n_embd, self.n_ff),
            }
        return out
