"""Writing the series: all or nothing, on what was read, and never outside its folders."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from llamapatch.errors import DirtyError, UsageProblem
from llamapatch.series.load import load_series
from llamapatch.tree import write
from llamapatch.tree.journal import read_journal
from llamapatch.tree.store import existing_store
from llamapatch.tree.write import write_series
from tests.project import Project, git


def snapshot(project: Project) -> dict[str, tuple[bytes, int]]:
    """Every file of the series, with its mode."""
    return {
        p.relative_to(project.root).as_posix(): (p.read_bytes(), p.stat().st_mode & 0o777)
        for root in ("patches", "ggml_kernels")
        for p in sorted((project.root / root).rglob("*"))
        if p.is_file()
    }


def test_files_are_written_added_and_removed(sampler: Project) -> None:
    before = snapshot(sampler)
    (sampler.root / "ggml_kernels/sampler/sampler.cpp").chmod(0o755)
    done = write_series(
        sampler.settings(),
        {
            "ggml_kernels/sampler/sampler.cpp": b"new\n",
            "ggml_kernels/deep/er/\u00e4 b.h": b"",
            "patches/phase2/warps-more/README.md": None,
            "patches/phase2/warps-more/patch.toml": None,
            "patches/phase2/warps-more/change.patch": None,
            "patches/series.toml": before["patches/series.toml"][0],
        },
        "test of writing",
    )
    assert done is not None
    expected = {n: v for n, v in before.items() if "warps-more" not in n}
    expected["ggml_kernels/sampler/sampler.cpp"] = (b"new\n", 0o755)
    expected["ggml_kernels/deep/er/\u00e4 b.h"] = (b"", 0o644)
    assert snapshot(sampler) == expected
    assert not (sampler.root / "patches/phase2/warps-more").exists()
    assert done.entry.reason == "test of writing"
    assert sorted(done.entry.files) == [
        "ggml_kernels/deep/er/\u00e4 b.h",
        "ggml_kernels/sampler/sampler.cpp",
        "patches/phase2/warps-more/README.md",
        "patches/phase2/warps-more/change.patch",
        "patches/phase2/warps-more/patch.toml",
    ]
    git(sampler.store, "fsck", "--strict", "--no-dangling")


def test_nothing_to_do_is_no_entry(sampler: Project) -> None:
    settings = sampler.settings()
    data = (sampler.root / "patches/series.toml").read_bytes()
    entries = read_journal(existing_store(settings).git).entries  # type: ignore[union-attr]
    assert write_series(settings, {"patches/series.toml": data, "patches/none": None}, "test") is None
    assert read_journal(existing_store(settings).git).entries == entries  # type: ignore[union-attr]


def test_what_was_read_must_still_hold(sampler: Project) -> None:
    settings = sampler.settings()
    series = load_series(settings)
    assert series.read["patches/phase1/sampler/patch.toml"]
    assert series.read["ggml_kernels/sampler/sampler.cpp"] == b"void sample() {}\n"
    (sampler.root / "ggml_kernels/sampler/sampler.cpp").write_text("edited meanwhile\n")
    before = snapshot(sampler)
    with pytest.raises(DirtyError) as caught:
        write_series(settings, {"patches/series.lock": b"x"}, "test", read=series.read)
    assert caught.value.message == (
        "ggml_kernels/sampler/sampler.cpp changed while the command was at work; nothing was written."
    )
    assert snapshot(sampler) == before


@pytest.mark.parametrize(
    "name",
    [
        "llamapatch.toml",
        "patches",
        "patches/../x",
        "/etc/x",
        "../patches/x",
        "patches//x",
        "patches/./x",
        "patches/a\0b",
    ],
)
def test_paths_that_lead_out(sampler: Project, name: str) -> None:
    before = snapshot(sampler)
    with pytest.raises(UsageProblem, match="is no path below patches or ggml_kernels"):
        write_series(sampler.settings(), {"patches/fine": b"1", name: b"x"}, "test")
    assert snapshot(sampler) == before


def test_links_and_folders_in_the_way(sampler: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("theirs")
    kernels = sampler.root / "ggml_kernels"
    (kernels / "out").symlink_to(outside)
    (kernels / "link.h").symlink_to("sampler/sampler.cpp")
    (kernels / "inner").symlink_to("sampler")
    (kernels / "plain").write_text("")
    before = snapshot(sampler)
    for name, words in (
        ("ggml_kernels/out/file", "is a symbolic link"),
        ("ggml_kernels/link.h", "is a symbolic link"),
        ("ggml_kernels/plain/x", "is a file; nothing can lie below it"),
        ("ggml_kernels/sampler", "is no regular file"),
    ):
        with pytest.raises(UsageProblem, match=words):
            write_series(sampler.settings(), {"patches/fine": b"1", name: b"x"}, "test")
        assert snapshot(sampler) == before
    assert (outside / "file").read_text() == "theirs"
    assert write_series(sampler.settings(), {"ggml_kernels/inner/x.h": b"1"}, "test")
    assert (kernels / "sampler/x.h").read_bytes() == b"1"


def test_a_packaged_series_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamapatch.config import load_settings

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageProblem, match="is read-only here"):
        write_series(load_settings(), {"patches/x": b"1"}, "test")
    assert not (tmp_path / "elsewhere/.llamapatch/store.git").exists()


@pytest.mark.parametrize("step", ["write_atomically", "_write_aside", "_carry_out"])
def test_a_full_disk_changes_nothing_or_is_made_up_for(
    sampler: Project, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """ENOSPC injected before and after the decision."""
    before = snapshot(sampler)
    files = {"ggml_kernels/new/a.h": b"1", "patches/series.lock": b"2", "patches/phase2/warps-more/README.md": None}

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "here")

    with monkeypatch.context() as m:
        m.setattr(write, step, full)
        with pytest.raises(OSError, match="No space left"):
            write_series(sampler.settings(), files, "test")
    if step == "_carry_out":
        assert write.is_writing(sampler.settings())  # decided: the next verb finishes it
        write.recover_project(sampler.settings())
        assert (sampler.root / "ggml_kernels/new/a.h").read_bytes() == b"1"
        assert not (sampler.root / "patches/phase2/warps-more/README.md").exists()
    else:
        assert snapshot(sampler) == before
        assert not (sampler.root / "ggml_kernels/new").exists()
    assert not write.is_writing(sampler.settings())


def test_an_edit_between_a_kill_and_its_recovery_is_kept(sampler: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*args: Any) -> int:
        raise OSError("killed")

    with monkeypatch.context() as m:
        m.setattr(write, "_carry_out", dead)
        with pytest.raises(OSError, match="killed"):
            write_series(sampler.settings(), {"ggml_kernels/sampler/sampler.cpp": b"new\n"}, "refresh sampler")
    (sampler.root / "ggml_kernels/sampler/sampler.cpp").write_text("mine\n")
    result = sampler.run("list")
    assert result.code == 5
    assert "`refresh sampler` was interrupted, and cannot be finished: ggml_kernels/sampler/sampler.cpp" in result.err
    (sampler.root / "ggml_kernels/sampler/sampler.cpp").unlink()
    assert sampler.run("list").code == 0
    assert (sampler.root / "ggml_kernels/sampler/sampler.cpp").read_bytes() == b"new\n"


def test_the_journal_is_bounded(sampler: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamapatch.tree.journal.KEPT", 3)
    for n in range(5):
        write_series(sampler.settings(), {"ggml_kernels/n": str(n).encode()}, f"test {n}")
    store = existing_store(sampler.settings())
    assert store is not None
    assert [e.reason for e in read_journal(store.git).entries] == ["test 2", "test 3", "test 4"]
    tree = git(sampler.store, "ls-tree", "-r", "--name-only", "refs/llamapatch/journal").splitlines()
    assert len(tree) == 1 + 4  # the text, and the contents 1, 2, 3, 4
    assert json.loads(git(sampler.store, "show", "refs/llamapatch/journal:journal.json"))["entries"][0]["number"] >= 3
