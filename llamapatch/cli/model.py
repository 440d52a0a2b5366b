"""``llamapatch model``: the reference model, its training, synthetic shapes."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings, upstream_option
from llamapatch.config import Settings
from llamapatch.git import Git
from llamapatch.models.corpus import Corpus, read_corpus, read_evaluation_text
from llamapatch.models.evaluate import CONTEXTS, read_text
from llamapatch.models.extra import need_train
from llamapatch.models.files import whole_file
from llamapatch.models.gguf_file import describe, sha256_of
from llamapatch.models.reference import FOLDER, reference_model
from llamapatch.models.stress import NAME as STRESS_NAME
from llamapatch.models.stress import outlier_ratios, plan_stress, write_stress
from llamapatch.models.synth import SHAPES, TYPES, file_size, read_vocabulary, shape_named, write_synthetic
from llamapatch.series.load import load_series
from llamapatch.upstream.fetch import Upstream, ensure_upstream

_FILE = click.Path(path_type=Path)
_bin_option = click.option("--bin", "bin_folder", type=_FILE, metavar="DIR", help="Bin folder of a llama.cpp build.")


@click.group()
def command() -> None:
    """The reference model: what it is, how it is trained and measured; synthetic models for speed work."""


@command.command()
@click.argument("path", type=_FILE, required=False)
@json_option
def info(path: Path | None, as_json: bool) -> None:
    """What a GGUF is: architecture, shape, tensors, hash. Without PATH: the packaged reference model."""
    _show(describe(path or reference_model()), as_json)


@command.command()
@click.argument("output", type=_FILE)
@upstream_option
@dry_run_option
@json_option
def text(output: Path, upstream: str | None, dry_run: bool, as_json: bool) -> None:
    """Write the evaluation text, the held-out files of the upstream tree, to OUTPUT."""
    source, _ = _upstream(upstream)
    data = read_evaluation_text(Git(source.git_dir), source.tree).encode()
    if not dry_run:
        with whole_file(output) as part:
            part.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    _show({"path": str(output), "bytes": len(data), "sha256": digest, "tree": source.tree, "dry_run": dry_run}, as_json)


@command.command()
@click.option("--shape", required=True, type=click.Choice(list(SHAPES)), help="Whose shape it has.")
@click.option("--type", "type_name", default="f16", show_default=True, type=click.Choice(TYPES), help="Matrices.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="One seed, one file.")
@click.argument("output", type=_FILE)
@upstream_option
@dry_run_option
@json_option
def synth(
    *, shape: str, type_name: str, seed: int, output: Path, upstream: str | None, dry_run: bool, as_json: bool
) -> None:
    """Write a GGUF of a real architecture's shape with random weights, for speed and memory work.

    Input and output embeddings are tied, as in Llama-3.2-1B; the vocabulary is Llama 3's, from the upstream tree.
    """
    facts: dict[str, Any] = {"path": str(output), "shape": shape, "type": type_name, "seed": seed, "dry_run": dry_run}
    facts["bytes"] = file_size(shape_named(shape), type_name)
    if not dry_run:
        source, _ = _upstream(upstream)
        with tempfile.TemporaryDirectory() as scratch:
            vocabulary = Path(scratch) / "vocabulary.gguf"
            read_vocabulary(Git(source.git_dir), source.tree, vocabulary)
            write_synthetic(output, shape, type_name, vocab_gguf=vocabulary, seed=seed, report=say)
        facts |= {"bytes": output.stat().st_size, "sha256": sha256_of(output)}
    _show(facts, as_json)


@command.command()
@click.option("-o", "--output", type=_FILE, default=STRESS_NAME, show_default=True, metavar="FILE")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="One seed, one file.")
@dry_run_option
@json_option
def stress(output: Path, seed: int, dry_run: bool, as_json: bool) -> None:
    """Write the reference model's twin with activation outliers: the same function, harder to quantise.

    One channel in a hundred gets activations 8 or 16 times as large, as large language models have them, and the
    weights that read it are divided by as much. Every weight keeps its digits.
    """
    source = reference_model()
    made = plan_stress(source, seed) if dry_run else write_stress(source, output, seed)
    facts: dict[str, Any] = {"path": str(output), "dry_run": dry_run, **made.data()}
    if not dry_run:
        facts |= {"bytes": output.stat().st_size, "sha256": sha256_of(output)}
        facts["max_over_median"] = {"before": outlier_ratios(source), "after": outlier_ratios(output)}
    if not as_json:
        facts["sites"] = f"{len(made.sites)}, {sum(len(site.scales) for site in made.sites)} channels scaled"
        facts["rejected"] = f"{sum(s.rejected for s in made.sites)} of {sum(s.channels for s in made.sites)} channels"
    _show(facts, as_json)


@command.command()
@click.option("--run", type=_FILE, required=True, metavar="DIR", help="The run's folder; an interrupted run resumes.")
@click.option("--tokens", default=20_000_000, show_default=True, type=click.IntRange(1), help="Length of the run.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--warm-start", type=_FILE, metavar="FILE", help="First weights (safetensors).")
@click.option("--warm-tokens", type=click.IntRange(0), help="What the warm start has seen, for the model card.")
@click.option("--tokenizer", type=_FILE, metavar="FILE", help="tokenizer.json to use; else one is trained.")
@upstream_option
@dry_run_option
@json_option
def train(
    *,
    run: Path,
    tokens: int,
    seed: int,
    warm_start: Path | None,
    warm_tokens: int | None,
    tokenizer: Path | None,
    upstream: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the reference model on the upstream tree's own source text (minutes on a GPU, hours on two cores).

    The state is saved every 100 steps; the same command resumes a run that was interrupted.
    """
    need_train()
    from llamapatch.models import runs

    plan = runs.Plan(tokens=tokens, seed=seed)
    facts: dict[str, Any] = {"run": str(run), "steps": plan.steps, "plan": asdict(plan), "dry_run": dry_run}
    if not dry_run:
        corpus, _, _ = _corpus(upstream)
        runs.train_run(corpus, run, plan, runs.Start(warm_start, warm_tokens, tokenizer), report=say)
        facts["weights"] = str(run / "model.safetensors")
    _show(facts, as_json)


