"""Building a kernels folder on its own."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from llamapatch.build.builder import build
from llamapatch.build.kernels import build_kernels, test_kernels
from llamapatch.build.ninja import BuildFailed
from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from tests.build.conftest import MakeVariant, options

LISTS = """\
cmake_minimum_required(VERSION 3.16)
project(tiny-kernels C)
enable_testing()
add_executable(test-one one.c)
add_test(NAME one COMMAND test-one)
if (LP_LLAMA_BIN)
    add_executable(bench-one bench.c)
    target_link_libraries(bench-one PRIVATE ${LP_LLAMA_BIN}/libllama.so)
    target_compile_definitions(bench-one PRIVATE SOURCE="${LP_LLAMA_SOURCE}")
endif()
"""


@pytest.fixture
def own(settings: Settings, tmp_path: Path) -> Settings:
    """Settings whose series has one kernel with a test."""
    folder = tmp_path / "home" / "ggml_kernels"
    folder.mkdir(parents=True)
    (folder / "CMakeLists.txt").write_text(LISTS)
    (folder / "one.c").write_text("int main(void) { return 0; }\n")
    (folder / "bench.c").write_text(
        '#include <stdio.h>\nint kernel_a(int);\nint main(void) { printf("%d %s\\n", kernel_a(1), SOURCE); }\n'
    )
    return replace(settings, home=tmp_path / "home")


def test_alone(own: Settings) -> None:
    said: list[str] = []
    where = build_kernels(own, None, ["test-one"], said.append)
    assert where == own.state / "build/kernels/out/bin"
    assert said == ["kernels: configuring (not built yet)", "kernels: 2 steps"]
    said.clear()
    build_kernels(own, None, ["test-one"], said.append)
    assert said == []
    subprocess.run([where / "test-one"], check=True)
    with pytest.raises(UsageProblem, match="kernels has no target `bench-one`"):
        build_kernels(own, None, ["bench-one"])


def test_with_llama_and_any_arms_libraries(own: Settings, settings: Settings, make_variant: MakeVariant) -> None:
    base = build(settings, make_variant("base"), options())
    variant = make_variant("patched")
    (variant.path / "src/kernels/a.c").write_text("int kernel_a(int x) { return x + 99; }\n")
    patched = build(settings, variant, options())
    bench = build_kernels(own, base, ["bench-one"]) / "bench-one"

    def run(libraries: Path) -> str:
        env = {"LD_LIBRARY_PATH": str(libraries)}
        return subprocess.run([bench], env=env, check=True, capture_output=True, text=True).stdout.strip()

    assert run(base.bin) == f"2 {base.variant.path}"
    assert run(patched.bin) == f"100 {base.variant.path}"


def test_ctest(own: Settings) -> None:
    result = test_kernels(own)
    assert result.passed == 1
    (own.kernels / "one.c").write_text('#include <stdio.h>\nint main(void) { puts("off by one"); return 1; }\n')
    with pytest.raises(BuildFailed, match=r"the kernels' tests failed(.|\n)*0% tests passed"):
        test_kernels(own)
    assert "off by one" in result.log.read_text()


def test_no_tests_is_a_failure(own: Settings) -> None:
    (own.kernels / "CMakeLists.txt").write_text(LISTS.replace("add_test(", "# ("))
    with pytest.raises(BuildFailed, match="No tests were found"):
        test_kernels(own)


def test_no_kernels_here(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="no kernels to build"):
        build_kernels(replace(settings, home=tmp_path), None, [])
