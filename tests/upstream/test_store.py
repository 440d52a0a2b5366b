"""What interruption, company, a full disk and decay do to the cache: nothing."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamapatch.config import Settings
from llamapatch.errors import EnvironmentProblem, ExitCode, MismatchError
from llamapatch.series.model import Source, UpstreamPin
from llamapatch.upstream import fetch
from llamapatch.upstream.fetch import ensure_upstream
from llamapatch.upstream.store import Store
from tests.upstream.conftest import Toy, corrupt_blob, git, snapshot
from tests.upstream.test_local import assert_whole

MakeSettings = Callable[..., Settings]
MakePin = Callable[..., UpstreamPin]

CHILD = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    from llamapatch.config import Settings
    from llamapatch.errors import LlamapatchError
    from llamapatch.series.model import UpstreamPin
    from llamapatch.upstream.fetch import ensure_upstream

    asked = json.loads(sys.argv[1])
    home = Path(asked["home"])
    settings = Settings(root=home, home=home, cache=Path(asked["cache"]), upstream=None, jobs=1)
    try:
        upstream = ensure_upstream(settings, UpstreamPin(**asked["pin"]), lambda line: print(line, flush=True))
    except LlamapatchError as error:
        print(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    print("have", upstream.tree, flush=True)
    """
)


