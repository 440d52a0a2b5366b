"""What a build is asked for, checked before anything runs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llamapatch.errors import UsageProblem

# What measuring and gating run. llama-server is built only when asked for.
DEFAULT_TARGETS = (
    "llama-perplexity",
    "llama-bench",
    "llama-batched-bench",
    "llama-quantize",
    "llama-imatrix",
    "llama-completion",
    "llama-results",
    "test-backend-ops",
    "test-sampling",
    "test-quantize-fns",
    "test-backend-sampler",
)

_TARGET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_DEFINE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_.+-]*)(?::(?P<type>[A-Z]+))?=(?P<value>[^\n\0]*)")
_CACHE_TYPES = ("BOOL", "FILEPATH", "PATH", "STRING", "INTERNAL")
_ARCH = re.compile(r"(\d{2,3}[af]?(-real|-virtual)?|native|all|all-major)")
# They carry the series state into every result, or decide where everything lies.
_RESERVED = {
    "LLAMA_BUILD_COMMIT": "it names the series state",
    "LLAMA_BUILD_NUMBER": "it counts the applied patches",
    "BUILD_SHARED_LIBS": "comparisons swap the shared libraries",
    "CMAKE_GENERATOR": "progress and `--check` need Ninja",
    "CMAKE_MAKE_PROGRAM": "Ninja is found by llamapatch",
    "CMAKE_RUNTIME_OUTPUT_DIRECTORY": "tools are looked for in bin/",
    "CMAKE_LIBRARY_OUTPUT_DIRECTORY": "libraries are looked for in bin/",
}


@dataclass(frozen=True)
class BuildOptions:
    """`cuda_arch` is a CMake list such as ``90`` or ``80;90`` (empty: the GPU of this machine); `defines` are
    ``NAME=VALUE`` or ``NAME:TYPE=VALUE``, passed to CMake after our own. Raises `UsageProblem` for malformed ones."""

    cuda: bool = False
    cuda_arch: str = ""
    targets: tuple[str, ...] = DEFAULT_TARGETS
    defines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for target in self.targets:
            if not _TARGET.fullmatch(target):
                raise UsageProblem(
                    f"`{target}` is no CMake target.", "Give names such as --targets llama-bench,llama-cli."
                )
        if not self.targets:
            raise UsageProblem("no targets were given.", "Leave --targets away to build what measuring needs.")
        for arch in self.cuda_arch.split(";") if self.cuda_arch else ():
            if not _ARCH.fullmatch(arch):
                raise UsageProblem(
                    f"`{arch}` is no CUDA architecture.", 'Write --cuda-arch 90, or "80;90" for several.'
                )
        if self.cuda_arch and not self.cuda:
            raise UsageProblem("--cuda-arch was given without --cuda.", "Add --cuda.")
        self.extra_variables()

    def extra_variables(self) -> dict[str, tuple[str, str]]:
        """`defines` as name -> (type or "", value)."""
        out = {}
        for define in self.defines:
            match = _DEFINE.fullmatch(define)
            kind = match.group("type") or "" if match else ""
            if match is None or (kind and kind not in _CACHE_TYPES):
                raise UsageProblem(
                    f"`-D {define}` is not NAME=VALUE or NAME:TYPE=VALUE.", "Write it as for cmake: -D GGML_LTO=ON."
                )
            name = match.group("name")
            if name in _RESERVED:
                raise UsageProblem(f"-D {name} is set by llamapatch: {_RESERVED[name]}.", "Leave it away.")
            out[name] = (kind, match.group("value"))
        return out
