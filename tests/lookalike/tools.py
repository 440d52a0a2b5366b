"""Three tools on one case: ours, ``git apply`` and ``git am -3``, each on a real repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

from llamapatch.git import Git
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import FileChange
from llamapatch.tree.objects import ObjectPool, TreeState
from llamapatch.tree.renames import Renames
from llamapatch.tree.thread import Change, PatchOutcome, rethread
from tests.lookalike.cases import PATH, Case
from tests.project import GIT_ENV, git

RIGHT, REFUSED, WRONG = "right", "stops", "WRONG"
OTHER = {"README.md": "# a project\n", "src/other.cpp": "int other() {\n    return 7;\n}\n"}


def make_repository(folder: Path, case: Case) -> Path:
    """Branches ``old`` (before), ``ours`` (the patch on it) and ``new`` (what upstream made of ``old``)."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "old")
    write(folder, OTHER | {PATH: case.pre})
    commit(folder, "before")
    git(folder, "checkout", "-q", "-b", "ours")
    write(folder, {PATH: case.post})
    commit(folder, "the patch")
    git(folder, "checkout", "-q", "-b", "new", "old")
    (folder / PATH).unlink()
    write(folder, {case.moved_to: case.now})
    commit(folder, "upstream")
    return folder


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)


def ours(repository: Path, case: Case) -> tuple[str, PatchOutcome]:
    """Our engine, told of nothing but the three trees."""
    facade = Git(repository / ".git")
    blobs = Blobs(facade, ObjectPool())
    pre, post = (TreeState.read(facade, facade.tree_of(b)).get(PATH) for b in ("old", "ours"))
    tree = facade.tree_of("new")
    old_paths = {f.path for f in facade.tree_files(facade.tree_of("old"))}
    renames = Renames(facade, tree, old_paths, blobs)
    state = TreeState.read(facade, tree)
    outcome = rethread([Change("lp", (FileChange(PATH, pre, post),))], state, blobs, moved_to=renames.moved_to)[0]
    if not outcome.carried:
        return REFUSED, outcome
    found = state.get(case.moved_to)
    return judge(case, blobs.get(found.oid).decode() if found else ""), outcome


def git_apply(repository: Path, case: Case) -> str:
    """``git apply`` of the diff."""
    diff = subprocess.run(
        ["git", "-C", repository, "diff", "old", "ours"], env=GIT_ENV, capture_output=True, check=True
    )
    return attempt(repository, case, ["apply", "-"], diff.stdout, undo=["checkout", "-q", "-f", "new"])


def git_am(repository: Path, case: Case) -> str:
    """``git am -3`` of the commit, with every object that it may want."""
    mail = subprocess.run(
        ["git", "-C", repository, "format-patch", "-1", "--stdout", "--full-index", "ours"],
        env=GIT_ENV,
        capture_output=True,
        check=True,
    )
    return attempt(repository, case, ["am", "-3", "-q"], mail.stdout, undo=["am", "--abort"])


def attempt(repository: Path, case: Case, words: list[str], data: bytes, undo: list[str]) -> str:
    git(repository, "checkout", "-q", "-f", "-B", "try", "new")
    done = subprocess.run(["git", "-C", repository, *words], env=GIT_ENV, input=data, capture_output=True)
    if done.returncode != 0:
        subprocess.run(["git", "-C", repository, *undo], env=GIT_ENV, capture_output=True)
        return REFUSED
    verdict = judge(case, (repository / case.moved_to).read_text())
    git(repository, "checkout", "-q", "-f", "new")
    git(repository, "clean", "-fdq")
    return verdict


def judge(case: Case, result: str) -> str:
    return RIGHT if result == case.want else WRONG
