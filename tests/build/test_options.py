"""Bad options are refused before anything runs."""

from __future__ import annotations

import pytest

from llamapatch.build.options import DEFAULT_TARGETS, BuildOptions
from llamapatch.errors import UsageProblem


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": ("-C",)}, "`-C` is no CMake target"),
        ({"targets": ("a b",)}, "`a b` is no CMake target"),
        ({"targets": ()}, "no targets"),
        ({"cuda": True, "cuda_arch": "ninety"}, "`ninety` is no CUDA architecture"),
        ({"cuda": True, "cuda_arch": "80;"}, "`` is no CUDA architecture"),
        ({"cuda_arch": "90"}, "--cuda-arch was given without --cuda"),
        ({"defines": ("GGML_LTO",)}, "`-D GGML_LTO` is not NAME=VALUE"),
        ({"defines": ("A:WORD=1",)}, "`-D A:WORD=1` is not NAME=VALUE"),
        ({"defines": ("A=1\n2",)}, "is not NAME=VALUE"),
        ({"defines": ("LLAMA_BUILD_COMMIT=mine",)}, "it names the series state"),
        ({"defines": ("BUILD_SHARED_LIBS=OFF",)}, "comparisons swap the shared libraries"),
    ],
)
def test_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        BuildOptions(**changes)  # type: ignore[arg-type]
    assert said in caught.value.message
    assert caught.value.remedy


def test_accepted() -> None:
    options = BuildOptions(cuda=True, cuda_arch="80;90a-real;120-virtual", defines=("A=", "B:BOOL=ON", "C=x=y"))
    assert options.extra_variables() == {"A": ("", ""), "B": ("BOOL", "ON"), "C": ("", "x=y")}


def test_no_server_unless_asked() -> None:
    assert "llama-server" not in DEFAULT_TARGETS
    assert BuildOptions(targets=("llama-server",)).targets == ("llama-server",)
