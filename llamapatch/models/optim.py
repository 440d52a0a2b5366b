"""Muon for the matrices, AdamW for embeddings and norms.

Muon orthogonalises each matrix' momentum with a quintic Newton-Schulz iteration (Jordan et al., 2024,
"Muon: An optimizer for hidden layers in neural networks"). Matrices of one shape are stacked, so that a step is a few
batched products instead of hundreds of small ones.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

# Coefficients of the quintic that maximise its slope at zero, as published by Muon's author.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Approximate U V^T of the SVD of each matrix in g [N, rows, cols]."""
    x: Tensor = g / (g.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.size(1) > x.size(2)
    if tall:
        x = x.mT
    for _ in range(steps):
        a = x @ x.mT
        x = _A * x + (_B * a + _C * a @ a) @ x
    return x.mT if tall else x


class Optimiser:
    """Both optimisers behind one ``step(scale)``; `scale` in (0, 1] is the schedule's factor."""

    def __init__(
        self, model: nn.Module, lr_matrix: float, lr_rest: float, momentum: float = 0.95, decay: float = 0.05
    ) -> None:
        self.lr_matrix, self.lr_rest, self.momentum, self.decay = lr_matrix, lr_rest, momentum, decay
        self.groups: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        rest = []
        for name, p in model.named_parameters():
            if p.dim() == 2 and "embd" not in name:
                self.groups[tuple(p.shape)].append(p)
            else:
                rest.append(p)
        self.rest = rest
        self.adam = torch.optim.AdamW(rest, lr=lr_rest, betas=(0.9, 0.95), weight_decay=0.0)
        self.buffers = {shape: torch.zeros(len(ps), *shape, device=ps[0].device) for shape, ps in self.groups.items()}

    @torch.no_grad()
    def step(self, scale: float) -> None:
        nn.utils.clip_grad_norm_(self.rest, 1.0)
        self.adam.param_groups[0]["lr"] = self.lr_rest * scale
        self.adam.step()
        for shape, ps in self.groups.items():
            grad = torch.stack([p.grad for p in ps if p.grad is not None])
            buffer = self.buffers[shape]
            buffer.mul_(self.momentum).add_(grad)
            update = orthogonalise(grad.add(buffer, alpha=self.momentum).bfloat16()).float()
            lr = self.lr_matrix * scale
            for p, u in zip(ps, update, strict=True):
                p.mul_(1 - lr * self.decay).add_(u, alpha=-lr * max(1.0, shape[0] / shape[1]) ** 0.5)

    def zero_grad(self) -> None:
        for p in [*self.rest, *(p for ps in self.groups.values() for p in ps)]:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "muon": {str(k): v for k, v in self.buffers.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        for shape, buffer in self.buffers.items():
            buffer.copy_(state["muon"][str(shape)])
