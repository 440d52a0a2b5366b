"""A small project in upstream's shape: real CMake, Ninja and compilers, seconds instead of minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llamapatch.build.builder import BuildOptions
from llamapatch.config import Settings
from llamapatch.tree.variants import Variant

HOME = Path(__file__).resolve().parents[2]

FILES = {
    "CMakeLists.txt": """\
cmake_minimum_required(VERSION 3.14...3.28)
project("llama.cpp" C CXX)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
option(TINY_LOUD "say more" OFF)
if (GIT_EXECUTABLE OR GIT_EXE)
    message(FATAL_ERROR "git must not be asked")
endif()
add_subdirectory(src)
add_subdirectory(tools)
""",
    "src/CMakeLists.txt": """\
configure_file(version.h.in ${CMAKE_CURRENT_BINARY_DIR}/version.h @ONLY)
file(GLOB models models/*.cpp)
file(GLOB kernels CONFIGURE_DEPENDS kernels/*.c)
add_library(llama SHARED llama.cpp ${kernels} ${models})
set_target_properties(llama PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
set_source_files_properties(${models} PROPERTIES UNITY_GROUP models)
target_include_directories(llama PUBLIC . PRIVATE ${CMAKE_CURRENT_BINARY_DIR})
if (TINY_LOUD)
    target_compile_definitions(llama PRIVATE TINY_LOUD)
endif()
""",
    "src/version.h.in": '#define COMMIT "@LLAMA_BUILD_COMMIT@"\n#define NUMBER @LLAMA_BUILD_NUMBER@\n',
    "src/llama.h": """\
const char * commit(void);
int number(void);
extern "C" int kernel_a(int);
extern "C" int kernel_b(int);
int model_a();
int model_b();
""",
    "src/llama.cpp": """\
#include "llama.h"
#include "version.h"
const char * commit(void) { return COMMIT; }
int number(void) { return NUMBER; }
""",
    "src/kernels/a.c": "int kernel_a(int x) { return x + 1; }\n",
    "src/kernels/b.c": "int kernel_b(int x) { return x * 2; }\n",
    "src/models/a.cpp": '#include "../llama.h"\nint model_a() { return 1; }\n',
    "src/models/b.cpp": '#include "../llama.h"\nint model_b() { return 2; }\n',
    "tools/CMakeLists.txt": """\
add_executable(tiny-show show.cpp)
target_link_libraries(tiny-show PRIVATE llama)
add_executable(tiny-other other.cpp)
target_link_libraries(tiny-other PRIVATE llama)
""",
    "tools/show.cpp": """\
#include "llama.h"
#include <cstdio>
int main() { std::printf("%s %d %d %d\\n", commit(), number(), kernel_a(1), kernel_b(1)); }
""",
    "tools/other.cpp": '#include "llama.h"\nint main() { return model_a() + model_b() == 3 ? 0 : 1; }\n',
}
TARGETS = ("tiny-show", "tiny-other")

MakeVariant = Callable[..., Variant]


def options(**changes: object) -> BuildOptions:
    """The tiny project's targets, and `changes`."""
    return BuildOptions(**({"targets": TARGETS} | changes))  # type: ignore[arg-type]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "ccache"))
    for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CCACHE_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    return Settings(root=tmp_path / "work", home=HOME, cache=tmp_path / "cache", upstream=None, jobs=2)


@pytest.fixture
def make_variant(settings: Settings) -> MakeVariant:
    """Write the tiny tree where variants live."""

    def make(name: str = "base", label: str = "v0.5.0", ids: tuple[str, ...] = ()) -> Variant:
        path = settings.state / "trees" / name
        for file, text in FILES.items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_text(text)
        return Variant(name, ids, "c" * 40, "d" * 40, path, label)

    return make