@pytest.fixture
def spawn(make_settings: MakeSettings, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `ensure_upstream` in a process of its own."""
    children = []

    def start(pin: UpstreamPin, cache: Path, **env: str) -> subprocess.Popen[str]:
        asked = {"home": str(make_settings().home), "cache": str(cache), "pin": pin.model_dump()}
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(asked)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | env,
            start_new_session=True,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def assert_old_or_new(cache: Path, tree: str) -> bool:
    """The cache either has the tree, whole, or does not have it; returns which."""
    store = Store(cache)
    if store.holds(tree):
        assert_whole(store.git.git_dir, tree)
        return True
    if store.git.git_dir.exists():
        assert store.git.ref(f"refs/llamapatch/upstream/{tree}") is None
        git(store.git.git_dir, "fsck", "--full")
    return False


def test_killed_at_any_moment(
    spawn: Callable[..., subprocess.Popen[str]], toy: Toy, make_pin: MakePin, tmp_path: Path
) -> None:
    """SIGKILL of the whole process group after a random time, many times: old state or new state, then it recovers."""
    pin, cache = make_pin(), tmp_path / "cache"
    begun = time.monotonic()
    assert spawn(pin, tmp_path / "calibration").wait() == 0
    whole = time.monotonic() - begun
    dice = random.Random(7)
    killed_inside = 0
    for _ in range(25):
        child = spawn(pin, cache)
        time.sleep(whole * dice.uniform(0.3, 1.1))
        alive = child.poll() is None
        os.killpg(child.pid, signal.SIGKILL) if alive else None
        child.wait()
        killed_inside += alive and (cache / "upstream-tmp").exists()
        if assert_old_or_new(cache, toy.tree):
            shutil.rmtree(cache)
    assert killed_inside >= 3
    assert spawn(pin, cache).wait() == 0
    assert_whole(cache / "upstream.git", toy.tree)
    assert not (cache / "upstream-tmp").exists()


@pytest.mark.parametrize("at", ["pack", "proof", "index", "note", "ref"])
def test_killed_at_each_step(
    at: str,
    spawn: Callable[..., subprocess.Popen[str]],
    toy: Toy,
    make_pin: MakePin,
    tmp_path: Path,
) -> None:
    """The same by aim: the process kills itself just before or after each step of publishing."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys
            from pathlib import Path

            def die(*_args, **_keywords):
                os.kill(os.getpid(), signal.SIGKILL)

            at = {at!r}
            if "-c" in sys.orig_argv:
                from llamapatch.upstream import store

                real_run, real_replace = store.Git.run, Path.replace

                def run(self, *args, **keywords):
                    if (at, args[0]) in (("pack", "pack-objects"), ("proof", "index-pack"), ("ref", "update-ref")):
                        die()
                    return real_run(self, *args, **keywords)

                def replace(self, target):
                    done = real_replace(self, target)
                    if (at, self.suffix) in (("index", ".pack"), ("note", ".idx")):
                        die()
                    return done

                store.Git.run, Path.replace = run, replace
            """
        )
    )
    pin, cache = make_pin(), tmp_path / "cache"
    path = os.pathsep.join((str(trap), *sys.path))
    assert spawn(pin, cache, PYTHONPATH=path).wait() == -signal.SIGKILL
    assert (cache / "upstream-tmp").exists()
    assert not assert_old_or_new(cache, toy.tree)
    assert spawn(pin, cache).wait() == 0
    assert_whole(cache / "upstream.git", toy.tree)
    assert not (cache / "upstream-tmp").exists()


def test_two_at_once_fetch_once(
    spawn: Callable[..., subprocess.Popen[str]],
    toy: Toy,
    make_settings: MakeSettings,
    make_pin: MakePin,
    tmp_path: Path,
) -> None:
    pin, cache = make_pin(), tmp_path / "cache"
    children = [spawn(pin, cache) for _ in range(4)]
    outputs = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4, outputs
    assert all(f"have {toy.tree}" in output for output in outputs)
    assert sum("fetching v1" in output for output in outputs) == 1
    assert_whole(cache / "upstream.git", toy.tree)


def test_a_wait_is_told(
    toy: Toy,
    make_settings: MakeSettings,
    make_pin: MakePin,
    tmp_path: Path,
    spawn: Callable[..., subprocess.Popen[str]],
) -> None:
    with Store(tmp_path / "cache").locked(lambda: None):
        child = spawn(make_pin(), tmp_path / "cache")
        assert child.stdout is not None
        assert "waiting for another llamapatch" in child.stdout.readline()
        assert child.poll() is None
    assert child.wait(timeout=60) == 0


@pytest.mark.parametrize("when", ["as npm starts", "while npm hangs"])
def test_interrupt_leaves_nothing(
    when: str, spawn: Callable[..., subprocess.Popen[str]], make_pin: MakePin, tmp_path: Path
) -> None:
    """Ctrl-C during a download: exit at once, no scratch, no child."""
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    wait = "sleep 0.5; " if when == "while npm hangs" else ""
    program.write_text(
        f"#!/bin/sh\n[ $1 = view ] && echo ok && exit\necho $$ > {tmp_path}/pid\n{wait}kill -INT $PPID\nsleep 600\n"
    )
    program.chmod(0o755)
    pin = make_pin(Source(kind="npm", package="pkg@1.0.0", member="x"))
    child = spawn(pin, tmp_path / "cache", PATH=f"{program.parent}:{os.environ['PATH']}")
    assert child.wait(timeout=60) == ExitCode.INTERRUPTED
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["upstream.lock"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_full_disk(toy: Toy, make_settings: MakeSettings, make_pin: MakePin, tmp_path: Path) -> None:
    """A real one: a small file system mounted for the test, where that is permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        (toy.path / "big").write_bytes(random.Random(1).randbytes(1 << 20))
        git(toy.path, "add", "big")
        git(toy.path, "commit", "-q", "-m", "big")
        git(toy.path, "archive", "--prefix=x/", f"--output={tmp_path / 'big.tar'}", "HEAD")
        tree = git(toy.path, "rev-parse", "HEAD^{tree}")
        fetched = make_pin(Source(kind="git", url=toy.path.as_uri(), ref="HEAD"), tree=tree)
        unpacked = make_pin(Source(kind="tarball", url=str(tmp_path / "big.tar")), tree=tree)
        for upstream, pin in ((toy.path, fetched), (None, fetched), (None, unpacked), (tmp_path / "big.tar", fetched)):
            with pytest.raises(EnvironmentProblem, match="no space left for the upstream cache") as caught:
                ensure_upstream(make_settings(upstream, cache=disk / "cache"), pin)
            assert caught.value.exit_code == ExitCode.ERROR
            assert "LLAMAPATCH_CACHE" in caught.value.remedy
            assert not (disk / "cache/upstream-tmp").exists()
            assert not Store(disk / "cache").holds(tree)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_cache_that_cannot_be_written(toy: Toy, make_settings: MakeSettings, make_pin: MakePin, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for cache in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(EnvironmentProblem, match="cannot be written") as caught:
            ensure_upstream(make_settings(cache=cache), make_pin())
        assert "LLAMAPATCH_CACHE" in caught.value.remedy


def test_trouble_elsewhere_is_not_the_caches(
    toy: Toy, make_settings: MakeSettings, make_pin: MakePin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(folder: Path) -> list[object]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder / "secret"))

    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "x").write_text("x")
    monkeypatch.setattr("llamapatch.upstream.sources.local.folder_entries", forbidden)
    with pytest.raises(PermissionError):
        ensure_upstream(make_settings(plain), make_pin())


