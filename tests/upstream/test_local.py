"""The user's own llama.cpp: every form it comes in, read and never written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llamapatch.config import Settings
from llamapatch.errors import EnvironmentProblem, ExitCode, MismatchError, UsageProblem
from llamapatch.git import Git
from llamapatch.series.model import UpstreamPin
from llamapatch.upstream.fetch import ensure_upstream
from llamapatch.upstream.store import REF_PREFIX
from tests.upstream.conftest import GIT_ENV, Toy, git, snapshot

MakeSettings = Callable[..., Settings]
MakePin = Callable[..., UpstreamPin]


def assert_whole(git_dir: Path, tree: str) -> None:
    """The cache holds the tree, all of it, by its own ref, and nothing else that is broken."""
    assert git(git_dir, "rev-parse", REF_PREFIX + tree) == tree
    assert git(git_dir, "fsck", "--full", "--strict") in ("", "notice: HEAD points to an unborn branch (master)")
    assert len(git(git_dir, "ls-tree", "-r", "-z", tree).split("\0")) == 14


def checkout(toy: Toy, tmp: Path) -> Path:
    return toy.path


def bare(toy: Toy, tmp: Path) -> Path:
    git(tmp, "clone", "-q", "--bare", str(toy.path), "bare.git")
    return tmp / "bare.git"


def shallow(toy: Toy, tmp: Path) -> Path:
    git(tmp, "clone", "-q", "--depth=1", "--branch=v1", toy.path.as_uri(), "shallow")
    return tmp / "shallow"


def linked_worktree(toy: Toy, tmp: Path) -> Path:
    git(toy.path, "worktree", "add", "-q", "--detach", str(tmp / "linked"), "v2")
    return tmp / "linked"


def borrowing_clone(toy: Toy, tmp: Path) -> Path:
    git(tmp, "clone", "-q", "--shared", str(toy.path), "shared clone")
    return tmp / "shared clone"


def submodule(toy: Toy, tmp: Path) -> Path:
    (tmp / "super").mkdir()
    git(tmp / "super", "init", "-q")
    git(tmp / "super", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(toy.path), "sub")
    return tmp / "super" / "sub"


def odd_name(toy: Toy, tmp: Path) -> Path:
    """A colon separates the entries of git's list of object folders, a quote begins a quoted one."""
    path = tmp / 'a:b "c" \\d'
    toy.path.rename(path)
    return path


@pytest.mark.parametrize(
    "form", [checkout, bare, shallow, linked_worktree, borrowing_clone, submodule, odd_name], ids=lambda f: f.__name__
)
def test_repository_in_every_form(
    form: Callable[[Toy, Path], Path], toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin
) -> None:
    path = form(toy, tmp_path)
    settings = make_settings(path)
    before = snapshot(path), snapshot(toy.path) if toy.path.exists() else None
    upstream = ensure_upstream(settings, make_pin())
    again = ensure_upstream(settings, make_pin())
    assert (snapshot(path), snapshot(toy.path) if toy.path.exists() else None) == before
    assert upstream == again
    assert (upstream.tree, upstream.version, upstream.source) == (toy.tree, "v1", f"git repository {path}")
    assert_whole(upstream.git_dir, toy.tree)


