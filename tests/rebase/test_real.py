"""The series on other real trees, and the price of a dry run on a tree of upstream's size."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from llamapatch.config import Settings, load_settings
from llamapatch.git import Git
from llamapatch.series.load import load_series
from llamapatch.tree.align import indent
from llamapatch.tree.diff import parse_diff, split_lines
from llamapatch.tree.merge import merge
from llamapatch.tree.rebase import Attempt, rebase, try_onto
from llamapatch.tree.relock import check_lock, relock
from llamapatch.tree.scope import function_at, opener_name
from llamapatch.tree.thread import Status
from llamapatch.upstream.fetch import ensure_upstream
from llamapatch.upstream.onto import find_target
from tests.project import GIT_ENV, git
from tests.rebase.real import DOC, TARGETS, document, trip
from tests.tree.test_real import cpu_seconds, write_synthetic_series

pytestmark = pytest.mark.upstream


@pytest.mark.slow
def test_there_and_back(tmp_path: Path) -> None:
    """docs/rebases.md says what happens, patch by patch."""
    trips = [trip(tmp_path / str(n), *target) for n, target in enumerate(TARGETS)]
    for one in trips:
        assert one.same_bytes, one.spec
        assert {o.status for o in one.there.outcomes} <= {Status.EXACT, Status.MERGED}
        assert merged_as_git_does(one.there, tmp_path / "merge") > 0
        settings = load_settings(tmp_path / str(trips.index(one)))
        check_lock(settings, load_series(settings))
    assert DOC.read_text() == document(trips, load_series(load_settings(tmp_path)).pin.version)


def merged_as_git_does(attempt: Attempt, scratch: Path) -> int:
    """How many files were merged; every one as `git merge-file` merges it."""
    scratch.mkdir(exist_ok=True)
    count = 0
    state = attempt.start.copy()
    for change, outcome in zip(attempt.changes, attempt.outcomes, strict=True):
        for file, result in zip(change.files, outcome.files, strict=True):
            now = state.get(file.path)
            if result.merge is not None:
                assert file.pre and file.post and now and result.entry
                for name, entry in (("now", now), ("pre", file.pre), ("post", file.post)):
                    (scratch / name).write_bytes(attempt.blobs.get(entry.oid))
                words = ["git", "merge-file", "-p", "-q", "now", "pre", "post"]
                done = subprocess.run(words, cwd=scratch, env=GIT_ENV, capture_output=True, check=True)
                assert done.stdout == attempt.blobs.get(result.entry.oid), (outcome.id, file.path)
                count += 1
            if result.entry is not None:
                state.set(result.to, result.entry)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("spec", [spec for spec, _ in TARGETS])
def test_one_line_at_random_places(spec: str, tmp_path: Path) -> None:
    """Files that really changed between two releases: no line in another function, nothing that git would not make of
    it, and few stops where git merges."""
    settings = load_settings(tmp_path)
    pin = load_series(settings).pin
    old = Git(ensure_upstream(settings, pin).git_dir)
    target = find_target(settings, pin, spec)
    before, now = ({f.path: f.blob for f in old.tree_files(tree) if f.size > 2000} for tree in (pin.tree, target.tree))
    changed = [p for p, blob in before.items() if now.get(p, blob) != blob and p.endswith((".c", ".cpp", ".cu", ".h"))]
    blobs = old.read_blobs([side[p] for p in changed for side in (before, now)])
    rng = random.Random(20261125)
    stops = merged = 0
    for number in range(150):
        path = rng.choice(changed)
        pre, there = blobs[before[path]], blobs[now[path]]
        lines = split_lines(pre)
        at = rng.choice(
            [i for i, line in enumerate(lines) if line.startswith(b"    ") and line.endswith(b";\n")] or [0]
        )
        line = b" " * indent(lines[at]) + b"lp_marker(%d);\n" % number
        post = b"".join([*lines[:at], line, *lines[at:]])
        for name, data in (("now", there), ("pre", pre), ("post", post)):
            (tmp_path / name).write_bytes(data)
        words = ["git", "merge-file", "-p", "-q", "now", "pre", "post"]
        git_says = subprocess.run(words, cwd=tmp_path, env=GIT_ENV, capture_output=True)
        found = merge(pre, post, there)
        if found.passes:
            result = split_lines(found.data)
            functions = [function_at(text, where - 1) for text, where in ((lines, at), (result, result.index(line)))]
            assert opener_name(functions[0].encode()) == opener_name(functions[1].encode()), (path, at)
            assert git_says.returncode != 0 or git_says.stdout == found.data, (path, at)
        merged += git_says.returncode == 0
        stops += git_says.returncode == 0 and not found.passes
    assert merged > 100
    assert stops <= 0.05 * merged


@pytest.fixture
def fifty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, Path]:
    """Fifty synthetic patches on the pin, and a repository where every file that they touch has changed."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    real = load_settings()
    pin = load_series(real).pin
    upstream = ensure_upstream(real, pin)
    root = tmp_path / "fifty"
    root.mkdir()
    write_synthetic_series(root, pin.tree, upstream.git_dir, 50)
    settings = Settings(root=root, home=root, cache=real.cache, upstream=upstream.git_dir, jobs=1)
    relock(settings, load_series(settings))
    drifted = tmp_path / "drifted.git"
    git(tmp_path, "init", "-q", "--bare", str(drifted))
    (drifted / "objects/info/alternates").write_text(f"{upstream.git_dir / 'objects'}\n")
    touched = [f.path for p in load_series(settings).patches for f in parse_diff(p.diff)]
    facade = Git(drifted)
    blobs = {f.path: f for f in Git(upstream.git_dir).tree_files(pin.tree) if f.path in touched}
    texts = Git(upstream.git_dir).read_blobs([f.blob for f in blobs.values()])
    index = tmp_path / "index"
    facade.run("read-tree", pin.tree, index=index)
    lines = ""
    for path, file in blobs.items():
        text = texts[file.blob].split(b"\n")
        text[3:3] = [b"// upstream says", b"// more here"]
        text[60:62] = []
        text[-3:-3] = [b"// and at the end"]
        blob = facade.write_blob(b"\n".join(text))
        lines += f"{file.mode} {blob}\t{path}\n"
    facade.run("update-index", "--index-info", input=lines.encode(), index=index)
    tree = facade.run("write-tree", index=index)
    commit = git(drifted, "commit-tree", tree, "-m", "drifted")
    git(drifted, "update-ref", "HEAD", commit)
    return settings, drifted


def test_a_dry_run_of_fifty_patches_in_ten_cpu_seconds(fifty: tuple[Settings, Path]) -> None:
    """Onto a tree of 3,600 files in which every touched file has changed; the copy into the cache is not counted."""
    settings, drifted = fifty
    series = load_series(settings)
    assert len(Git(drifted).tree_files("HEAD")) > 3500
    target = find_target(settings, series.pin, str(drifted), version="drifted")
    before = cpu_seconds()
    attempt = try_onto(settings, load_series(settings), target)
    spent = cpu_seconds() - before
    assert [o.status for o in attempt.outcomes] == [Status.MERGED] * 50
    assert spent < 10.0, f"{spent:.2f} CPU seconds"
    before = cpu_seconds()
    done = rebase(settings, load_series(settings), target)
    assert done.done
    assert cpu_seconds() - before < 10.0
    assert len([f for f in done.files if f.endswith("change.patch")]) == 50