def test_read_only_cache_serves(toy: Toy, make_settings: MakeSettings, make_pin: MakePin, tmp_path: Path) -> None:
    first = ensure_upstream(make_settings(), make_pin())
    before = snapshot(tmp_path / "cache")
    assert ensure_upstream(make_settings(), make_pin()) == first
    assert ensure_upstream(make_settings(toy.path), make_pin()).tree == toy.tree
    assert snapshot(tmp_path / "cache") == before


@pytest.mark.parametrize("damage", ["no pack", "no index", "no head", "an empty folder", "no ref"])
def test_decayed_cache_is_made_anew(
    damage: str, toy: Toy, make_settings: MakeSettings, make_pin: MakePin, tmp_path: Path
) -> None:
    repository = ensure_upstream(make_settings(), make_pin()).git_dir
    packs = repository / "objects/pack"
    if damage == "no pack":
        next(packs.glob("*.pack")).unlink()
    elif damage == "no index":
        next(packs.glob("*.idx")).unlink()
    elif damage == "no head":
        (repository / "HEAD").unlink()
    elif damage == "an empty folder":
        shutil.rmtree(repository)
        repository.mkdir()
    else:
        git(repository, "update-ref", "-d", f"refs/llamapatch/upstream/{toy.tree}")
    assert not Store(tmp_path / "cache").holds(toy.tree)
    assert_whole(ensure_upstream(make_settings(), make_pin()).git_dir, toy.tree)


def test_silent_decay_is_found_by_the_full_check(
    toy: Toy, make_settings: MakeSettings, make_pin: MakePin, tmp_path: Path
) -> None:
    settings = make_settings()
    upstream = ensure_upstream(settings, make_pin())
    fetch.check_contents(settings, upstream)
    corrupt_blob(upstream.git_dir, f"{toy.tree}:src/llama.cpp")
    # A walk over names does not notice; hashing does.
    assert Store(settings.cache).holds(toy.tree)
    with pytest.raises(MismatchError, match="is damaged"):
        fetch.check_contents(settings, upstream)


def test_several_trees_live_together(toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    first = ensure_upstream(make_settings(), make_pin())
    second = make_pin(Source(kind="git", url=toy.path.as_uri(), ref="v2"), tree=toy.other_tree, version="v2")
    ensure_upstream(make_settings(), second)
    for tree in (toy.tree, toy.other_tree):
        assert_whole(first.git_dir, tree)


def test_plan_writes_nothing(toy: Toy, make_settings: MakeSettings, make_pin: MakePin, tmp_path: Path) -> None:
    settings, pin = make_settings(), make_pin()
    assert fetch.plan(settings, pin) == fetch.Plan(False, (f"git {toy.path.as_uri()} v1",))
    assert fetch.plan(make_settings(toy.path), pin) == fetch.Plan(False, (f"git repository {toy.path}",))
    assert not (tmp_path / "cache").exists()
    ensure_upstream(settings, pin)
    assert fetch.plan(settings, pin).cached
