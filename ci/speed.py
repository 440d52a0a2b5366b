"""How fast is llamapatch beside ``git am`` and ``quilt push -a``? The same 50 patches on the real pinned tree.

    python ci/speed.py [RUNS]        (default 7; the figures of docs/performance.md)

Prints a Markdown table: medians of interleaved runs, wall and processor seconds of each command with all its children,
and the range of each. Every run starts from the clean tree and must end with the tree that series.lock names. Needs
quilt, git, and the upstream that the series is pinned to (fetched when it is not there).
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llamapatch.config import Settings, load_settings
from llamapatch.process import Completed, run
from llamapatch.series.load import load_series
from llamapatch.upstream.fetch import ensure_upstream
from tests.tree.test_real import write_synthetic_series

PATCHES = 50
_GIT = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"} | {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "a"), ("EMAIL", "a@localhost"))
}  # fmt: skip


@dataclass
class Arm:
    """One command: how it is prepared (not timed), run, and what tree it must have made."""

    name: str
    prepare: Callable[[], object]
    command: Callable[[], Completed]
    tree: Callable[[], str]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main() -> None:
    """Make everything, run, print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    scratch = Path(tempfile.mkdtemp(prefix="llamapatch-speed-"))
    try:
        _print(_measure(scratch, runs), runs)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _measure(scratch: Path, runs: int) -> list[Arm]:
    settings = load_settings()
    pin = load_series(settings).pin
    upstream = ensure_upstream(settings, pin).git_dir
    root = scratch / "series"
    root.mkdir()
    write_synthetic_series(root, pin.tree, upstream, PATCHES)
    (root / "llamapatch.toml").write_text("", encoding="utf-8")
    cache = {"LLAMAPATCH_CACHE": str(settings.cache)}

    def ours(*words: str) -> Completed:
        return run([sys.executable, "-m", "llamapatch", *words], cwd=root, env=os.environ | cache)

    ours("lock")
    mine = Settings(root=root, home=root, cache=settings.cache, upstream=None, jobs=1)
    lock = load_series(mine).lock
    assert lock is not None
    wanted = lock.patches[-1].tree
    ours("export", "--mbox", "-o", str(scratch / "all.mbox"))
    ours("export", "--quilt", "-o", str(scratch / "queue"))
    ours("apply")
    plain = _checkout(scratch / "plain", upstream, pin.tree)
    base = _git(plain, "rev-parse", "HEAD")
    quilt_env = _GIT | {"QUILT_PATCHES": str(scratch / "queue"), "HOME": str(scratch)}

    def clean() -> None:
        _git(plain, "reset", "-q", "--hard", base)
        _git(plain, "clean", "-q", "-d", "-f", "-x")

    def on_disk() -> str:
        _git(plain, "add", "-A", "-f", ".", ":!.pc")
        return _git(plain, "write-tree")

    def applied() -> str:
        return run(
            ["git", "-C", str(root / ".llamapatch/store.git"), "rev-parse", "refs/llamapatch/applied^{tree}"]
        ).stdout.strip()

    arms = [
        Arm("`llamapatch apply`", lambda: ours("rollback"), lambda: ours("apply"), applied),
        Arm("`llamapatch verify`", lambda: None, lambda: ours("verify"), lambda: wanted),
        Arm("`llamapatch check`", lambda: None, lambda: ours("check"), lambda: wanted),
        Arm("`git am`", clean, lambda: run(["git", "am", "-q", scratch / "all.mbox"], cwd=plain, env=_GIT), on_disk),
        Arm("`quilt push -a`", clean, lambda: run(["quilt", "push", "-a", "-q"], cwd=plain, env=quilt_env), on_disk),
        Arm("`llamapatch --version`", lambda: None, lambda: ours("--version"), lambda: wanted),
    ]
    dice = random.Random(1)  # noqa: S311 (an order, no secret)
    for number in range(runs):
        for arm in dice.sample(arms, len(arms)):
            arm.prepare()
            done = arm.command()
            found = arm.tree()
            assert found == wanted, f"{arm.name} made {found}, not {wanted}"
            arm.wall.append(done.seconds)
            arm.cpu.append(done.cpu_seconds)
        print(f"run {number + 1} of {runs}", file=sys.stderr)
    return arms


def _checkout(folder: Path, upstream: Path, tree: str) -> Path:
    """A repository of the pinned tree, checked out byte for byte."""
    folder.mkdir()
    _git(folder, "init", "-q")
    for key, value in (("core.autocrlf", "false"), ("gc.auto", "0"), ("maintenance.auto", "false")):
        _git(folder, "config", key, value)
    (folder / ".git/objects/info/alternates").write_text(f"{upstream / 'objects'}\n", encoding="utf-8")
    (folder / ".git/info").mkdir(exist_ok=True)
    (folder / ".git/info/attributes").write_text("* -text\n", encoding="utf-8")
    _git(folder, "reset", "-q", "--hard", _git(folder, "commit-tree", tree, "-m", "base"))
    return folder


def _git(folder: Path, *words: str) -> str:
    return run(["git", *words], cwd=folder, env=_GIT).stdout.strip()


def _print(arms: list[Arm], runs: int) -> None:
    print(f"| {PATCHES} patches, {runs} interleaved runs | wall s, median (range) | CPU s, median (range) |")
    print("| --- | --- | --- |")
    for arm in arms:
        cells = [
            f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
            for values in (arm.wall, arm.cpu)
        ]
        print(f"| {arm.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
