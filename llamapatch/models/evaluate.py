"""Perplexity of a GGUF on a text through upstream's own llama-perplexity; `torch_eval` has the torch figure beside it.

The tool cuts the text into disjoint windows of n_ctx tokens, gives the first half of each as context and scores the
second half.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamapatch.errors import NotMeasured, UsageProblem
from llamapatch.models.gguf_file import read_gguf
from llamapatch.process import run

CONTEXTS = (128, 512, 1024, 2048)
_ESTIMATE = re.compile(r"Final estimate: PPL = ([0-9.]+|-?nan|inf) \+/- ([0-9.]+|-?nan|inf)")
_CHUNKS = re.compile(r"calculating perplexity over (\d+) chunks, n_ctx=(\d+)")
ATTEMPTS = 8


@dataclass(frozen=True)
class Score:
    """`ppl` over `windows` windows of `n_ctx` tokens; `error` is the tool's own standard error, 0 for torch."""

    n_ctx: int
    windows: int
    ppl: float
    error: float = 0.0


def read_text(path: Path) -> str:
    """A text to score; `UsageProblem` when it is missing, empty or not UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageProblem(f"there is no text file {path}.") from error
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    if not text.strip():
        raise UsageProblem(f"{path} is empty.", "Give a text of at least two windows.")
    return text


def upstream_perplexity(
    bin_folder: Path,
    model: Path,
    text_file: Path,
    contexts: Sequence[int] = CONTEXTS,
    *,
    max_windows: int | None = None,
    threads: int | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Score]:
    """Score `model` on `text_file` at each context length through ``llama-perplexity`` of the build in `bin_folder`.

    The tool ends with status 0 when it has measured nothing, so its estimate, its window length and its number of
    windows are all checked; `NotMeasured` otherwise.
    """
    tool = bin_folder / "llama-perplexity"
    if not tool.is_file():
        raise UsageProblem(f"{bin_folder} has no llama-perplexity.", "Give the bin folder of a llama.cpp build.")
    read_gguf(model)
    scores = []
    for n_ctx in contexts:
        if report is not None:
            report(f"llama-perplexity at context {n_ctx}")
        argv: list[str | Path] = [tool, "-m", model, "-f", text_file, "-c", str(n_ctx)]
        argv += ["--chunks", str(max_windows)] if max_windows else []
        argv += ["-t", str(threads)] if threads else []
        # Upstream's logger loses its last lines on a busy machine: what began and named no error is run again.
        for _ in range(ATTEMPTS):
            done = run(argv)
            said = done.stdout + done.stderr
            estimate, chunks = _ESTIMATE.search(said), _CHUNKS.search(said)
            if estimate is not None or chunks is None:
                break
        if estimate is None or chunks is None or int(chunks[2]) != n_ctx or int(chunks[1]) < 1:
            tail = "\n".join(said.strip().splitlines()[-6:])
            raise NotMeasured(f"`{done.command}` measured nothing:\n{tail}", "Is the text at least two windows long?")
        ppl, error = float(estimate[1]), float(estimate[2])
        if not math.isfinite(ppl):
            raise NotMeasured(f"`{done.command}` ends with a perplexity of {ppl}.", "The weights overflow or hold NaN.")
        scores.append(Score(n_ctx, int(chunks[1]), ppl, error))
    return scores
