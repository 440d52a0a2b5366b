"""Trained weights to a GGUF file that upstream's `llama` architecture reads: matrices F16, norms F32.

The same weights and tokenizer give the same bytes on every machine: fixed key and tensor order, no date, no path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from llamapatch.errors import UsageProblem
from llamapatch.models.files import whole_file
from llamapatch.models.shape import Shape

_F16_MAX = float(np.finfo(np.float16).max)


def export_gguf(
    state: Mapping[str, npt.NDArray[np.float32]],
    tokenizer_json: Path,
    shape: Shape,
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `path` from `state` (names and shapes as `Shape.tensors`) and a `tokenizers` byte-level BPE.

    `metadata` adds string keys of the ``general.`` family. Raises `UsageProblem` for weights of another shape, weights
    that F16 cannot hold, or a tokenizer that is no byte-level BPE of `shape.n_vocab` entries.
    """
    _check_weights(state, shape)
    vocabulary, merges = read_bpe(tokenizer_json, shape.n_vocab)
    with whole_file(path) as part:
        writer = gguf.GGUFWriter(str(part), "llama")
        try:
            for key, value in {"general.type": "model", **(metadata or {})}.items():
                if not key.startswith("general."):
                    raise UsageProblem(f"metadata key `{key}` does not start with `general.`.")
                writer.add_string(key, value)
            writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
            write_shape(writer, shape)
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre("gpt-2")
            writer.add_token_list(vocabulary)
            # Id 0 is the document separator, the only entry that text never produces.
            writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(vocabulary) - 1))
            writer.add_token_merges(merges)
            writer.add_bos_token_id(0)
            writer.add_eos_token_id(0)
            writer.add_add_bos_token(False)
            for name in shape.tensors():
                weight = np.ascontiguousarray(state[name])
                writer.add_tensor(name, weight.astype(np.float32 if weight.ndim == 1 else np.float16))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def write_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """The hyper-parameter keys of the `llama` architecture."""
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.n_vocab)


def read_bpe(tokenizer_json: Path, n_vocab: int) -> tuple[list[str], list[str]]:
    """Tokens in id order and merges ("left right") of a `tokenizers` file."""
    try:
        stored: dict[str, Any] = json.loads(tokenizer_json.read_text(encoding="utf-8"))
        model, pre = stored["model"], stored["pre_tokenizer"]
        vocabulary = sorted(model["vocab"].items(), key=lambda item: int(item[1]))
        merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        byte_level = model["type"] == "BPE" and pre["type"] == "ByteLevel" and not pre["add_prefix_space"]
    except FileNotFoundError as error:
        raise UsageProblem(f"there is no tokenizer {tokenizer_json}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageProblem(f"{tokenizer_json} is no file of the `tokenizers` library.") from error
    # Upstream's "gpt-2" pre-tokenizer is what ByteLevel does; anything else would be tokenised differently there.
    if not byte_level:
        raise UsageProblem(f"{tokenizer_json} is no byte-level BPE without prefix space.")
    if [i for _, i in vocabulary] != list(range(n_vocab)):
        raise UsageProblem(f"{tokenizer_json} has {len(vocabulary)} entries; the weights have {n_vocab}.")
    return [token for token, _ in vocabulary], merges


def _check_weights(state: Mapping[str, npt.NDArray[np.float32]], shape: Shape) -> None:
    expected = shape.tensors()
    for name, dims in expected.items():
        if name not in state:
            raise UsageProblem(f"the weights lack {name}.")
        weight = state[name]
        if weight.shape != dims:
            raise UsageProblem(f"{name} has the shape {weight.shape}; {dims} is expected.")
        peak = float(np.abs(weight).max())
        if not peak <= _F16_MAX:  # also true for NaN
            raise UsageProblem(f"{name} holds {peak}, which F16 cannot hold.", "The training run has diverged.")
    unknown = sorted(set(state) - set(expected))
    if unknown:
        raise UsageProblem(f"unknown weight {unknown[0]}.")
