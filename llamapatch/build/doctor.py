"""What ``llamapatch doctor`` finds: what this machine has, what it lacks, and what to install."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from llamapatch.build import toolchain
from llamapatch.build.builder import SPACE_NEEDED
from llamapatch.build.cuda import EXTRA, CudaToolkit, gpu_architectures, probe_cuda
from llamapatch.config import Settings
from llamapatch.errors import LlamapatchError
from llamapatch.process import run

OLDEST_GIT = (2, 38)
# Two compilers at once on upstream's largest files.
MEMORY_WANTED = 4e9

_PROBE = """\
#include <filesystem>
#include <thread>
int main() {
    int n = 0;
    std::thread t([&] { n = static_cast<int>(std::filesystem::path("a/b").filename().string().size()); });
    t.join();
    return n == 1 ? 0 : 1;
}
"""


class State(StrEnum):
    """`MISSING` means that the CPU path does not work; `ABSENT` that something optional is not there."""

    OK = "ok"
    ABSENT = "absent"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: State
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings; `healthy` when everything the CPU path needs is there."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        return all(f.state is not State.MISSING for f in self.findings)


def diagnose(settings: Settings) -> Diagnosis:
    """Look at everything; nothing is written outside a temporary folder."""
    return Diagnosis(
        (
            Finding("python", State.OK, f"{platform.python_version()} at {sys.executable}"),
            _git(),
            _tool(
                "C compiler",
                lambda: toolchain.find_compiler("C", "CC", toolchain.C_COMPILERS, debian="gcc", fedora="gcc"),
            ),
            _cxx(),
            _tool("cmake", toolchain.find_cmake),
            _tool("ninja", toolchain.find_ninja),
            _ccache(),
            _cpu(),
            _memory(),
            _space(settings),
            *_cuda(),
        )
    )


def _tool(name: str, find: Callable[[], toolchain.Tool]) -> Finding:
    try:
        tool = find()
    except LlamapatchError as error:
        return Finding(name, State.MISSING, error.message, error.remedy)
    return Finding(name, State.OK, f"{tool.version} at {tool.path}")


def _git() -> Finding:
    remedy = "Install it: `apt install git` (Debian, Ubuntu) or `dnf install git` (Fedora)."
    tool = toolchain.probe("git", "git")
    if tool is None:
        return Finding("git", State.MISSING, "not on PATH", remedy)
    if toolchain.version_tuple(tool.version) < OLDEST_GIT:
        wanted = ".".join(str(n) for n in OLDEST_GIT)
        return Finding("git", State.MISSING, f"{tool.version} at {tool.path} is older than {wanted}", remedy)
    return Finding("git", State.OK, f"{tool.version} at {tool.path}")


def _cxx() -> Finding:
    """The C++ compiler, proven by a program: a compiler without its standard library is found on many machines."""
    remedy = "Install one: `apt install g++` (Debian, Ubuntu) or `dnf install gcc-c++` (Fedora)."
    try:
        tool = toolchain.find_compiler("C++", "CXX", toolchain.CXX_COMPILERS, debian="g++", fedora="gcc-c++")
        with tempfile.TemporaryDirectory(prefix="llamapatch-doctor-") as name:
            source, program = Path(name) / "probe.cpp", Path(name) / "probe"
            source.write_text(_PROBE, encoding="ascii")
            compiling: list[str | Path] = [tool.path, "-std=c++17", "-pthread", source, "-o", program]
            for argv in (compiling, [program]):
                done = run(argv, check=False, timeout=120)
                if done.code != 0:
                    said = (done.stderr.strip().splitlines() or ["no output"])[0]
                    return Finding("C++ compiler", State.MISSING, f"{tool.path} fails on C++17: {said}", remedy)
    except LlamapatchError as error:
        return Finding("C++ compiler", State.MISSING, error.message, error.remedy or remedy)
    return Finding("C++ compiler", State.OK, f"{tool.version} at {tool.path}, C++17 works")


def _ccache() -> Finding:
    tool = toolchain.find_ccache()
    if tool is None:
        return Finding(
            "ccache",
            State.ABSENT,
            "not on PATH: each variant is compiled in full, minutes instead of seconds",
            "Install it: `apt install ccache` (Debian, Ubuntu) or `dnf install ccache` (Fedora).",
        )
    return Finding("ccache", State.OK, f"{tool.version} at {tool.path}")


def _cpu() -> Finding:
    features = toolchain.cpu_features()
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("processor", State.OK, f"{toolchain.cpu_name()}, {count} usable: {' '.join(features) or 'unknown'}")


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    if free < MEMORY_WANTED:
        return Finding("memory", State.ABSENT, f"{free / 1e9:.1f} GB free; compilers may run out", "Use --jobs 1.")
    return Finding("memory", State.OK, f"{free / 1e9:.1f} GB free")


def _space(settings: Settings) -> Finding:
    where = next(p for p in (settings.state, *settings.state.parents) if p.is_dir())
    free = psutil.disk_usage(str(where)).free
    # Upstream's objects, two worktrees, two builds.
    need = 2 * SPACE_NEEDED[False] + 0.6e9
    if not os.access(where, os.W_OK):
        return Finding("work folder", State.MISSING, f"{where} cannot be written to", "Run in a folder of your own.")
    if free < need:
        remedy = "Free some space, or run in a folder on another disk."
        return Finding(
            "work folder", State.MISSING, f"{where} has {free / 1e9:.1f} GB free, {need / 1e9:.1f} needed", remedy
        )
    return Finding("work folder", State.OK, f"{settings.state}, {free / 1e9:.0f} GB free")


def _cuda() -> list[Finding]:
    found = probe_cuda()
    used = next((t for t in found if t.complete), None)
    findings = [_toolkit(t, used) for t in found]
    if used is None:
        findings.append(Finding("CUDA", State.ABSENT, "no complete toolkit: `build --cuda` does not work", EXTRA))
    architectures = gpu_architectures()
    detail = (
        f"compute capability {', '.join(architectures)}" if architectures else "none seen: name one with --cuda-arch"
    )
    return [*findings, Finding("GPU", State.OK if architectures else State.ABSENT, detail)]


def _toolkit(toolkit: CudaToolkit, used: CudaToolkit | None) -> Finding:
    name = f"CUDA ({toolkit.origin})"
    detail = f"{toolkit.version} at {toolkit.root}"
    if toolkit.complete:
        return Finding(name, State.OK, detail + (", used by --cuda" if toolkit is used else ""))
    lacks = ", ".join(toolkit.missing)
    remedy = "" if used is not None else re.sub(r"^Install", "Or install", EXTRA)
    if toolkit.origin == "system" and used is None:
        remedy = "Install its cuBLAS development package, or the wheels: `pip install 'llamapatch[cuda]'`."
    return Finding(name, State.ABSENT, f"{detail} lacks {lacks}", remedy)
