"""The packaged series on the real llama.cpp: out to the tools of others, back in, and within the time promised."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from llamapatch.config import Settings, load_settings
from llamapatch.git import Git
from llamapatch.series.load import load_series
from llamapatch.series.scaffold import start_project
from llamapatch.series.select import select
from llamapatch.tree.check import check
from llamapatch.tree.exchange.export import export, write_export
from llamapatch.tree.exchange.importing import Wishes, import_patches
from llamapatch.tree.exchange.sources import read_sources
from llamapatch.tree.relock import relock
from llamapatch.upstream.fetch import ensure_upstream
from tests.project import GIT_ENV, git
from tests.tree.exchange.conftest import tree_on_disk
from tests.tree.test_real import cpu_seconds, write_synthetic_series

pytestmark = pytest.mark.upstream


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The packaged series, used from an empty folder."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return load_settings()


def checkout(folder: Path, objects: Path, tree: str) -> Path:
    """The pinned tree in a repository of its own, byte for byte."""
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / ".git/objects/info/alternates").write_text(f"{objects}\n")
    (folder / ".git/info").mkdir(exist_ok=True)
    (folder / ".git/info/attributes").write_text("* -text\n")
    git(folder, "reset", "-q", "--hard", git(folder, "commit-tree", tree, "-m", "base"))
    return folder


def test_out_and_in_again(real: Settings, tmp_path: Path, quilt: str) -> None:
    """git am and quilt make the trees of the lock; an empty series takes the mailbox and has the same lock."""
    series = load_series(real)
    lock = series.lock
    assert lock is not None
    wanted = [patch.tree for patch in lock.patches]
    upstream = ensure_upstream(real, series.pin)
    write_export(export(real, series, select(series, []), "mbox"), tmp_path / "all.mbox")
    write_export(export(real, series, select(series, []), "quilt"), tmp_path / "queue")
    tree = checkout(tmp_path / "tree", upstream.git_dir / "objects", series.pin.tree)
    git(tree, "am", "-q", str(tmp_path / "all.mbox"))
    assert git(tree, "log", "--reverse", "--format=%T", f"HEAD~{len(wanted)}..").split() == wanted
    git(tree, "reset", "-q", "--hard", f"HEAD~{len(wanted)}")
    env = GIT_ENV | {"QUILT_PATCHES": str(tmp_path / "queue"), "QUILT_PC": str(tmp_path / "pc"), "HOME": str(tmp_path)}
    subprocess.run([quilt, "push", "-a", "-q"], cwd=tree, env=env, check=True, capture_output=True)
    assert tree_on_disk(tree) == wanted[-1]

    started = start_project(real, series, tmp_path / "mine", empty=True).folder
    mine = load_settings(started)
    relock(mine, load_series(mine))
    empty = load_series(mine)
    found = import_patches(mine, empty, read_sources(empty, [str(tmp_path / "all.mbox")]), Wishes())
    assert [(row.status, row.taken) for row in found.rows] == [("exact", True)] * len(wanted)
    again = load_series(mine)
    assert again.lock is not None
    assert {p.id: p.tree for p in again.lock.patches} == {p.id: p.tree for p in lock.patches}
    assert {p.id: (p.diff, p.meta, p.overlay) for p in again.lock.patches} == {
        p.id: (p.diff, p.meta, p.overlay) for p in lock.patches
    }
    check(mine, again)


def test_check_of_fifty_patches_in_two_cpu_seconds(real: Settings, tmp_path: Path) -> None:
    """Measured 0.6 s with the start of Python; here without it."""
    pin = load_series(real).pin
    upstream = ensure_upstream(real, pin)
    root = tmp_path / "fifty"
    root.mkdir()
    write_synthetic_series(root, pin.tree, upstream.git_dir, 50)
    settings = Settings(root=root, home=root, cache=real.cache, upstream=None, jobs=1)
    relock(settings, load_series(settings))
    before = cpu_seconds()
    assert check(settings, load_series(settings)).patches == 50
    spent = cpu_seconds() - before
    assert spent < 2.0, f"{spent:.2f} CPU seconds"


def test_a_fork_of_fifty_commits(real: Settings, tmp_path: Path) -> None:
    """A branch of fifty commits on the real tree, imported in one command; the result is the branch's tree."""
    series = load_series(real)
    upstream = ensure_upstream(real, series.pin)
    tree = checkout(tmp_path / "fork", upstream.git_dir / "objects", series.pin.tree)
    files = [f for f in Git(upstream.git_dir).tree_files(series.pin.tree, "src", "common") if f.path.endswith(".cpp")]
    for number in range(50):
        path = tree / files[number % 20].path
        path.write_text(path.read_text() + f"// commit {number}\n")
        git(tree, "commit", "-q", "-a", "-m", f"Commit {number}")
    started = start_project(real, series, tmp_path / "mine", empty=True).folder
    mine = load_settings(started)
    relock(mine, load_series(mine))
    empty = load_series(mine)
    before = cpu_seconds()
    fork = read_sources(empty, [], repository=str(tree))
    found = import_patches(mine, empty, fork, Wishes(phase="phase1"))
    spent = cpu_seconds() - before
    assert len(found.ids) == 50
    assert found.note == "the patches together make exactly what the branch as a whole makes"
    lock = load_series(mine).lock
    assert lock is not None
    assert lock.patches[-1].tree == git(tree, "rev-parse", "HEAD^{tree}")
    assert load_series(mine).get("commit-20").meta.requires == ["commit-0"]
    assert spent < 30, f"{spent:.2f} CPU seconds"
