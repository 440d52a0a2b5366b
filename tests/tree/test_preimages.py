"""The bundle of pre-images: git reads it, its bytes never change, and the series can be rebuilt from it alone."""

from __future__ import annotations

import hashlib
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamapatch.errors import MismatchError
from llamapatch.tree.chain import build_chain
from llamapatch.tree.preimages import _stored, links_from, make_bundle, read_bundle
from llamapatch.tree.store import existing_store
from tests.project import GIT_ENV, UPSTREAM_FILES, Project, git

SHA256 = "454c5c504d89a5216b9c2d16e14ba24802e697dcfd0d3f667dae0657abb8421e"
TOUCHED = ["CMakeLists.txt", "src/mmvq.cpp", "src/old.cpp", "src/sampling.cpp"]


def bundle(project: Project) -> Path:
    return project.root / "patches/preimages.bundle"


def test_git_reads_it(sampler: Project, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "r.git")
    git(tmp_path / "r.git", "bundle", "verify", "-q", str(bundle(sampler)))
    git(tmp_path / "r.git", "fetch", "-q", str(bundle(sampler)), "refs/llamapatch/preimages:refs/heads/it")
    git(tmp_path / "r.git", "fsck", "--strict")
    assert git(tmp_path / "r.git", "ls-tree", "-r", "--name-only", "it").splitlines() == TOUCHED
    for path in TOUCHED:
        done = subprocess.run(
            ["git", "-C", tmp_path / "r.git", "show", f"it:{path}"], env=GIT_ENV, capture_output=True, check=True
        )
        assert done.stdout == UPSTREAM_FILES[path].encode()
    assert git(tmp_path / "r.git", "log", "--format=%B", "it") == (
        f"Pre-images of llama.cpp\n\nLlamapatch-Upstream: {sampler.base_tree}"
    )


def test_its_bytes_are_a_function_of_the_contents(sampler: Project) -> None:
    data = bundle(sampler).read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256
    store = existing_store(sampler.settings())
    assert store is not None
    assert make_bundle(build_chain(store.git, sampler.series())) == data
    bundle(sampler).unlink()
    assert sampler.run("lock").code == 0
    assert bundle(sampler).read_bytes() == data


def test_the_series_is_rebuilt_from_it_alone(sampler: Project) -> None:
    """Without a repository: the same files before and after each patch as on the whole tree."""
    series = sampler.series()
    store = existing_store(sampler.settings())
    assert store is not None
    whole = build_chain(store.git, series)
    links, contents = links_from(read_bundle(bundle(sampler).read_bytes()), series)
    assert [(link.patch.id, link.files) for link in links] == [(link.patch.id, link.files) for link in whole.links]
    assert all(contents[oid] == data for oid, data in whole.contents.items())


def test_every_flipped_byte_is_noticed(sampler: Project) -> None:
    data = bundle(sampler).read_bytes()
    for at in range(0, len(data), 7):
        with pytest.raises(MismatchError):
            read_bundle(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    for cut in (0, 10, 100, len(data) - 1):
        with pytest.raises(MismatchError):
            read_bundle(data[:cut])


def test_a_bundle_of_other_files(sampler: Project) -> None:
    """Whole and well-formed, but the lock knows better."""
    series = sampler.series()
    images = read_bundle(bundle(sampler).read_bytes())
    entry = images.state.get("src/sampling.cpp")
    assert entry is not None
    images.state.remove("src/sampling.cpp")
    with pytest.raises(MismatchError) as caught:
        links_from(images, series)
    assert str(caught.value) == (
        "preimages.bundle: src/sampling.cpp, which `sampler` changes, is not in it; series.lock says "
        f"{entry.oid}. Run `llamapatch lock` to write it anew, or restore the file."
    )


@pytest.mark.parametrize("words", [("lock", "--check"), ("verify",)])
def test_missing_or_changed_is_exit_4(sampler: Project, words: tuple[str, ...]) -> None:
    assert sampler.run(*words).code == 0
    data = bundle(sampler).read_bytes()
    bundle(sampler).write_bytes(data + b"x")
    assert sampler.run(*words).code == 4
    bundle(sampler).unlink()
    result = sampler.run(*words)
    assert result.code == 4
    assert f"{bundle(sampler)} is missing or" in result.err
    assert sampler.run("lock").out.startswith(f"{sampler.root}/patches/series.lock written (patches/preimages.bundle)")
    assert bundle(sampler).read_bytes() == data
    assert sampler.run(*words).code == 0


@given(st.binary(max_size=200) | st.integers(65530, 131080).map(lambda n: b"z" * n))
def test_stored_streams_are_zlib_streams(data: bytes) -> None:
    assert zlib.decompress(_stored(data)) == data
