"""From a training run to what travels with the package: GGUF, ``model.json``, ``README.md`` (extra ``train``)."""

from __future__ import annotations

import datetime
import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llamapatch.errors import InternalError, NotMeasured
from llamapatch.models.corpus import Corpus
from llamapatch.models.evaluate import CONTEXTS, upstream_perplexity
from llamapatch.models.export import export_gguf
from llamapatch.models.files import whole_file
from llamapatch.models.gguf_file import sha256_of
from llamapatch.models.reference import (
    CARD_NAME,
    MAX_BYTES,
    MODEL_NAME,
    README_NAME,
    Card,
    Evaluation,
    LossLine,
    Perplexity,
    Sample,
    Training,
    render_card,
)
from llamapatch.models.torch_eval import encode, torch_perplexity
from llamapatch.models.train import Plan, encode_documents, load_state
from llamapatch.models.weights import LoadedModel, load_model, load_tokenizer
from llamapatch.process import run as run_process

NAME = "llamapatch reference"
AGREEMENT = 0.01  # torch against upstream, relative
_SAMPLE_PROMPT_LINES = 40
_SAMPLE_SHOWN_LINES = 6
_SAMPLE_TOKENS = 100


def export_run(run: Path, path: Path) -> LoadedModel:
    """Write the last state of `run` as an F16 GGUF and return it, read back from that file."""
    loaded = load_model(run)
    weights = {name: tensor.float().numpy() for name, tensor in loaded.model.state_dict().items()}
    about = {
        "general.name": NAME,
        "general.description": "small model of C++ source for comparing llama.cpp builds; see its card",
        "general.license": "mit",
    }
    export_gguf(weights, run / "tokenizer.json", loaded.model.shape, path, metadata=about)
    return load_model(path)


@dataclass(frozen=True)
class Yardstick:
    """What a model is measured with: both halves of the text of upstream `tree`, and a build's bin folder."""

    corpus: Corpus
    version: str
    tree: str
    bin_folder: Path


def release(
    run: Path,
    to: Path,
    yardstick: Yardstick,
    templates: Path,
    report: Callable[[str], None] = print,
) -> Card:
    """Export `run`, measure the file through upstream's tools and torch, and write the three files into `to`.

    Raises `NotMeasured` when upstream's figure and torch's
    differ by more than 1 %: then the export or the build is wrong, and nothing is written.
    """
    state = load_state(run)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / MODEL_NAME
        loaded = export_run(run, model)
        if model.stat().st_size > MAX_BYTES:
            raise InternalError(
                f"the model takes {model.stat().st_size} bytes; {MAX_BYTES} may travel with the package."
            )
        facts = Card(
            schema_version=1,
            name=f"{NAME} model",
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            sha256=sha256_of(model),
            bytes=model.stat().st_size,
            n_params=sum(p.numel() for p in loaded.model.parameters()),
            shape=asdict(loaded.model.shape) | {"norm_eps": float(f"{loaded.model.shape.norm_eps:.6g}")},
            tokenizer_sha256=sha256_of(run / "tokenizer.json"),
            training=_training(run, state, yardstick.corpus),
            loss=_loss(run, int(state["step"])),
            evaluation=_evaluate(model, loaded, yardstick, Path(scratch), report),
            sample=greedy_sample(yardstick, model, loaded, Path(scratch)),
        )
        to.mkdir(parents=True, exist_ok=True)
        for name, data in {
            MODEL_NAME: model.read_bytes(),
            CARD_NAME: (facts.model_dump_json(indent=2) + "\n").encode(),
            README_NAME: render_card(facts, templates).encode(),
        }.items():
            with whole_file(to / name) as part:
                part.write_bytes(data)
    return facts


