"""Fake builds, a tiny GGUF and a text: everything a comparison needs, in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamapatch.config import packaged_home
from llamapatch.judge.selftest import install_tools, write_toy_model
from llamapatch.measure.arms import Arm, make_arms
from llamapatch.measure.inputs import TextFile, given_text
from llamapatch.measure.runs import RunFolder


def install(folder: Path, **behaviour: Any) -> Path:
    """A folder of fake tools."""
    return install_tools(packaged_home() / "ci", folder, **behaviour)


write_model = write_toy_model

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
