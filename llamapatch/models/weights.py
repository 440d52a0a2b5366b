"""Weights in and out of a training run: warm starts, safetensors, a GGUF as a torch model (extra ``train``)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models

from llamapatch.errors import UsageProblem
from llamapatch.models.files import whole_file
from llamapatch.models.gguf_file import read_gguf, sha256_of
from llamapatch.models.net import Llama, Shape
from llamapatch.models.train import load_state

# Terse names that early weights were stored under.
_TERSE = {
    "n1": "attn_norm",
    "n2": "ffn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "g": "ffn_gate",
    "u": "ffn_up",
    "d": "ffn_down",
}


@dataclass(frozen=True)
class LoadedModel:
    """A model in torch with its tokenizer and the file or folder it came from; `step` is None for a GGUF."""

    model: Llama
    tokenizer: Tokenizer
    source: Path
    step: int | None


def load_warm_start(path: Path, shape: Shape) -> dict[str, torch.Tensor]:
    """Weights of a safetensors file under the names of `net.Llama`; its own names or ``b.<layer>.<short>.weight``.

    Raises `UsageProblem` when the file is missing or damaged, or its tensors are not exactly those of `shape`.
    """
    try:
        stored = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise UsageProblem(f"there is no file {path}.", "Give a safetensors file.") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise UsageProblem(f"{path} is no safetensors file: {error}.") from error
    weights = {_full_name(name): tensor.float() for name, tensor in stored.items()}
    expected = shape.tensors()
    wrong = sorted(
        n for n in set(weights) | set(expected) if tuple(getattr(weights.get(n), "shape", ())) != expected.get(n)
    )
    if wrong:
        raise UsageProblem(
            f"{path} does not hold weights of this shape: {wrong[0]} is missing, unknown or of another size.",
            f"Expected: {json.dumps(asdict(shape))}.",
        )
    return weights


def save_safetensors(model: Llama, path: Path, metadata: dict[str, str]) -> None:
    """Write the model's weights (float32) as safetensors; usable as a warm start."""
    with whole_file(path) as part:
        safetensors.torch.save_file({k: v.contiguous() for k, v in model.state_dict().items()}, part, metadata)


def record_origin(run: Path, warm_start: Path, tokens: int | None) -> dict[str, Any]:
    """Write ``origin.json``: where the run's first weights came from, for the model card."""
    origin = {"warm_start_sha256": sha256_of(warm_start), "warm_start_tokens": tokens}
    run.mkdir(parents=True, exist_ok=True)
    with whole_file(run / "origin.json") as part:
        part.write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    return origin


def load_model(source: Path) -> LoadedModel:
    """A run folder's last state, or a GGUF of the `llama` architecture with a byte-level BPE, in torch."""
    return _load_run(source) if source.is_dir() else _load_gguf(source)


def _full_name(name: str) -> str:
    if name in ("e.weight", "n.weight"):
        return {"e.weight": "token_embd.weight", "n.weight": "output_norm.weight"}[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "b" and parts[2] in _TERSE:
        return f"blk.{parts[1]}.{_TERSE[parts[2]]}.{parts[3]}"
    return name


def _load_run(run: Path) -> LoadedModel:
    state = load_state(run)
    model = Llama(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return LoadedModel(model, load_tokenizer(run / "tokenizer.json"), run, int(state["step"]))


def load_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizers` file; `UsageProblem` when it is missing or no such file."""
    if not path.is_file():
        raise UsageProblem(f"there is no tokenizer {path}.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for malformed files
        raise UsageProblem(f"{path} is no file of the `tokenizers` library: {error}.") from error


def _load_gguf(path: Path) -> LoadedModel:
    file = read_gguf(path)
    arch = file.get("general.architecture")
    if arch != "llama" or file.get("llama.expert_count", 0):
        raise UsageProblem(
            f"{path} is a {arch} model{' with experts' if arch == 'llama' else ''}; torch reads dense llama ones.",
            "Measure it with upstream's tools: --bin DIR.",
        )
    if file.get("tokenizer.ggml.model") != "gpt2" or file.get("tokenizer.ggml.pre") != "gpt-2":
        raise UsageProblem(f"{path} has another tokenizer than a GPT-2 style byte-level BPE.")
    shape = Shape(
        n_vocab=len(file.need("tokenizer.ggml.tokens")),
        n_embd=file.need("llama.embedding_length"),
        n_layer=file.need("llama.block_count"),
        n_head=file.need("llama.attention.head_count"),
        n_head_kv=file.get("llama.attention.head_count_kv", file.need("llama.attention.head_count")),
        n_ff=file.need("llama.feed_forward_length"),
        n_ctx=file.need("llama.context_length"),
        rope_base=file.get("llama.rope.freq_base", 10000.0),
        norm_eps=file.need("llama.attention.layer_norm_rms_epsilon"),
    )
    expected = shape.tensors()
    if {n: t.shape for n, t in file.tensors.items()} != expected:
        raise UsageProblem(f"{path} is no plain llama model with tied embeddings.")
    model = Llama(shape)
    model.load_state_dict({name: torch.from_numpy(file.array(name)) for name in expected})
    return LoadedModel(model, _gguf_tokenizer(file.need("tokenizer.ggml.tokens"), file), path, None)


def _gguf_tokenizer(tokens: list[str], file: Any) -> Tokenizer:
    merges = [tuple(m.split(" ", 1)) for m in file.need("tokenizer.ggml.merges")]
    tok = Tokenizer(tokenizer_models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    return tok
