"""What this machine builds with: compilers, CMake, Ninja, ccache, the processor's instruction sets.

CMake and Ninja come from the PyPI wheels that llamapatch depends on, so that git, Python and a C++ compiler are all a
machine needs; those on PATH are the second choice.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llamapatch.errors import EnvironmentProblem
from llamapatch.process import run

# Presets of version 6 and `--fresh`.
OLDEST_CMAKE = (3, 25)
# 1.11 records when a command started, not when it ended: a file that an interrupted compiler left behind is then
# older than its inputs in the log, and is made again.
OLDEST_NINJA = (1, 11)

C_COMPILERS = ("cc", "gcc", "clang")
CXX_COMPILERS = ("c++", "g++", "clang++")
# Variables that CMake takes into its cache when it first configures a folder.
FLAG_VARIABLES = ("CC", "CXX", "CUDACXX", "CUDAHOSTCXX", "CFLAGS", "CXXFLAGS", "CUDAFLAGS", "LDFLAGS")

# Instruction sets that decide which of upstream's and our kernels run; names as Linux prints them in /proc/cpuinfo.
CPU_FEATURES = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "bmi2", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vbmi", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


@dataclass(frozen=True)
class Tool:
    """A program that was found and ran; `version` is the first dotted number it printed."""

    name: str
    path: Path
    version: str

    @property
    def identity(self) -> str:
        """Changes when the program does."""
        return f"{self.path} {self.version}"


@dataclass(frozen=True)
class Toolchain:
    """Everything a CPU build needs; `ccache` is None where it is not installed."""

    cc: Tool
    cxx: Tool
    cmake: Tool
    ninja: Tool
    ccache: Tool | None

    @property
    def ctest(self) -> Path:
        return self.cmake.path.with_name("ctest")

    def identity(self) -> dict[str, str]:
        """What a configured folder depends on."""
        tools = (self.cc, self.cxx, self.cmake, self.ninja, self.ccache)
        return {tool.name: tool.identity for tool in tools if tool is not None}


def find_toolchain() -> Toolchain:
    """Find the tools of a CPU build; raises `EnvironmentProblem` naming the package that brings a missing one."""
    return Toolchain(
        cc=find_compiler("C", "CC", C_COMPILERS, debian="gcc", fedora="gcc"),
        cxx=find_compiler("C++", "CXX", CXX_COMPILERS, debian="g++", fedora="gcc-c++"),
        cmake=find_cmake(),
        ninja=find_ninja(),
        ccache=find_ccache(),
    )


def find_compiler(language: str, variable: str, names: Iterable[str], *, debian: str, fedora: str) -> Tool:
    """The compiler CMake will take: the one `variable` names in the environment, else the first of `names` on PATH."""
    named = os.environ.get(variable, "").strip()
    remedy = f"Install one: `apt install {debian}` (Debian, Ubuntu) or `dnf install {fedora}` (Fedora)."
    if named:
        words = [w for w in shlex.split(named) if Path(w).name not in ("ccache", "sccache")]
        tool = probe(variable.lower(), words[0]) if words else None
        if tool is None:
            raise EnvironmentProblem(
                f"{variable} is set to `{named}`, which does not run as a {language} compiler.",
                f"Unset {variable} or point it at a compiler. {remedy}",
            )
        return tool
    for name in names:
        tool = probe(variable.lower(), name)
        if tool is not None:
            return tool
    raise EnvironmentProblem(f"no {language} compiler: none of {', '.join(names)} is on PATH.", remedy)


def find_cmake() -> Tool:
    """CMake from its wheel, else from PATH."""
    return _find_wheel_tool("cmake", "CMAKE_BIN_DIR", OLDEST_CMAKE)


def find_ninja() -> Tool:
    """Ninja from its wheel, else from PATH."""
    return _find_wheel_tool("ninja", "BIN_DIR", OLDEST_NINJA)


def find_ccache() -> Tool | None:
    """ccache from PATH, or None."""
    return probe("ccache", "ccache")


def probe(name: str, program: str | os.PathLike[str]) -> Tool | None:
    """`program` as a `Tool` when it is there and ``--version`` works."""
    found = shutil.which(os.fspath(program))
    if found is None:
        return None
    try:
        done = run([found, "--version"], check=False, timeout=30, env=os.environ | {"LC_ALL": "C"})
    except EnvironmentProblem:
        return None
    match = re.search(r"\d+(?:\.\d+)+", done.stdout)
    if done.code != 0 or match is None:
        return None
    return Tool(name, Path(found), match.group())


def version_tuple(version: str) -> tuple[int, ...]:
    """``"3.25.1"`` -> ``(3, 25, 1)``."""
    return tuple(int(n) for n in version.split("."))


def cpu_features() -> tuple[str, ...]:
    """Those of `CPU_FEATURES` that this processor has, in that order; empty where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ()
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    have = set(match.group(1).split()) if match else set()
    return tuple(f for f in CPU_FEATURES if f in have)


def cpu_name() -> str:
    """The processor's marketing name, or its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.machine()


def flag_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of `FLAG_VARIABLES` that are set: part of what a configured folder depends on."""
    where = os.environ if environ is None else environ
    return {name: where[name] for name in FLAG_VARIABLES if where.get(name)}


def _find_wheel_tool(name: str, folder_attribute: str, oldest: tuple[int, ...]) -> Tool:
    seen = []
    for candidate in (_wheel_program(name, folder_attribute), name):
        tool = probe(name, candidate) if candidate else None
        if tool is not None and version_tuple(tool.version) >= oldest:
            return tool
        if tool is not None:
            seen.append(f"{tool.path} is {tool.version}")
    wanted = ".".join(str(n) for n in oldest)
    raise EnvironmentProblem(
        f"no {name} of version {wanted} or newer" + (f" ({'; '.join(seen)})." if seen else "."),
        f"Install it: `pip install {name}`.",
    )


def _wheel_program(name: str, folder_attribute: str) -> Path | None:
    if importlib.util.find_spec(name) is None:
        return None
    folder = getattr(importlib.import_module(name), folder_attribute, None)
    return Path(folder) / name if folder else None
