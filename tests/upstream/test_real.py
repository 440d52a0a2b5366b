"""The pinned llama.cpp itself, once a session, into a cache that LLAMAPATCH_CACHE may share between sessions."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from llamapatch.config import Settings, packaged_home
from llamapatch.errors import MismatchError
from llamapatch.series.model import SeriesFile, Source, UpstreamPin
from llamapatch.upstream import fetch
from llamapatch.upstream.fetch import Upstream, ensure_upstream
from llamapatch.upstream.sources import from_entry
from llamapatch.upstream.store import REF_PREFIX
from tests.upstream.conftest import SHARED_CACHE, git, snapshot

pytestmark = pytest.mark.upstream
MakeSettings = Callable[..., Settings]
FILES = 3619


@pytest.fixture(scope="session")
def pin() -> UpstreamPin:
    text = (packaged_home() / "patches" / "series.toml").read_text()
    return SeriesFile.model_validate(tomllib.loads(text)).upstream


@pytest.fixture(scope="session")
def real(pin: UpstreamPin, tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    cache = Path(SHARED_CACHE) if SHARED_CACHE else tmp_path_factory.mktemp("cache")
    home = tmp_path_factory.mktemp("home")
    npm = [source for source in pin.source if source.kind == "npm"]
    settings = Settings(root=home, home=home, cache=cache, upstream=None, jobs=1)
    return ensure_upstream(settings, pin.model_copy(update={"source": npm}), print)


def test_npm_delivers_the_pin(real: Upstream, pin: UpstreamPin) -> None:
    assert real.tree == pin.tree == git(real.git_dir, "rev-parse", REF_PREFIX + pin.tree)
    assert len(git(real.git_dir, "ls-tree", "-r", "--name-only", pin.tree).splitlines()) == FILES


def test_folder_and_archive_of_the_real_tree(
    real: Upstream, pin: UpstreamPin, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """`git archive`, unpacked by tar or given as it is, hashes back to the pin; one bit of mode does not."""
    path = tmp_path / "llama.cpp.tar"
    with path.open("wb") as out:
        command = ["git", "--git-dir", str(real.git_dir), "archive", "--prefix=llama.cpp-0.5.0/", pin.tree]
        subprocess.run(command, stdout=out, check=True)
    shutil.unpack_archive(path, tmp_path, filter="data")
    folder = tmp_path / "llama.cpp-0.5.0"
    before = snapshot(folder)
    for n, form in enumerate((path, folder)):
        upstream = ensure_upstream(make_settings(form, cache=tmp_path / f"cache{n}"), pin)
        assert git(upstream.git_dir, "rev-parse", REF_PREFIX + pin.tree) == pin.tree
    assert snapshot(folder) == before
    (folder / "CMakeLists.txt").chmod(0o755)
    with pytest.raises(MismatchError, match=pin.tree):
        ensure_upstream(make_settings(folder, cache=tmp_path / "cache1"), pin)


def test_the_cache_as_a_users_repository(
    real: Upstream, pin: UpstreamPin, make_settings: MakeSettings, tmp_path: Path
) -> None:
    git(tmp_path, "init", "-q", "--bare", "mine.git")
    git(tmp_path / "mine.git", "fetch", "-q", str(real.git_dir), REF_PREFIX + pin.tree)
    upstream = ensure_upstream(make_settings(tmp_path / "mine.git"), pin)
    assert upstream.source == f"git repository {tmp_path / 'mine.git'}"


@pytest.mark.slow
def test_pypi_vendors_another_tree(make_settings: MakeSettings, pin: UpstreamPin, tmp_path: Path) -> None:
    """A published binding's archive: some llama.cpp, older than the pin; none of its code runs."""
    source = from_entry(Source(kind="pypi", package="llama-cpp-python==0.3.16", member="vendor/llama.cpp"), tmp_path)
    upstream = fetch.take(make_settings(), source, "0.3.16's")
    names = git(upstream.git_dir, "ls-tree", "-r", "--name-only", upstream.tree).splitlines()
    assert upstream.tree != pin.tree
    assert {"CMakeLists.txt", "include/llama.h", "ggml/src/ggml.c"} <= set(names)
