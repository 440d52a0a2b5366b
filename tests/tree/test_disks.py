"""Full disks and read-only folders: a verb fails with exit code 1, says why, and has changed nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.project import Project
from tests.tree.test_edit import replace
from tests.tree.test_write import snapshot

VERBS = {
    "refresh": ["refresh"],
    "undo": ["undo"],
    "done": ["edit", "--done"],
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB; injected errors (`test_write`) stand in where it cannot be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder]).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Take all space but `leave` bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(b"x" * 65536)
        except OSError:
            pass
        out.truncate(max(0, filler.stat().st_size - leave))
    return filler


@pytest.mark.parametrize("leave", [0, 4096, 16384, 40960])
@pytest.mark.parametrize("verb", list(VERBS))
def test_a_full_disk(
    small_disk: Path, toy_upstream: Path, capsys: pytest.CaptureFixture[str], verb: str, leave: int
) -> None:
    """With no space at all, and with so little that it runs out half-way."""
    (small_disk / "project").mkdir()
    project = Project(small_disk / "project", toy_upstream, capsys)
    project.fill()
    assert project.run("apply").code == 0
    assert project.run("edit", "sampler").code == 0
    if verb == "refresh":
        replace(project.patched / "lp/sampler.cpp", "{}", "{ }")
    before = snapshot(project), project.applied()
    filler = fill(small_disk, leave)
    result = project.run(*VERBS[verb])
    assert result.code in ((1,) if leave == 0 else (0, 1)), result
    if result.code == 1:
        assert "No space left on device" in result.err or "no space left on the disk" in result.err
    filler.unlink()
    found = snapshot(project), project.applied()
    assert project.run("list").code == 0  # which finishes what was decided
    settled = snapshot(project), project.applied()
    if found != before or settled != before:
        assert result.code == 0 or project.run("verify").code == 0
    else:
        assert project.run(*VERBS[verb]).code == 0
    assert project.run("verify").code == 0
    assert (snapshot(project), project.applied()) != before


def test_a_read_only_folder(sampler: Project, make_project: Callable[[str], Project]) -> None:
    """For an ordinary user; root gives up its right to write everywhere first."""
    assert sampler.run("apply").code == 0
    assert sampler.run("edit", "sampler").code == 0
    replace(sampler.patched / "lp/sampler.cpp", "{}", "{ }")
    replace(sampler.patched / "src/sampling.cpp", "// line 3\n", "// line three\n")
    before = snapshot(sampler), sampler.applied(), sampler.disk_tree(), sampler.run("log").out
    words = [sys.executable, "-m", "llamapatch", "refresh"]
    if os.geteuid() == 0:
        assert shutil.which("setpriv"), "setpriv (util-linux) is missing"
        words = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", *words]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for folder in (sampler.folder("sampler"), sampler.root / "ggml_kernels/sampler", sampler.root / "patches"):
        folder.chmod(0o555)
        try:
            done = subprocess.run(words, cwd=sampler.root, env=env, capture_output=True, text=True)
        finally:
            folder.chmod(0o755)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: Permission denied: {folder}/.")
        assert (snapshot(sampler), sampler.applied(), sampler.disk_tree(), sampler.run("log").out) == before
        assert not [p for p in sampler.root.rglob(".*.llamapatch")]
    assert sampler.run("refresh").code == 0
    assert sampler.run("verify").code == 0