def greedy_sample(yardstick: Yardstick, model: Path, loaded: LoadedModel, scratch: Path) -> Sample:
    """What llama-completion writes at temperature 0 after the middle of each held-out file, and when it starts to loop.

    Small models do loop in greedy mode; what must not happen is that they do so at once.
    """
    file = scratch / "prompt.txt"
    argv: list[str | Path] = [yardstick.bin_folder / "llama-completion", "-m", model, "-f", file]
    argv += ["-n", str(_SAMPLE_TOKENS), "-c", "2048", "--temp", "0", "-no-cnv", "--no-display-prompt"]
    argv += ["--no-escape", "--no-warmup", "--simple-io"]
    texts: list[tuple[int, str, str]] = []
    for document in yardstick.corpus.evaluation:
        lines = document.splitlines(keepends=True)
        if len(lines) < 2 * _SAMPLE_PROMPT_LINES:
            continue
        prompt = "".join(lines[len(lines) // 2 - _SAMPLE_PROMPT_LINES : len(lines) // 2])
        # Upstream drops one final newline of a prompt file; a second one keeps the prompt as it is.
        file.write_bytes((prompt + "\n").encode())
        done = run_process(argv)
        written = done.stdout.removesuffix(" [end of text]\n").removesuffix("\n")
        ids = loaded.tokenizer.encode(written).ids[:_SAMPLE_TOKENS]
        if not ids:
            raise NotMeasured(f"`{done.command}` wrote nothing.", "Try another state of the run.")
        onset = loop_onset(ids)
        texts.append((_SAMPLE_TOKENS if onset is None else onset, prompt, written))
    if not texts:
        raise NotMeasured("no held-out file is long enough to be continued.", "Use the pinned upstream tree.")
    texts.sort()
    onset, prompt, written = texts[len(texts) // 2]
    return Sample(
        prompts=len(texts),
        tokens=_SAMPLE_TOKENS,
        onset=statistics.median(t[0] for t in texts),
        never=sum(t[0] == _SAMPLE_TOKENS for t in texts),
        prompt="".join(prompt.splitlines(keepends=True)[-_SAMPLE_SHOWN_LINES:]),
        text=written,
    )


def loop_onset(ids: list[int], longest: int = 48) -> int | None:
    """Where a phrase of at most `longest` tokens starts to repeat, three times or more, to the end; None if never."""
    best: int | None = None
    for period in range(1, min(longest, len(ids) // 3) + 1):
        start = len(ids) - period
        while start > 0 and ids[start - 1] == ids[start - 1 + period]:
            start -= 1
        if len(ids) - start >= 3 * period and (best is None or start < best):
            best = start
    return best


def _evaluate(
    model: Path, loaded: LoadedModel, yardstick: Yardstick, scratch: Path, report: Callable[[str], None]
) -> Evaluation:
    text = yardstick.corpus.evaluation_text
    file = scratch / "evaluation.txt"
    file.write_bytes(text.encode())
    contexts = [c for c in CONTEXTS if c <= loaded.model.shape.n_ctx]
    theirs = upstream_perplexity(yardstick.bin_folder, model, file, contexts, report=report)
    report("the same in torch")
    ours = torch_perplexity(loaded, text, contexts)
    scores = []
    for up, own in zip(theirs, ours, strict=True):
        if up.windows != own.windows or abs(up.ppl / own.ppl - 1) > AGREEMENT:
            raise NotMeasured(
                f"at context {up.n_ctx} llama-perplexity says {up.ppl:.4f} over {up.windows} windows, "
                f"torch {own.ppl:.4f} over {own.windows}.",
                "The export, the tokenizer or the build is wrong.",
            )
        scores.append(
            Perplexity(
                n_ctx=up.n_ctx, windows=up.windows, upstream=up.ppl, upstream_error=up.error, torch=round(own.ppl, 4)
            )
        )
    return Evaluation(
        upstream_version=yardstick.version,
        upstream_tree=yardstick.tree,
        files=len(yardstick.corpus.evaluation),
        text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        text_bytes=len(text.encode()),
        tokens=len(encode(loaded, text)),
        scores=scores,
    )


def _training(run: Path, state: dict[str, Any], corpus: Corpus) -> Training:
    plan = Plan(**state["plan"])
    origin_file = run / "origin.json"
    origin = json.loads(origin_file.read_text(encoding="utf-8")) if origin_file.is_file() else {}
    return Training(
        plan=asdict(plan),
        step=state["step"],
        steps=plan.steps,
        tokens=state["step"] * plan.batch_tokens,
        train_files=len(corpus.train),
        train_tokens=len(encode_documents(load_tokenizer(run / "tokenizer.json"), corpus.train)),
        warm_start_sha256=origin.get("warm_start_sha256"),
        warm_start_tokens=origin.get("warm_start_tokens"),
        note=origin.get("note", ""),
    )


def _loss(run: Path, step: int) -> list[LossLine]:
    log = (run / "loss.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in (LossLine.model_validate_json(raw) for raw in log) if line.step <= step]