@command.command()
@click.argument("run", type=_FILE)
@click.argument("output", type=_FILE)
@dry_run_option
@json_option
def export(run: Path, output: Path, dry_run: bool, as_json: bool) -> None:
    """Write the last state of training run RUN to OUTPUT as an F16 GGUF."""
    need_train()
    from llamapatch.models import runs

    if dry_run:
        _show({"path": str(output), "step": runs.load_model(run).step, "dry_run": True}, as_json)
        return
    runs.export_run(run, output)
    _show(describe(output), as_json)


@command.command("eval")
@click.argument("source", type=_FILE, required=False)
@click.option("--context", "contexts", type=click.IntRange(4), multiple=True, help="Window length; repeatable.")
@click.option("--windows", type=click.IntRange(1), help="Score only the first N windows.")
@click.option("--text", "text_file", type=_FILE, metavar="FILE", help="Default: the evaluation text.")
@_bin_option
@upstream_option
@json_option
def evaluate(
    *,
    source: Path | None,
    contexts: tuple[int, ...],
    windows: int | None,
    text_file: Path | None,
    bin_folder: Path | None,
    upstream: str | None,
    as_json: bool,
) -> None:
    """Perplexity of SOURCE, a training run or a GGUF, in torch and, with --bin, through llama-perplexity.

    Both score the second half of each window. Without SOURCE: the packaged reference model.
    """
    need_train()
    from llamapatch.models import runs

    if text_file is None:
        found, _ = _upstream(upstream)
        content = read_evaluation_text(Git(found.git_dir), found.tree)
    else:
        content = read_text(text_file)
    judged = runs.judge(
        source or reference_model(),
        content,
        contexts or CONTEXTS,
        max_windows=windows,
        bin_folder=bin_folder,
        report=say,
    )
    scores = {"torch": [asdict(s) for s in judged.torch], "upstream": [asdict(s) for s in judged.upstream]}
    if as_json:
        emit_json({"schema": 1, "source": str(source or reference_model()), **scores})
        return
    for who, lines in scores.items():
        for s in lines:
            out.print(f"{who:<9} context {s['n_ctx']:>5}  {s['windows']:>5} windows  perplexity {s['ppl']:.4f}")


@command.command()
@click.argument("run", type=_FILE)
@click.option("--bin", "bin_folder", type=_FILE, required=True, metavar="DIR", help="Bin folder of a llama.cpp build.")
@click.option("--to", type=_FILE, metavar="DIR", default=FOLDER, show_default="the package", help="Where to write.")
@upstream_option
@dry_run_option
@json_option
def release(run: Path, *, bin_folder: Path, to: Path, upstream: str | None, dry_run: bool, as_json: bool) -> None:
    """Make what travels with the package from training run RUN: the GGUF, its facts and its model card."""
    need_train()
    from llamapatch.models import runs

    if dry_run:
        _show({"to": str(to), "step": runs.load_model(run).step, "dry_run": True}, as_json)
        return
    corpus, found, config = _corpus(upstream)
    yardstick = runs.Yardstick(corpus, found.version, found.tree, bin_folder)
    facts = runs.release(run, to, yardstick, config.templates, say)
    _show({"to": str(to), **facts.model_dump(include={"sha256", "bytes", "n_params", "evaluation"})}, as_json)


def _upstream(given: str | None) -> tuple[Upstream, Settings]:
    config = settings(upstream=given)
    return ensure_upstream(config, load_series(config).pin, say), config


def _corpus(given: str | None) -> tuple[Corpus, Upstream, Settings]:
    found, config = _upstream(given)
    return read_corpus(Git(found.git_dir), found.tree), found, config


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json({"schema": 1, **facts})
        return
    for key, value in facts.items():
        shown = ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value
        out.print(f"{key:<14}{'-' if shown is None else shown}", markup=False)
