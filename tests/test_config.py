"""Settings: flag > LLAMAPATCH_* > llamapatch.toml > platform folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamapatch.config import load_settings, packaged_home
from llamapatch.errors import UsageProblem


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "p/deep/er").mkdir(parents=True)
    (tmp_path / "p/patches").mkdir()
    (tmp_path / "p/patches/series.toml").write_text("")
    (tmp_path / "p/llamapatch.toml").write_text('upstream = "../llama.cpp"\ncache = "/from/toml"\njobs = 3\n')
    return tmp_path / "p"


def test_the_nearest_project_wins(root: Path) -> None:
    settings = load_settings(root / "deep/er")
    assert settings.root == settings.home == root
    assert settings.state == root / ".llamapatch"
    assert settings.patches == root / "patches"
    assert settings.upstream == root.parent / "llama.cpp"
    assert (settings.cache, settings.jobs) == (Path("/from/toml"), 3)
    assert not settings.is_packaged


def test_who_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMAPATCH_UPSTREAM", "/from/env")
    monkeypatch.setenv("LLAMAPATCH_CACHE", "/cache/env")
    monkeypatch.setenv("LLAMAPATCH_JOBS", "5")
    settings = load_settings(root)
    assert (settings.upstream, settings.cache, settings.jobs) == (Path("/from/env"), Path("/cache/env"), 5)
    settings = load_settings(root, upstream="/from/flag", cache="/cache/flag", jobs=7)
    assert (settings.upstream, settings.cache, settings.jobs) == (Path("/from/flag"), Path("/cache/flag"), 7)
    monkeypatch.setenv("LLAMAPATCH_JOBS", "")
    assert load_settings(root).jobs == 3


def test_a_folder_that_is_no_project(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    assert (settings.root, settings.home, settings.upstream) == (tmp_path, packaged_home(), None)
    assert settings.is_packaged
    assert settings.jobs >= 1
    assert settings.cache.name == "llamapatch"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("jobs = [", "llamapatch.toml is not valid TOML: "),
        ("jobz = 1\n", "llamapatch.toml: unknown key `jobz`. Known keys: cache, jobs, upstream."),
        ('jobs = "many"\n', "llamapatch.toml: `jobs` must be of type int."),
        ("jobs = 0\n", "jobs is 0; it must be at least 1."),
    ],
)
def test_mistakes(root: Path, text: str, says: str) -> None:
    (root / "llamapatch.toml").write_text(text)
    with pytest.raises(UsageProblem) as caught:
        load_settings(root)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


def test_jobs_from_the_environment_must_be_a_number(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMAPATCH_JOBS", "all")
    with pytest.raises(UsageProblem, match="LLAMAPATCH_JOBS is 'all', which is no number"):
        load_settings(root)
