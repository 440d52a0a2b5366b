"""Building ``ggml_kernels/`` on its own, and running its tests.

With a llama.cpp build at hand, the benchmarks that go through upstream's public API are built too; they run against
any arm's libraries, by LD_LIBRARY_PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llamapatch.build import ninja
from llamapatch.build.builder import Build, Report, hold_lock
from llamapatch.build.presets import ccache_environment, full_environment
from llamapatch.build.source import file_list_hash
from llamapatch.build.stamp import Action, Stamp, read_stamp, unfinished, write_stamp
from llamapatch.build.toolchain import Toolchain, find_toolchain, flag_environment
from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.process import run


@dataclass(frozen=True)
class KernelTests:
    """A finished ctest run in which nothing failed; `log` has its whole output."""

    passed: int
    seconds: float
    log: Path


def kernels_folder(settings: Settings, llama: Build | None) -> Path:
    """Where they are built: once on their own, and once for each variant they are linked with."""
    return settings.state / "build" / ("kernels" if llama is None else f"kernels-{llama.folder.name}")


def build_kernels(
    settings: Settings, llama: Build | None, targets: Sequence[str], report: Report | None = None
) -> Path:
    """Build `targets` of ``ggml_kernels/`` (all when empty) and return the folder of the executables.

    With `llama`, targets that need llama.cpp's headers and shared libraries exist as well. Raises `UsageProblem` for an
    unknown target and `ninja.BuildFailed`.
    """
    source = settings.kernels
    if not (source / "CMakeLists.txt").is_file():
        raise UsageProblem(f"{source} has no CMakeLists.txt: no kernels to build.", "Run in a folder with a series.")
    tools = find_toolchain()
    folder = kernels_folder(settings, llama)
    out = folder / "out"
    env = full_environment(ccache_environment(folder))
    variables = _variables(tools, out, llama)
    stamp = Stamp(
        setup={f"-D{k}": v for k, v in variables.items()} | tools.identity() | flag_environment(),
        files=file_list_hash(source),
        label="",
        number=0,
        source=str(source),
    )
    with hold_lock(folder), ninja.Log(folder / "build.log") as log:
        action, why = stamp.action(read_stamp(folder / "stamp.json"))
        if action is Action.START_OVER and out.exists():
            shutil.rmtree(out)
        if action is not Action.NOTHING or not (out / "build.ninja").is_file():
            if report is not None:
                report(f"{folder.name}: configuring ({why or 'out/ is incomplete'})")
            write_stamp(folder / "stamp.json", unfinished(stamp))
            argv: list[str | os.PathLike[str]] = [tools.cmake.path, "-S", source, "-B", out, "-G", "Ninja", "--fresh"]
            argv += [f"-D{name}={value}" for name, value in variables.items()]
            ninja.configure(argv, folder, env, folder.name, log)
            (out / "bin").mkdir(exist_ok=True)
            write_stamp(folder / "stamp.json", stamp)
        ran = ninja.build_targets(
            tools.ninja.path,
            out,
            targets,
            jobs=settings.jobs,
            env=env,
            title=folder.name,
            log=log,
            report=report,
        )
    if report is not None and ran.steps:
        report(f"{folder.name}: {len(ran.steps)} steps")
    return out / "bin"


def test_kernels(
    settings: Settings, llama: Build | None = None, report: Report | None = None, families: Sequence[str] = ()
) -> KernelTests:
    """Build all kernels and run the tests of all `families`, or of some, through ctest; raises `ninja.BuildFailed` when
    one fails or none exists."""
    build_kernels(settings, llama, (), report)
    folder = kernels_folder(settings, llama)
    env = dict(os.environ)
    if llama is not None:
        env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (str(llama.bin), env.get("LD_LIBRARY_PATH", ""))))
    argv: list[str | os.PathLike[str]] = [
        find_toolchain().ctest,
        "--test-dir",
        folder / "out",
        "--output-on-failure",
        "--no-tests=error",
        *(["-R", f"^({'|'.join(families)})-"] if families else []),
    ]
    with ninja.Log(folder / "test.log") as log:
        done = run(argv, env=env, check=False, on_line=log.write)
    if done.code != 0:
        lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        raise ninja.BuildFailed("the kernels' tests failed", lines, log.path)
    match = re.search(r"100% tests passed.* out of (\d+)", done.stdout)
    return KernelTests(int(match.group(1)) if match else 0, done.seconds, log.path)


# pytest must not take the function for a test where it is imported.
test_kernels.__test__ = False  # type: ignore[attr-defined]


def _variables(tools: Toolchain, out: Path, llama: Build | None) -> dict[str, str]:
    launcher = str(tools.ccache.path) if tools.ccache is not None else ""
    variables = {
        "CMAKE_MAKE_PROGRAM": str(tools.ninja.path),
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_RUNTIME_OUTPUT_DIRECTORY": str(out / "bin"),
        "CMAKE_C_COMPILER_LAUNCHER": launcher,
        "CMAKE_CXX_COMPILER_LAUNCHER": launcher,
    }
    if sys.platform == "linux":
        variables["CMAKE_EXE_LINKER_FLAGS"] = "-Wl,--enable-new-dtags"
    if llama is not None:
        variables["LP_LLAMA_SOURCE"] = str(llama.variant.path)
        variables["LP_LLAMA_BIN"] = str(llama.bin)
    return variables
