"""A series with changes that are not written yet: read, linted and locked as if they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llamapatch.errors import UsageProblem
from llamapatch.series.load import load_series
from llamapatch.series.lock import format_lock
from llamapatch.series.order import remove_id
from llamapatch.tree.relock import generated_files
from llamapatch.tree.store import open_store
from tests.project import Project


def text(project: Project) -> str:
    return (project.root / "patches/series.toml").read_text()


def test_a_patch_that_goes(sampler: Project) -> None:
    """Dropping a patch in memory gives the lock that dropping it on disk gives; the disk keeps what it has."""
    settings = sampler.settings()
    folder = "patches/phase2/warps-more"
    changes: dict[str, bytes | None] = {
        f"{folder}/{name}": None for name in ("patch.toml", "change.patch", "README.md")
    }
    changes["patches/series.toml"] = remove_id(text(sampler), "warps-more").encode()
    before = {p: p.read_bytes() for p in (sampler.root / "patches").rglob("*") if p.is_file()}
    series = load_series(settings, changes)
    assert series.ids == ("foundation", "sampler", "warps")
    made = generated_files(open_store(settings, series), series)
    assert {p: p.read_bytes() for p in (sampler.root / "patches").rglob("*") if p.is_file()} == before
    shutil.rmtree(sampler.root / folder)
    (sampler.root / "patches/series.toml").write_bytes(changes["patches/series.toml"] or b"")
    assert sampler.run("lock").code == 0
    assert made["patches/series.lock"] == (sampler.root / "patches/series.lock").read_bytes()
    assert format_lock(sampler.series().lock).encode() == made["patches/series.lock"]  # type: ignore[arg-type]


def test_lint_sees_the_change(sampler: Project) -> None:
    settings = sampler.settings()
    with pytest.raises(UsageProblem, match=r"warps-more: the folder is not listed under phase `phase2`"):
        load_series(settings, {"patches/series.toml": remove_id(text(sampler), "warps-more").encode()})
    with pytest.raises(UsageProblem, match=r"sampler: README.md is missing"):
        load_series(settings, {"patches/phase1/sampler/README.md": None})
    with pytest.raises(UsageProblem, match=r"overlay source `sampler/sampler.cpp` is no file below"):
        load_series(settings, {"ggml_kernels/sampler/sampler.cpp": None})
    with pytest.raises(UsageProblem, match=r"phase1/extra: the folder is not listed under phase `phase1`"):
        load_series(settings, {"patches/phase1/extra/patch.toml": b""})


def test_a_kernel_that_comes(sampler: Project) -> None:
    changed = load_series(sampler.settings(), {"ggml_kernels/sampler/sampler.cpp": b"new\n"})
    assert changed.get("sampler").overlay == {"lp/sampler.cpp": b"new\n"}


def test_a_link_that_leads_out_is_no_source(sampler: Project, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    source = sampler.root / "ggml_kernels/sampler/sampler.cpp"
    source.unlink()
    source.symlink_to(tmp_path / "secret")
    with pytest.raises(UsageProblem, match="is no file below"):
        sampler.series()
