"""The probe, against real programs and fake ones on PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamapatch.build import toolchain
from llamapatch.build.toolchain import find_compiler, find_toolchain, probe, version_tuple
from llamapatch.errors import EnvironmentProblem, ExitCode


def program(folder: Path, name: str, says: str, code: int = 0) -> Path:
    """An executable that prints `says` and exits with `code`."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but this folder, and a shell for the fakes."""
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def cxx() -> toolchain.Tool:
    return find_compiler("C++", "CXX", toolchain.CXX_COMPILERS, debian="g++", fedora="gcc-c++")


def test_this_machine() -> None:
    tools = find_toolchain()
    assert version_tuple(tools.cmake.version) >= toolchain.OLDEST_CMAKE
    assert version_tuple(tools.ninja.version) >= toolchain.OLDEST_NINJA
    assert tools.ctest.is_file()
    assert {"cc", "cxx", "cmake", "ninja"} <= set(tools.identity())


def test_wheels_come_before_path(only: Path) -> None:
    program(only, "cmake", "cmake version 99.0.0")
    program(only, "ninja", "99.0.0")
    assert toolchain.find_cmake().version != "99.0.0"
    assert toolchain.find_ninja().version != "99.0.0"


def test_path_is_the_second_choice_and_old_ones_are_refused(only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_wheel_program", lambda *_: None)
    program(only, "cmake", "cmake version 3.31.2")
    program(only, "ninja", "1.10.2")
    assert toolchain.find_cmake().path == only / "cmake"
    with pytest.raises(EnvironmentProblem) as caught:
        toolchain.find_ninja()
    assert caught.value.message == f"no ninja of version 1.11 or newer ({only / 'ninja'} is 1.10.2)."
    assert caught.value.remedy == "Install it: `pip install ninja`."


def test_no_compiler_names_the_package(only: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        cxx()
    assert caught.value.exit_code == ExitCode.ERROR
    assert caught.value.message == "no C++ compiler: none of c++, g++, clang++ is on PATH."
    assert "`apt install g++` (Debian, Ubuntu)" in caught.value.remedy
    assert "`dnf install gcc-c++` (Fedora)" in caught.value.remedy


def test_compiler_order_and_the_environment(only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clang = program(only, "clang++", "clang version 15.0.6")
    assert cxx() == toolchain.Tool("cxx", clang, "15.0.6")
    program(only, "g++", "g++ (GCC) 12.2.0")
    assert cxx().version == "12.2.0"
    monkeypatch.setenv("CXX", f"ccache {clang} -m64")
    assert cxx().path == clang


def test_named_compiler_that_is_not_there(only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(only, "g++", "g++ (GCC) 12.2.0")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EnvironmentProblem, match="CXX is set to `no-such-compiler`"):
        cxx()


def test_broken_program_is_no_tool(only: Path) -> None:
    program(only, "ccache", "error while loading shared libraries 1.2", code=127)
    assert probe("ccache", "ccache") is None
    assert toolchain.find_ccache() is None


def test_cpu_features_are_a_subset_in_order() -> None:
    have = toolchain.cpu_features()
    assert list(have) == [f for f in toolchain.CPU_FEATURES if f in have]
    assert toolchain.cpu_name()
