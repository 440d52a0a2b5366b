"""Starting, resuming and judging training runs: what the verbs of ``llamapatch model`` do (extra ``train``)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamapatch.errors import UsageProblem
from llamapatch.models.corpus import Corpus
from llamapatch.models.evaluate import Score, upstream_perplexity
from llamapatch.models.files import whole_file
from llamapatch.models.net import Llama
from llamapatch.models.release import Yardstick, export_run, release
from llamapatch.models.shape import Shape
from llamapatch.models.torch_eval import torch_perplexity
from llamapatch.models.train import Plan, train
from llamapatch.models.weights import load_model, load_tokenizer, load_warm_start, record_origin, save_safetensors

__all__ = ["Judged", "Plan", "Start", "Yardstick", "export_run", "judge", "load_model", "release", "train_run"]


@dataclass(frozen=True)
class Start:
    """Where a run begins when its folder holds none yet; `warm_tokens` is what the warm start had seen."""

    warm_start: Path | None = None
    warm_tokens: int | None = None
    tokenizer: Path | None = None


def train_run(
    corpus: Corpus, run: Path, plan: Plan, start: Start, *, report: Callable[[str], None], shape: Shape | None = None
) -> Llama:
    """Start a run in folder `run`, or resume the one it holds, to the end of `plan`.

    A warm start needs the tokenizer it was trained with (``--tokenizer``, or one already in the folder). When the run
    is done, ``model.safetensors`` lies beside its state and can be a warm start itself.
    """
    shape = shape or Shape()
    if start.warm_start is not None and start.tokenizer is None and not (run / "tokenizer.json").is_file():
        raise UsageProblem("a warm start needs the tokenizer it was trained with.", "Give --tokenizer FILE.")
    weights = None
    if not (run / "state.pt").is_file():
        weights = load_warm_start(start.warm_start, shape) if start.warm_start is not None else None
        if start.tokenizer is not None:
            load_tokenizer(start.tokenizer)
            run.mkdir(parents=True, exist_ok=True)
            with whole_file(run / "tokenizer.json") as part:
                shutil.copyfile(start.tokenizer, part)
        if start.warm_start is not None:
            record_origin(run, start.warm_start, start.warm_tokens)
    model = train(corpus, run, plan, shape=shape, warm_weights=weights, report=report)
    save_safetensors(model, run / "model.safetensors", {"tokens": str(plan.steps * plan.batch_tokens)})
    return model


@dataclass(frozen=True)
class Judged:
    """The scores of one model; `upstream` is empty when no build was given."""

    torch: list[Score]
    upstream: list[Score]


def judge(
    source: Path,
    text: str,
    contexts: Sequence[int],
    *,
    max_windows: int | None = None,
    bin_folder: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> Judged:
    """Score a run folder or a GGUF on `text` in torch and, given a build, through its llama-perplexity.

    A run is measured as what it would ship: exported to F16 and read back.
    """
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.gguf" if source.is_dir() else source
        loaded = export_run(source, model) if source.is_dir() else load_model(source)
        ours = torch_perplexity(loaded, text, contexts, max_windows)
        if bin_folder is None:
            return Judged(ours, [])
        file = Path(scratch) / "text.txt"
        file.write_bytes(text.encode())
        theirs = upstream_perplexity(bin_folder, model, file, contexts, max_windows=max_windows, report=report)
        return Judged(ours, theirs)
