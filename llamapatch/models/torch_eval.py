"""Perplexity in torch, scored as llama-perplexity scores it (extra ``train``).

Both figures must agree to rounding; if they do not, the export, the tokenizer or the build is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llamapatch.errors import UsageProblem
from llamapatch.models.evaluate import CONTEXTS, Score
from llamapatch.models.train import Ids, perplexity
from llamapatch.models.weights import LoadedModel


def encode(loaded: LoadedModel, text: str) -> Ids:
    """The text as token ids; one final newline is dropped, as upstream's ``-f`` does."""
    return np.asarray(loaded.tokenizer.encode(text.removesuffix("\n")).ids, dtype=np.int64)


def torch_perplexity(
    loaded: LoadedModel, text: str, contexts: Sequence[int] = CONTEXTS, max_windows: int | None = None
) -> list[Score]:
    """Score `text` at each context length in `contexts`, over all its windows or the first `max_windows`."""
    ids = encode(loaded, text)
    scores = []
    for n_ctx in contexts:
        _check_window(len(ids), n_ctx, loaded.model.shape.n_ctx)
        windows = min(len(ids) // n_ctx, max_windows or len(ids))
        scores.append(Score(n_ctx, windows, perplexity(loaded.model, ids, n_ctx, windows)))
    return scores


def _check_window(n_tokens: int, n_ctx: int, n_train: int) -> None:
    if n_ctx < 4 or n_ctx > n_train:
        raise UsageProblem(f"context {n_ctx} is outside 4 .. {n_train}, what the model was made for.")
    if n_tokens < 2 * n_ctx:
        raise UsageProblem(
            f"the text has {n_tokens} tokens; context {n_ctx} needs {2 * n_ctx}.", "Give a longer text or less context."
        )
