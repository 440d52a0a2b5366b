"""The CMake presets of a variant: which cache variables and environment it is configured with, and why."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from llamapatch.build.cuda import CudaSetup
from llamapatch.build.options import BuildOptions
from llamapatch.build.source import PRESETS
from llamapatch.build.toolchain import Toolchain
from llamapatch.errors import InternalError
from llamapatch.files import write_atomically

if TYPE_CHECKING:
    from llamapatch.tree.variants import Variant

PRESET_NAME = "llamapatch"
TEMPLATE = f"cmake/{PRESETS}.j2"
# An ambient value of these would end up in only one of two variants, or in neither.
_DROPPED = ("NINJA_STATUS", "MAKEFLAGS", "CMAKE_GENERATOR", "CMAKE_BUILD_TYPE", "SOURCE_DATE_EPOCH", "PWD")


@dataclass(frozen=True)
class CacheVariable:
    """One CMake cache entry."""

    name: str
    type: str
    value: str


def cache_variables(
    variant: Variant, options: BuildOptions, tools: Toolchain, cuda: CudaSetup | None
) -> tuple[CacheVariable, ...]:
    """What `variant` is configured with, the user's own definitions last."""
    entries: dict[str, tuple[str, str]] = {
        "CMAKE_MAKE_PROGRAM": ("FILEPATH", str(tools.ninja.path)),
        "CMAKE_BUILD_TYPE": ("STRING", "Release"),
        "GGML_NATIVE": ("BOOL", "ON"),
        "BUILD_SHARED_LIBS": ("BOOL", "ON"),
        # Binaries find their libraries beside them, wherever the folder stands, so that they are equal in all variants.
        "CMAKE_BUILD_RPATH_USE_ORIGIN": ("BOOL", "ON"),
        # Unity files name their parts by absolute path otherwise, which no other variant's cache entry matches.
        "CMAKE_UNITY_BUILD_RELOCATABLE": ("BOOL", "ON"),
        # The identity of every result. ggml asks git for a string of its own, in a folder that may lie in the user's
        # repository: with no git to ask it takes LLAMA_BUILD_COMMIT, as it should.
        "LLAMA_BUILD_COMMIT": ("STRING", variant.label),
        "LLAMA_BUILD_NUMBER": ("STRING", str(len(variant.ids))),
        "GIT_EXE": ("FILEPATH", "OFF"),
        "GIT_EXECUTABLE": ("FILEPATH", "OFF"),
        # Nothing that a build machine must have or fetch: no TLS library, no web page from npm or a model hub.
        "LLAMA_OPENSSL": ("BOOL", "OFF"),
        "LLAMA_BUILD_UI": ("BOOL", "OFF"),
        "LLAMA_USE_PREBUILT_UI": ("BOOL", "OFF"),
        # ggml's own use of ccache sets a launcher on all rules, ours would come on top.
        "GGML_CCACHE": ("BOOL", "OFF"),
    }
    if sys.platform == "linux":
        # RUNPATH yields to LD_LIBRARY_PATH, RPATH does not; comparisons swap libraries by it.
        for kind in ("EXE", "SHARED"):
            entries[f"CMAKE_{kind}_LINKER_FLAGS"] = ("STRING", "-Wl,--enable-new-dtags")
    languages = ["C", "CXX"]
    if cuda is not None:
        languages.append("CUDA")
        entries |= {name: ("STRING", value) for name, value in cuda.variables.items()}
        entries["GGML_CUDA"] = ("BOOL", "ON")
        # Found or not, it must not depend on what else is installed.
        entries["GGML_CUDA_NCCL"] = ("BOOL", "OFF")
        entries["CMAKE_CUDA_ARCHITECTURES"] = ("STRING", cuda.architectures)
    for language in languages:
        launcher = str(tools.ccache.path) if tools.ccache is not None else ""
        entries[f"CMAKE_{language}_COMPILER_LAUNCHER"] = ("STRING", launcher)
    entries |= {name: (kind or "STRING", value) for name, (kind, value) in options.extra_variables().items()}
    return tuple(CacheVariable(name, kind, value) for name, (kind, value) in entries.items())


def ccache_environment(folder: Path) -> dict[str, str]:
    """With paths relative to the build folder, equal sources give equal cache keys in every variant.

    The compiler's language is part of the key, and of the messages that are searched for known failures.
    """
    return {"CCACHE_BASEDIR": str(folder), "CCACHE_NOHASHDIR": "1", "LC_ALL": "C"}


def environment(folder: Path, cuda: CudaSetup | None) -> dict[str, str]:
    """The variables a build in `folder` adds to the user's environment."""
    added = ccache_environment(folder) | {
        # The tree may lie inside the user's own repository.
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "GIT_OPTIONAL_LOCKS": "0",
    }
    return added | (cuda.environment if cuda is not None else {})


def full_environment(added: Mapping[str, str]) -> dict[str, str]:
    """The user's environment, without what would make two builds differ, and `added`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") and k not in _DROPPED}
    return kept | dict(added)


def render(
    templates: Path,
    title: str,
    variables: tuple[CacheVariable, ...],
    added_environment: Mapping[str, str],
    targets: tuple[str, ...],
) -> str:
    """CMakePresets.json, from the template."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - JSON, where every value goes through `quoted`
    )
    env.filters["quoted"] = _quoted
    text = env.get_template(TEMPLATE).render(
        name=PRESET_NAME,
        title=title,
        variables=variables,
        environment=dict(added_environment),
        targets=targets,
    )
    try:
        json.loads(text)
    except ValueError as error:
        raise InternalError(f"{templates / TEMPLATE} renders to malformed JSON: {error}.") from error
    return text


def write_presets(farm: Path, text: str) -> None:
    """Place the presets in the source folder; unchanged ones keep their time."""
    path = farm / PRESETS
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text.encode())


def _quoted(value: str) -> str:
    """`value` as a JSON string in which CMake expands nothing (``${...}`` and ``$env{...}`` are macros there)."""
    return json.dumps(value.replace("$", "${dollar}"))
