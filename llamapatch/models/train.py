"""Train the reference model on the pinned upstream tree's own source text (extra ``train``).

One run folder holds everything: ``tokenizer.json``, ``state.pt`` (written atomically, so a killed run resumes where it
was), ``loss.jsonl`` (one line per evaluation), ``origin.json`` (the warm start, if there was one). Windows are drawn
from a generator seeded by (seed, step): a resumed run sees exactly the windows the uninterrupted one would have seen.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models

from llamapatch.errors import UsageProblem
from llamapatch.models.corpus import Corpus
from llamapatch.models.net import Llama, Shape
from llamapatch.models.optim import Optimiser

END_OF_TEXT = "<|endoftext|>"
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """A training run; every field is stored beside the weights.

    `tokens` is the whole run's length. The first `short_share` of it uses windows of `ctx_short` tokens (attention is
    cheaper), the rest windows of `ctx_long`, so that the model has seen positions up to its full context.
    """

    tokens: int = 20_000_000
    batch_tokens: int = 12_288
    ctx_short: int = 1024
    ctx_long: int = 2048
    short_share: float = 0.7
    lr_matrix: float = 0.02
    lr_rest: float = 4e-3
    warmup_share: float = 0.01
    decay_from: float = 0.25
    seed: int = 0
    eval_every: int = 100

    @property
    def steps(self) -> int:
        return max(1, self.tokens // self.batch_tokens)

    def window(self, step: int) -> int:
        return self.ctx_short if step < self.short_share * self.steps else self.ctx_long

    def scale(self, step: int) -> float:
        """Trapezoid: linear warm-up, flat, linear decay to 2 %."""
        at = step / self.steps
        if at < self.warmup_share:
            return max(0.02, at / self.warmup_share)
        return 1.0 if at < self.decay_from else max(0.02, (1 - at) / (1 - self.decay_from))


def train_tokenizer(texts: list[str], n_vocab: int) -> Tokenizer:
    """Byte-level BPE over `texts`; id 0 is the document separator."""
    tok = Tokenizer(tokenizer_models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    return tok


def encode_documents(tok: Tokenizer, texts: list[str]) -> Ids:
    """All documents as one stream, each preceded by the separator."""
    ids: list[int] = []
    for encoding in tok.encode_batch(texts):
        ids.append(0)
        ids.extend(encoding.ids)
    return np.asarray(ids, dtype=np.int64)


def perplexity(model: Llama, ids: Ids, n_ctx: int, max_windows: int | None = None) -> float:
    """Perplexity as upstream's llama-perplexity computes it on the same ids.

    Disjoint windows of `n_ctx`; the first half of each is context, positions n_ctx/2 .. n_ctx-2 are scored on their
    successors. `ids` is the plain tokenisation of the text, without separators.
    """
    count = len(ids) // n_ctx
    if count < 1:
        raise UsageProblem(f"the text has {len(ids)} tokens, fewer than one window of {n_ctx}.", "Give a longer text.")
    count = min(count, max_windows or count)
    total, scored = 0.0, 0
    first = n_ctx // 2
    device = model.token_embd.weight.device
    model.eval()
    with torch.no_grad():
        for w in range(count):
            window = torch.from_numpy(ids[w * n_ctx : (w + 1) * n_ctx]).to(device)
            hidden = model(window[None])[0, first:-1]
            nll = F.cross_entropy(model.logits(hidden).float(), window[first + 1 :], reduction="sum")
            total += float(nll)
            scored += n_ctx - first - 1
    return math.exp(total / scored)


def train(
    corpus: Corpus,
    run: Path,
    plan: Plan,
    *,
    shape: Shape | None = None,
    warm_weights: dict[str, torch.Tensor] | None = None,
    report: Callable[[str], None] = print,
) -> Llama:
    """Train (or go on training) in folder `run` and return the model with the last weights.

    `warm_weights` (names as in `net.Llama`) are used when the folder holds no state yet; a ``tokenizer.json`` that is
    already there is used, else one is trained on the training half. On a CUDA device the model moves there.
    """
    run.mkdir(parents=True, exist_ok=True)
    shape = shape or Shape()
    torch.manual_seed(plan.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tok_path = run / "tokenizer.json"
    if not tok_path.exists():
        train_tokenizer(corpus.train, shape.n_vocab).save(str(tok_path))
    tok = Tokenizer.from_file(str(tok_path))
    stream = encode_documents(tok, corpus.train)
    held_out = np.asarray(tok.encode(corpus.evaluation_text).ids, dtype=np.int64)
    report(f"{len(stream):,} training tokens, {len(held_out):,} held out, {plan.steps} steps on {device}")

    model = Llama(shape)
    if warm_weights is not None:
        model.load_state_dict(warm_weights)
    model.to(device)
    optimiser = Optimiser(model, plan.lr_matrix, plan.lr_rest)
    step = _restore(run, model, optimiser, plan)
    started, first_step = time.monotonic(), step
    while step < plan.steps:
        window = plan.window(step)
        rng = np.random.default_rng((plan.seed, step))
        starts = rng.integers(0, len(stream) - window - 1, max(1, plan.batch_tokens // window))
        batch = np.stack([stream[s : s + window + 1] for s in starts])
        loss = _backward(model, torch.from_numpy(batch).to(device))
        optimiser.step(plan.scale(step))
        optimiser.zero_grad()
        step += 1
        if step % plan.eval_every == 0 or step == plan.steps:
            rate = (step - first_step) * plan.batch_tokens / (time.monotonic() - started)
            line = {
                "step": step,
                "tokens": step * plan.batch_tokens,
                "window": window,
                "train_loss": round(loss, 4),
                "ppl_1024": round(perplexity(model, held_out, 1024, 24), 4),
                "tokens_per_second": round(rate),
            }
            _save(run, model, optimiser, plan, step)
            with (run / "loss.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            report(json.dumps(line))
    return model


def _backward(model: Llama, batch: torch.Tensor, micro_tokens: int = 3072) -> float:
    """Accumulate the gradient of the mean loss over batch [B, T+1], in slices that fit the cache; returns the loss."""
    model.train()
    rows = max(1, micro_tokens // (batch.shape[1] - 1))
    parts = torch.split(batch, rows)
    total = 0.0
    for part in parts:
        share = len(part) / len(batch)
        with torch.autocast(batch.device.type, dtype=torch.bfloat16):
            hidden = model(part[:, :-1])
            logits = model.logits(hidden)
        loss = F.cross_entropy(logits.float().flatten(0, 1), part[:, 1:].flatten()) * share
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _save(run: Path, model: Llama, optimiser: Optimiser, plan: Plan, step: int) -> None:
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "plan": asdict(plan),
        "shape": asdict(model.shape),
        "step": step,
    }
    temporary = run / "state.pt.new"
    torch.save(state, temporary)
    temporary.replace(run / "state.pt")


def load_state(run: Path) -> dict[str, Any]:
    """What `_save` stored in folder `run`, on the CPU; `UsageProblem` when there is nothing usable."""
    path = run / "state.pt"
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        # Runs of the first days stored no shape; they all had the default one.
        return {"shape": asdict(Shape()), **state}
    except FileNotFoundError as error:
        raise UsageProblem(f"{run} holds no training run.", f"Start one: llamapatch model train --run {run}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, TypeError) as error:
        raise UsageProblem(f"{path} is damaged or no training state.", "Remove it to start afresh.") from error


def _restore(run: Path, model: Llama, optimiser: Optimiser, plan: Plan) -> int:
    if not (run / "state.pt").exists():
        return 0
    state = load_state(run)
    if state["plan"] != asdict(plan) or state["shape"] != asdict(model.shape):
        raise UsageProblem(
            f"{run} holds a run with another plan.", "Give the same options to resume it, or another folder."
        )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
