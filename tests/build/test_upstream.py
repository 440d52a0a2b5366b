"""The real llama.cpp: minutes the first time, seconds with a warm ccache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from llamapatch.build.builder import Build, build
from llamapatch.build.check import check_cuda
from llamapatch.build.cuda import choose_cuda, probe_cuda
from llamapatch.build.options import BuildOptions
from llamapatch.config import Settings, load_settings
from llamapatch.errors import EnvironmentProblem, UsageProblem
from llamapatch.git import Git
from llamapatch.series.load import load_series
from llamapatch.tree.variants import Variant
from llamapatch.upstream.fetch import ensure_upstream
from tests.build.conftest import HOME

pytestmark = [pytest.mark.upstream, pytest.mark.slow]
LABELS = ("v0.5.0", "v0.5.0+lp.0123456789ab")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A work folder that keeps its builds for the module; compilers use the user's own cache."""
    root = tmp_path_factory.mktemp("upstream")
    return replace(load_settings(HOME), root=root, home=HOME)


@pytest.fixture(scope="module")
def upstream_tree(place: Settings) -> Path:
    upstream = ensure_upstream(place, load_series(place).pin)
    path = place.state / "trees" / "base"
    path.mkdir(parents=True)
    Git(upstream.git_dir, path).run("read-tree", upstream.tree, index=path.parent / "index")
    Git(upstream.git_dir, path).run("checkout-index", "--all", index=path.parent / "index")
    return path


@pytest.fixture(scope="module")
def base(place: Settings, upstream_tree: Path) -> Build:
    variant = Variant("base", (), "c" * 40, "d" * 40, upstream_tree, LABELS[0])
    return build(place, variant, BuildOptions(targets=("llama-bench", "llama-quantize")))


def objects(done: Build) -> list[str]:
    """What was compiled, by file name."""
    found = (re.search(r"Building \w+ object .*/([^/]+)\.o$", step) for step in done.steps)
    return sorted(match.group(1) for match in found if match)


def test_binaries_carry_the_label(base: Build) -> None:
    for library in ("libggml-base.so", "libllama-common.so"):
        data = (base.bin / library).resolve().read_bytes()
        assert LABELS[0].encode() + b"\0" in data
    out = subprocess.run([base.bin / "llama-bench", "--help"], capture_output=True, text=True, check=True).stdout
    assert "usage" in out


def test_nothing_changed(place: Settings, base: Build) -> None:
    again = build(place, base.variant, BuildOptions(targets=("llama-bench", "llama-quantize")))
    assert (again.steps, again.configured) == ((), "")
    assert again.cpu_seconds < 3


def test_one_kernel(place: Settings, base: Build) -> None:
    options = BuildOptions(targets=("llama-bench", "llama-quantize"))
    kernel = base.variant.path / "ggml/src/ggml-cpu/arch/x86/quants.c"
    text = kernel.read_text()
    try:
        kernel.write_text(text + "\n// edited\n")
        edited = build(place, base.variant, options)
        assert (objects(edited), edited.configured) == (["quants.c"], "")
        kernel.write_text(text + "\n// edited again\n")
        relabelled = build(place, replace(base.variant, label=LABELS[1]), options)
        assert objects(relabelled) == ["build-info.cpp", "ggml.c", "llama.cpp", "quants.c"]
        rest = [s for s in relabelled.steps if not s.startswith(("Building", "Linking", "Creating library symlink"))]
        assert rest == [], "nothing but compiling and linking"
    finally:
        kernel.write_text(text)
        build(place, base.variant, options)


def test_second_variant_is_cheap(place: Settings, base: Build, upstream_tree: Path) -> None:
    if shutil.which("ccache") is None:
        pytest.skip("needs ccache")
    tree = place.state / "trees" / "patched"
    shutil.copytree(upstream_tree, tree, symlinks=True)
    variant = Variant("patched", ("foundation",), "e" * 40, "f" * 40, tree, LABELS[1])
    done = build(place, variant, BuildOptions(targets=("llama-bench", "llama-quantize")))
    # Compiled in full it takes minutes of CPU time; two files carry the label, the rest is known.
    assert done.cpu_seconds < 40
    assert len(objects(done)) > 50


def test_cuda_units(place: Settings, upstream_tree: Path) -> None:
    try:
        choose_cuda(probe_cuda())
    except EnvironmentProblem as problem:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(problem.message)
    variant = Variant("base", (), "c" * 40, "d" * 40, upstream_tree, LABELS[0])
    options = BuildOptions(cuda=True, cuda_arch="90")
    checked = check_cuda(place, variant, options, ["ggml/src/ggml-cuda/scale.cu"])
    assert checked.units == ("ggml/src/ggml-cuda/scale.cu",)
    found = list((place.state / "build/base-cuda/out").rglob("*.cu.o"))
    assert [f.name for f in found] == ["scale.cu.o"]
    with pytest.raises(UsageProblem, match="no source file of the CUDA build"):
        check_cuda(place, variant, options, ["ggml/src/ggml-cuda/common.cuh"])
