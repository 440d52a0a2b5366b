"""The lock file: canonical, complete, and sensitive to everything that counts but to nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from llamapatch.series.lock import chain_value, format_lock, lock_is_current, meta_hash, series_chain
from llamapatch.series.schema import schemas
from tests.project import Project


def test_the_file_is_canonical_and_literal(sampler: Project) -> None:
    text = (sampler.root / "patches/series.lock").read_text()
    series = sampler.series()
    assert series.lock is not None
    assert format_lock(series.lock) == text
    assert json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False) + "\n" == text
    facts = json.loads(text)
    second = facts["patches"][1]
    assert second["tree"] == sampler.trees["sampler"]
    assert second["commit"] == "a95f43097f40a4ce36332e4a3931e0b038022386"
    assert second["hunks"] == [{"function": "", "line": 11, "path": "src/sampling.cpp"}]
    assert [f["path"] for f in second["files"]] == ["lp/sampler.cpp", "src/sampling.cpp"]
    assert second["files"][0]["pre"] == "0" * 40
    assert second["overlay"] == {"lp/sampler.cpp": hashlib.sha256(b"void sample() {}\n").hexdigest()}
    # Nothing of this machine or this moment is in it.
    assert str(sampler.root) not in text


def test_the_chain_by_hand(sampler: Project) -> None:
    """sha256 over lines: previous value, diff, overlay files in order of path, metadata."""
    series = sampler.series()
    assert series.lock is not None
    value = sampler.base_tree
    for locked in series.lock.patches:
        lines = [value, f"diff {locked.diff}"]
        lines += [f"overlay {path} {oid}" for path, oid in sorted(locked.overlay.items())]
        lines += [f"meta {locked.meta}"]
        value = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        assert value == locked.chain
    assert series_chain(series) == value
    assert lock_is_current(series)
    assert chain_value("0", "1", {}, "2") != chain_value("0", "1", {"a": "1"}, "2")


def test_what_counts(sampler: Project) -> None:
    meta = sampler.folder("warps") / "patch.toml"
    before = sampler.series()
    text = meta.read_text()
    meta.write_text("# a comment\n" + text.replace("requires", "paper = ''\nrequires"))
    assert meta_hash(sampler.series().get("warps").meta) == meta_hash(before.get("warps").meta)
    assert lock_is_current(sampler.series())
    assert sampler.run("verify").code == 0
    meta.write_text(text.replace("Title of warps", "Another title"))
    assert not lock_is_current(sampler.series())


def test_lock_names_what_changed(sampler: Project) -> None:
    path = sampler.root / "patches/series.lock"
    chain = series_chain(sampler.series())
    assert sampler.run("lock").out == f"{path} is current, chain {chain}\n"
    kernel = sampler.root / "ggml_kernels/sampler/sampler.cpp"
    kernel.write_text("void sample() { faster(); }\n")
    before = path.read_bytes()
    new = series_chain(sampler.series())
    result = sampler.run("lock", "--check")
    assert (result.code, result.out) == (4, "")
    assert result.err == (
        f"error: {path} is out of date (sampler): it records chain {chain}, the series makes {new}. "
        "Run `llamapatch lock` and commit the file.\n"
    )
    assert sampler.run("lock", "--dry-run").out == f"{path} would change (sampler), chain {new}\n"
    assert path.read_bytes() == before
    assert sampler.run("lock").out == f"{path} written (sampler), chain {new}\n"
    assert path.read_bytes() != before
    assert sampler.run("lock", "--check").code == 0


def test_a_diff_that_git_would_write_differently(sampler: Project) -> None:
    """The same change with two lines of context less: it applies, but it is not the one spelling."""
    path = sampler.folder("warps-more") / "change.patch"
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line.startswith("@@"))
    assert lines[at] == "@@ -16,6 +16,6 @@\n"
    path.write_text("".join([*lines[:at], "@@ -17,5 +17,5 @@\n", *lines[at + 2 :]]))
    result = sampler.run("lock")
    assert result.code == 2
    assert f"{path}, line {at + 1}: this change has another canonical form." in result.err


def test_published_schemas_are_current() -> None:
    """Made with `python -m llamapatch.series.schema docs/schemas`."""
    folder = Path(__file__).parents[2] / "docs" / "schemas"
    for name, text in schemas().items():
        assert (folder / name).read_text() == text, name
