"""The packaged series on the real llama.cpp, and the speed that the design promises."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from llamapatch.config import Settings, load_settings, packaged_home
from llamapatch.git import Git
from llamapatch.series.load import load_series
from llamapatch.series.select import select
from llamapatch.tree.change import apply, plan_removal, rollback
from llamapatch.tree.relock import check_lock, relock
from llamapatch.tree.verify import verify
from llamapatch.upstream.fetch import ensure_upstream
from tests.project import GIT_ENV, git

pytestmark = pytest.mark.upstream


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An empty folder with the packaged series."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    settings = load_settings()
    assert settings.home == packaged_home()
    return settings


def test_the_packaged_series(real: Settings) -> None:
    series = load_series(real)
    found = check_lock(real, series)
    assert found.current
    outcome = apply(real, series, select(series, []))
    assert outcome.how == "exact"
    assert series.lock is not None
    assert outcome.tree == series.lock.patches[-1].tree
    assert verify(real, series).worktrees == (("patched", outcome.tree),)
    assert not (outcome.path / ".git").exists()
    back = rollback(real, series, plan_removal(real, series, []))
    assert back.tree == series.pin.tree
    assert verify(real, series).worktrees == (("patched", series.pin.tree),)


def test_git_itself_makes_the_same_trees(real: Settings, tmp_path: Path) -> None:
    """The independent witness: `git apply --cached` and `git update-index` from the base to every prefix."""
    series = load_series(real)
    assert series.lock is not None
    source = ensure_upstream(real, series.pin).git_dir
    env = GIT_ENV | {"GIT_DIR": str(tmp_path / "w.git"), "GIT_INDEX_FILE": str(tmp_path / "index")}
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "w.git"], env=GIT_ENV, check=True)
    (tmp_path / "w.git/objects/info/alternates").write_text(f"{source / 'objects'}\n")

    def run(*words: str, data: bytes = b"") -> str:
        done = subprocess.run(["git", *words], env=env, input=data, check=True, capture_output=True, cwd=tmp_path)
        return done.stdout.decode().strip()

    run("read-tree", series.pin.tree)
    for patch, locked in zip(series.patches, series.lock.patches, strict=True):
        if patch.diff:
            run("apply", "--cached", "-", data=patch.diff)
        for path, content in patch.overlay.items():
            blob = run("hash-object", "-w", "--stdin", "--no-filters", data=content)
            run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
        assert run("write-tree") == locked.tree, patch.id


def write_synthetic_series(root: Path, pin_tree: str, git_dir: Path, count: int) -> None:
    """`count` patches on the real tree: two files edited and one placed by each."""
    upstream = Git(git_dir)
    files = [f for f in upstream.tree_files(pin_tree) if f.path.endswith((".cpp", ".c", ".h", ".cu")) and f.size > 3000]
    picked = files[::5][: 2 * count]
    blobs = upstream.read_blobs([f.blob for f in picked])
    ids = [f"synthetic-{i:02d}" for i in range(count)]
    (root / "ggml_kernels").mkdir()
    for i, patch_id in enumerate(ids):
        folder = root / "patches/phase1" / patch_id
        folder.mkdir(parents=True)
        diff = b""
        for file in sorted(picked[2 * i : 2 * i + 2], key=lambda f: f.path):
            lines = blobs[file.blob].split(b"\n")
            name = file.path.encode()
            diff += b"diff --git a/%b b/%b\n--- a/%b\n+++ b/%b\n@@ -18,6 +18,7 @@\n" % (name, name, name, name)
            diff += b"".join(b" " + line + b"\n" for line in lines[17:20])
            diff += b"+// " + patch_id.encode() + b"\n"
            diff += b"".join(b" " + line + b"\n" for line in lines[20:23])
        (folder / "change.patch").write_bytes(diff)
        (folder / "README.md").write_text("why\n")
        (root / f"ggml_kernels/{patch_id}.h").write_text(f"// {patch_id}\n")
        (folder / "patch.toml").write_text(
            f'schema = 1\nid = "{patch_id}"\ntitle = "t"\nphase = "phase1"\nauthors = ["A <a@b>"]\ndate = 2026-01-02\n'
            f'[upstream]\nstatus = "never"\nreason = "x"\n[effect]\nclass = "identical"\n'
            f'[[overlay]]\nfrom = "{patch_id}.h"\nto = "ggml/src/ggml-cpu/lp/{patch_id}.h"\n'
        )
    (root / "patches/series.toml").write_text(
        f'schema = 1\n[upstream]\nversion = "v0.5.0"\nurl = "x"\ntree = "{pin_tree}"\n'
        '[[upstream.source]]\nkind = "git"\nurl = "x"\nref = "x"\n'
        '[[phase]]\nid = "phase1"\ntitle = "t"\npatches = [\n' + "".join(f'    "{i}",\n' for i in ids) + "]\n"
    )


def cpu_seconds() -> float:
    """Processor time of this process and of its finished children."""
    return sum(os.times()[:4])


def forget_all_but_upstream(store: Path, root: Path) -> None:
    """The objects of the series were stored by `relock`, or applied before: take them away, so that they are made again."""
    for name in ("journal", "applied", "base", "trees/patched"):
        git(store, "update-ref", "-d", f"refs/llamapatch/{name}")
    packs = sorted((store / "objects/pack").glob("*.pack"), key=lambda p: p.stat().st_size)
    for pack in packs[:-1]:
        for part in (store / "objects/pack").glob(f"{pack.stem}.*"):
            part.unlink()
    subprocess.run(["rm", "-rf", root / ".llamapatch/trees", root / ".llamapatch/index"], check=True)


def test_fifty_patches_in_two_cpu_seconds(real: Settings, tmp_path: Path) -> None:
    """The first checkout of files excluded, as promised; measured 0.3 s."""
    pin = load_series(real).pin
    upstream = ensure_upstream(real, pin)
    root = tmp_path / "fifty"
    root.mkdir()
    write_synthetic_series(root, pin.tree, upstream.git_dir, 50)
    settings = Settings(root=root, home=root, cache=real.cache, upstream=upstream.git_dir, jobs=1)
    relock(settings, load_series(settings))
    series = load_series(settings)
    apply(settings, series, select(series, ["synthetic-00"]))
    store = root / ".llamapatch/store.git"
    costs = []
    for _ in range(3):
        forget_all_but_upstream(store, root)
        rollback(settings, series, plan_removal(settings, series, []))
        before = cpu_seconds()
        outcome = apply(settings, series, select(series, []))
        costs.append(cpu_seconds() - before)
        assert (len(outcome.after), outcome.files) == (50, 150)
        assert outcome.how == "exact"
    # What else runs on the machine can only add (caches, steal): the least of three is what the tool costs.
    assert min(costs) < 2.0, f"{costs} CPU seconds"
    before = cpu_seconds()
    rollback(settings, series, plan_removal(settings, series, []))
    assert cpu_seconds() - before < 2.0
