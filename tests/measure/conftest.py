"""Fake builds, a tiny GGUF and a text: everything a comparison needs, in seconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from llamapatch.measure.arms import Arm, make_arms
from llamapatch.measure.inputs import TextFile, given_text
from llamapatch.measure.runs import RunFolder

TOOLS = ("llama-bench", "llama-perplexity", "llama-results", "llama-quantize", "bench-toy")
SCRIPT = Path(__file__).with_name("fake_tools.py")


def install(folder: Path, **behaviour: Any) -> Path:
    """A folder of fake tools."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviour.json").write_text(json.dumps(behaviour))
    text = SCRIPT.read_text().replace("#!/usr/bin/env python3", f"#!{sys.executable}", 1)
    for tool in TOOLS:
        (folder / tool).write_text(text)
        (folder / tool).chmod(0o755)
    return folder


def write_model(path: Path) -> Path:
    """A GGUF with a vocabulary of 64 tokens and one tensor."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("toy model")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(64)])
    writer.add_tensor("output.weight", np.ones((64, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


MakeBuild = Callable[..., Path]


@pytest.fixture
def make_build(tmp_path: Path) -> MakeBuild:
    return lambda name, **behaviour: install(tmp_path / name, **behaviour)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "toy.gguf")


@pytest.fixture
def text(tmp_path: Path) -> TextFile:
    path = tmp_path / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. é\n" * 700, encoding="utf-8")
    return given_text(path)


@pytest.fixture
def arms(make_build: MakeBuild) -> tuple[Arm, ...]:
    """base, base-again, off, on: a sound patched build that is twice as fast when on."""
    base = make_build("base")
    patched = make_build("patched", patched=True, handled=10, speed_on=2.0, commit="def")
    return make_arms(base, "v0", patched, "v0+lp.1", {"LLAMA_LP_TOY": "on"})
