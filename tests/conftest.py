"""What every test lives in: an isolated home, no settings from outside, fixed locale and time zone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import Project, make_upstream

# A shell that starts pytest in the background has it ignore SIGINT, and every child would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# These may point a test that needs the real llama.cpp at a copy that is already there.
_SHARED = ("LLAMAPATCH_UPSTREAM", "LLAMAPATCH_CACHE")


@pytest.fixture(autouse=True)
def isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No LLAMAPATCH_*, LLAMA_LP_* or GIT_* of the caller; an empty home unless the test is marked `upstream` or
    `slow`: those fetch and build, and use the caller's download cache, registry settings and ccache."""
    real = any(request.node.get_closest_marker(name) for name in ("upstream", "slow"))
    for name in list(os.environ):
        if name.startswith(("LLAMAPATCH_", "LLAMA_LP_", "GIT_")) and not (real and name in _SHARED):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    if not real:
        home = tmp_path / "isolated-home"
        home.mkdir()
        monkeypatch.setenv("HOME", str(home))
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            monkeypatch.setenv(name, str(home / name.lower()))


@pytest.fixture
def toy_upstream(tmp_path: Path) -> Path:
    """A small llama.cpp: a git repository whose HEAD is what `project` is pinned to."""
    return make_upstream(tmp_path / "llama.cpp")


@pytest.fixture
def project(
    tmp_path: Path, toy_upstream: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Project:
    """An empty project on `toy_upstream`; the current folder."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("LLAMAPATCH_CACHE", str(tmp_path / "cache"))
    return Project(root, toy_upstream, capsys)


@pytest.fixture
def sampler(project: Project) -> Project:
    """A locked project of four patches: see `Project.fill`."""
    project.fill()
    return project


@pytest.fixture
def make_project(tmp_path: Path, toy_upstream: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Project]:
    """More projects on the same upstream."""

    def make(name: str) -> Project:
        (tmp_path / name).mkdir()
        return Project(tmp_path / name, toy_upstream, capsys)

    return make
