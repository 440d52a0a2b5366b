"""The git facade: raw bytes in and out, and nothing of the user's surroundings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamapatch.errors import InternalError
from llamapatch.git import Git, GitError, clean_environment
from tests.project import git, make_upstream


@pytest.fixture
def repo(toy_upstream: Path) -> Git:
    return Git(toy_upstream / ".git")


def test_reading(repo: Git, toy_upstream: Path) -> None:
    tree = git(toy_upstream, "rev-parse", "HEAD^{tree}")
    assert repo.tree_of("HEAD") == repo.tree_of(tree) == tree
    files = {f.path: (f.mode, f.size) for f in repo.tree_files(tree)}
    assert files["run.sh"] == ("100755", 17)
    assert files["link"] == ("120000", 9)
    assert list(files) == sorted(files, key=os.fsencode)
    assert [f.path for f in repo.tree_files(tree, "src/crlf.txt", "README.md")] == ["README.md", "src/crlf.txt"]
    assert repo.read_file(tree, "src/crlf.txt") == b"one\r\ntwo\r\nthree\r\n"
    assert repo.read_file(tree, "nothing") is None
    assert repo.ref("refs/heads/master") == git(toy_upstream, "rev-parse", "HEAD")
    assert repo.ref("refs/heads/nothing") is None
    assert repo.has_object(tree)
    assert not repo.has_object("1" * 40)


def test_many_blobs_with_one_process(repo: Git) -> None:
    contents = [b"", b"\n", b"a\0b\xff\n", b"missing\n" * 1000]
    oids = [repo.write_blob(data) for data in contents]
    assert repo.read_blobs([*oids, oids[0]]) == dict(zip(oids, contents, strict=True))
    with pytest.raises(InternalError, match="1111111111111111111111111111111111111111 is missing"):
        repo.read_blobs([oids[0], "1" * 40])


def test_failures_carry_what_git_said(repo: Git) -> None:
    with pytest.raises(GitError) as caught:
        repo.run("cat-file", "blob", "1" * 40)
    assert caught.value.code == 128
    assert caught.value.message.startswith("git cat-file failed with status 128: fatal: ")
    assert caught.value.exit_code == 1


def test_the_users_surroundings_do_not_count(repo: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hostile"
    (home / ".config/git").mkdir(parents=True)
    (home / ".gitconfig").write_text(
        "[core]\nautocrlf = true\nquotePath = true\n[alias]\nls-tree = !false\n[user]\nname = x\n"
    )
    (home / ".config/git/attributes").write_text("* text eol=crlf ident\n")
    monkeypatch.setenv("HOME", str(home))
    for name, value in {
        "GIT_DIR": "/nonexistent",
        "GIT_WORK_TREE": "/nonexistent",
        "GIT_INDEX_FILE": "/nonexistent/index",
        "GIT_OBJECT_DIRECTORY": "/nonexistent/objects",
        "GIT_CONFIG_PARAMETERS": "'core.bare=maybe'",
        "GIT_TRACE": "1",
        "GIT_NAMESPACE": "somewhere",
    }.items():
        monkeypatch.setenv(name, value)
    assert repo.read_file("HEAD", "README.md") == b"# llama.cpp\n"
    assert repo.run(
        "var", "GIT_COMMITTER_IDENT", env={"GIT_COMMITTER_NAME": "me", "GIT_COMMITTER_EMAIL": "m"}
    ).startswith("me <m>")
    assert repo.write_blob(b"$Id$\r\n") == repo.run("hash-object", "--stdin", "--no-filters", input=b"$Id$\r\n")
    seen = clean_environment()
    assert "GIT_TRACE" not in seen
    assert seen["LC_ALL"] == "C"
    assert not [k for k in seen if k.startswith("GIT_") and seen[k].startswith("/nonexistent")]


def test_an_enclosing_repository_is_never_found(tmp_path: Path) -> None:
    """A git directory that is gone must be an error, not the repository of some folder above."""
    outer = make_upstream(tmp_path / "outer")
    inner = Git(outer / "project/.llamapatch/store.git")
    inner.git_dir.mkdir(parents=True)
    with pytest.raises(GitError):
        inner.run("rev-parse", "HEAD")


def test_replace_refs_and_hooks_have_no_effect(repo: Git, toy_upstream: Path, tmp_path: Path) -> None:
    blob = repo.write_blob(b"honest\n")
    git(toy_upstream, "replace", blob, repo.write_blob(b"forged\n"))
    assert repo.read_blobs([blob]) == {blob: b"honest\n"}
    hook = toy_upstream / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    hook.chmod(0o755)
    repo.run("update-ref", "refs/x/y", "HEAD")
    assert not (tmp_path / "ran").exists()


def test_a_private_index_leaves_the_users_alone(repo: Git, toy_upstream: Path, tmp_path: Path) -> None:
    before = (toy_upstream / ".git/index").read_bytes()
    repo.run("read-tree", "HEAD", index=tmp_path / "index")
    assert repo.run("write-tree", index=tmp_path / "index") == repo.tree_of("HEAD")
    assert (toy_upstream / ".git/index").read_bytes() == before