def test_dirty_checkout_is_read_by_its_objects(toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    (toy.path / "src/llama.cpp").write_text("edited\n")
    (toy.path / "untracked").write_text("x")
    upstream = ensure_upstream(make_settings(toy.path), make_pin())
    assert Git(upstream.git_dir).read_file(toy.tree, "src/llama.cpp") == b"int main() { return 0; }\n" * 200


def test_read_only_repository(toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin) -> None:
    path = bare(toy, tmp_path)
    for entry in (path, *path.rglob("*")):
        entry.chmod(0o555 if entry.is_dir() else 0o444)
    before = snapshot(path)
    assert_whole(ensure_upstream(make_settings(path), make_pin()).git_dir, toy.tree)
    assert snapshot(path) == before


def test_another_tree_names_both(toy: Toy, make_settings: MakeSettings, make_pin: MakePin) -> None:
    wanted = "1" * 40
    with pytest.raises(MismatchError) as caught:
        ensure_upstream(make_settings(toy.path), make_pin(tree=wanted, version="v9"))
    assert caught.value.exit_code == ExitCode.MISMATCH
    assert toy.other_tree in caught.value.message and wanted in caught.value.message
    assert "its HEAD" in caught.value.message
    # A tag of the version's name says more than HEAD does: upstream moved it, or it is another project.
    with pytest.raises(MismatchError, match=f"{toy.tree}.*its tag v1"):
        ensure_upstream(make_settings(toy.path), make_pin(tree=wanted))


def test_user_source_is_compared_even_when_cached(
    toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin
) -> None:
    ensure_upstream(make_settings(toy.path), make_pin())
    git(tmp_path, "clone", "-q", "--depth=1", "--branch=v2", toy.path.as_uri(), "newer")
    with pytest.raises(MismatchError, match=toy.other_tree):
        ensure_upstream(make_settings(tmp_path / "newer"), make_pin())


def test_partial_clone_is_named(toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin) -> None:
    git(toy.path, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--bare", "--filter=blob:none", toy.path.as_uri(), "partial.git")
    before = snapshot(tmp_path / "partial.git")
    with pytest.raises(EnvironmentProblem) as caught:
        ensure_upstream(make_settings(tmp_path / "partial.git"), make_pin())
    assert "it is a partial clone" in caught.value.message
    assert "lacks 13 objects" in caught.value.message
    assert "--refetch" in caught.value.remedy
    # It was not completed behind the user's back either.
    assert snapshot(tmp_path / "partial.git") == before
    assert not (tmp_path / "cache/upstream.git").exists()


def test_corrupt_object_is_refused(toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin) -> None:
    """A loose object whose content belongs to another name passes every check but hashing."""
    objects = toy.path / ".git/objects"
    good = git(toy.path, "rev-parse", "v1:CMakeLists.txt")
    other = git(toy.path, "rev-parse", "v1:run.sh")
    victim = objects / good[:2] / good[2:]
    victim.chmod(0o644)
    victim.write_bytes((objects / other[:2] / other[2:]).read_bytes())
    with pytest.raises(EnvironmentProblem, match="are damaged"):
        ensure_upstream(make_settings(toy.path), make_pin())
    assert not (tmp_path / "cache/upstream.git").exists()


def test_plain_folder(toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin) -> None:
    """Ignored, attributed, executable, linked, oddly named: the folder hashes to what git recorded."""
    git(toy.path, "worktree", "add", "-q", "--detach", str(tmp_path / "plain"), "v1")
    (tmp_path / "plain/.git").unlink()
    # Sources below somebody's repository are not that repository.
    settings = make_settings(tmp_path / "plain")
    git(tmp_path, "init", "-q")
    # The checkout turned nothing: attributes in the tree say only `text`, and the facade stores no filters.
    upstream = ensure_upstream(settings, make_pin())
    assert upstream.source == f"folder {tmp_path / 'plain'}"
    assert_whole(upstream.git_dir, toy.tree)


def test_folder_is_hashed_again_only_when_it_changed(
    toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(toy.path, "worktree", "add", "-q", "--detach", str(tmp_path / "plain"), "v1")
    (tmp_path / "plain/.git").unlink()
    settings = make_settings(tmp_path / "plain")
    ensure_upstream(settings, make_pin())
    lines: list[str] = []
    ensure_upstream(settings, make_pin(), lines.append)
    assert lines == []
    (tmp_path / "plain/build").mkdir()
    ensure_upstream(settings, make_pin(), lines.append)  # an empty folder is nothing to git
    assert lines == [f"hashing the files of {tmp_path / 'plain'}"]
    (tmp_path / "plain/build/x.o").write_text("x")
    with pytest.raises(MismatchError, match="every file in it counts"):
        ensure_upstream(settings, make_pin())
    (tmp_path / "plain/build/x.o").unlink()
    (tmp_path / "plain/run.sh").chmod(0o644)
    with pytest.raises(MismatchError):
        ensure_upstream(settings, make_pin())


@pytest.mark.parametrize("what", ["absent", "empty folder", "text file", "damaged repository", "no commit", "sha256"])
def test_useless_upstream_is_a_usage_error(
    what: str, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin
) -> None:
    path = tmp_path / "thing"
    if what != "absent" and what != "text file":
        path.mkdir()
    if what == "text file":
        path.write_text("hello")
    if what == "damaged repository":
        (path / ".git").mkdir()
    if what == "no commit":
        git(path, "init", "-q")
    if what == "sha256":
        git(path, "init", "-q", "--object-format=sha256")
    with pytest.raises(UsageProblem) as caught:
        ensure_upstream(make_settings(path), make_pin())
    assert str(path) in caught.value.message
    assert caught.value.remedy or what == "sha256"


def test_ambient_git_variables_and_configuration_change_nothing(
    toy: Toy, tmp_path: Path, make_settings: MakeSettings, make_pin: MakePin, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "userhome"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[core]\n autocrlf = true\n hooksPath = /nonexistent\n[fetch]\n fsckObjects = true\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere"))
    git_dir = ensure_upstream(make_settings(toy.path), make_pin()).git_dir
    subprocess.run(["git", "--git-dir", git_dir, "rev-parse", REF_PREFIX + toy.tree], check=True, env=GIT_ENV)
    assert not (tmp_path / "elsewhere").exists()
