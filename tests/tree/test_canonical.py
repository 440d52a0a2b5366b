"""The canonical form: what no configuration, attribute, hook, locale or library can change; random trees both ways."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamapatch.errors import MismatchError
from llamapatch.git import Git
from llamapatch.tree.binary import BinaryError, apply_delta, decode_block, deflate_stored, encode_literal
from llamapatch.tree.diff import DiffError, FileDiff, apply_hunks, canonical_diff, format_diff, parse_diff
from llamapatch.tree.objects import Entry, ObjectPool, TreeState
from tests.project import GIT_ENV, Project, git

Files = dict[str, tuple[str, bytes]]
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Git:
    repo = Git.init_bare(tmp_path_factory.mktemp("canonical") / "store.git")
    repo.run("mktree", input=b"")
    return repo


def tree_of(store: Git, files: Files) -> str:
    """A tree of `files`, stored."""
    pool, state = ObjectPool(), TreeState.read(store, EMPTY_TREE)
    for path, (mode, data) in files.items():
        state.set(path, Entry(mode, pool.add("blob", data)))
    tree = state.write(pool)
    pool.store(store)
    return tree


def patched(files: Files, diffs: tuple[FileDiff, ...]) -> Files:
    """`files` after `diffs`, by nothing but the parsed diff."""
    out = dict(files)
    for diff in sorted(diffs, key=lambda d: not d.deleted):
        mode, old = out.get(diff.path, ("", b""))
        new = apply_hunks(old, diff)
        if diff.deleted:
            assert (new, mode) == (b"", diff.old_mode)
            del out[diff.path]
        else:
            out[diff.path] = (diff.new_mode or mode, new)
    return out


NAMES = [
    "a",
    "b/c",
    "b c/d",
    "é/ü.cpp",
    'q"uote',
    "back\\slash",
    "tab\there",
    "new\nline",
    "b.c",
    "b/c/d",
    "-x",
    "a b/a",
]
LINES = st.sampled_from(
    [b"a", b"b", b"}", b"", b"\r", b"x\r", b"-- a/f", b"@@ -1 +1 @@", b"\\ No newline", b"\xff\xfe"]
)
TEXT = st.builds(
    lambda lines, end: b"\n".join(lines) + (b"\n" if end and lines else b""),
    st.lists(LINES, max_size=14),
    st.booleans(),
)
BINARY = st.builds(lambda head, tail: head + b"\0" + tail, st.binary(max_size=90), st.binary(max_size=90))
FILE = st.one_of(
    st.tuples(st.sampled_from(["100644", "100755"]), st.one_of(TEXT, BINARY)),
    st.tuples(st.just("120000"), st.sampled_from([b"a", b"../b", b"\xc3\xa9"])),
)
TREE = st.dictionaries(st.sampled_from(NAMES), FILE, max_size=6).filter(lambda t: not {"b/c", "b/c/d"} <= set(t))


@given(before=TREE, after=TREE)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_trees(store: Git, tmp_path_factory: pytest.TempPathFactory, before: Files, after: Files) -> None:
    """Adds, deletes, modes, links, CRLF, no newline at the end, binary files, odd names: diff -> parse -> apply gives
    the tree, format gives the bytes, and git itself applies the same bytes to the same tree, forwards and back."""
    old, new = tree_of(store, before), tree_of(store, after)
    diff = canonical_diff(store, old, new)
    parsed = parse_diff(diff)
    assert patched(before, parsed) == after
    assert format_diff(parsed) == diff
    if diff:
        index = tmp_path_factory.getbasetemp() / "canonical-index"
        store.run("read-tree", old, index=index)
        store.run("apply", "--cached", "--whitespace=nowarn", "-", index=index, input=diff)
        assert store.run("write-tree", index=index) == new
        store.run("apply", "--cached", "-R", "--whitespace=nowarn", "-", index=index, input=diff)
        assert store.run("write-tree", index=index) == old


def test_the_form_is_fixed(store: Git) -> None:
    """One of everything, byte for byte."""
    before: Files = {
        "bin": ("100644", b"\0one"),
        "gone": ("100755", b"x\n"),
        "link": ("120000", b"gone"),
        "sp ace": ("100644", b"a\nb"),
        "tool": ("100644", b"#!/bin/sh\n"),
    }
    after: Files = {
        "bin": ("100644", b"\0two"),
        "empty": ("100644", b""),
        "link": ("100644", b"gone"),
        "sp ace": ("100644", b"a\r\nb"),
        'tab\t"é': ("100644", b"1\n"),
        "tool": ("100755", b"#!/bin/sh\n"),
    }
    diff = canonical_diff(store, tree_of(store, before), tree_of(store, after))
    assert diff.decode() == (
        "diff --git a/bin b/bin\n"
        "index eb2e937a24737d7e5ade6dc8e0bb3bdd4af15686..886adc15f115902428928b59754b5e78e19b0b02\n"
        "GIT binary patch\n"
        "literal 4\nOcmV+f0Q>&{ba!t8y#ZSQ\n\n"
        "literal 4\nOcmV+f0Q>&{Z*FA*k^w^i\n\n"
        "diff --git a/empty b/empty\nnew file mode 100644\n"
        "diff --git a/gone b/gone\ndeleted file mode 100755\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
        "diff --git a/link b/link\ndeleted file mode 120000\n--- a/link\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n"
        "\\ No newline at end of file\n"
        "diff --git a/link b/link\nnew file mode 100644\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+gone\n"
        "\\ No newline at end of file\n"
        "diff --git a/sp ace b/sp ace\n--- a/sp ace\t\n+++ b/sp ace\t\n@@ -1,2 +1,2 @@\n-a\n+a\r\n b\n"
        "\\ No newline at end of file\n"
        'diff --git "a/tab\\t\\"é" "b/tab\\t\\"é"\nnew file mode 100644\n--- /dev/null\n+++ "b/tab\\t\\"é"\n'
        "@@ -0,0 +1 @@\n+1\n"
        "diff --git a/tool b/tool\nold mode 100644\nnew mode 100755\n"
    )


HOSTILE = """\
[core]
    quotePath = true
    whitespace = cr-at-eol
    bigFileThreshold = 1
    compression = 9
    attributesFile = {attributes}
    hooksPath = {hooks}
    autocrlf = true
    abbrev = 4
[diff]
    noprefix = true
    mnemonicPrefix = true
    suppressBlankEmpty = true
    context = 1
    interHunkContext = 9
    algorithm = histogram
    indentHeuristic = false
    renames = copies
    external = false
    orderFile = {order}
    relative = true
    wsErrorHighlight = all
    colorMoved = zebra
    ignoreSubmodules = all
[diff "cpp"]
    textconv = false
    command = false
    binary = true
    xfuncname = ".*"
    algorithm = patience
[color]
    ui = always
    diff = always
[attr]
    tree = HEAD
"""
ENVIRONMENT = {
    "GIT_DIFF_OPTS": "-u0",
    "GIT_EXTERNAL_DIFF": "false",
    "GIT_PAGER": "false",
    "GIT_CONFIG_PARAMETERS": "'diff.noprefix=true' 'diff.suppressblankempty=true'",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "diff.suppressBlankEmpty",
    "GIT_CONFIG_VALUE_0": "true",
    "GIT_DEFAULT_HASH": "sha256",
    "GIT_INDEX_FILE": "/nonexistent",
    "GIT_WORK_TREE": "/nonexistent",
    "GIT_LITERAL_PATHSPECS": "0",
    "GIT_ICASE_PATHSPECS": "1",
    "GIT_ATTR_SOURCE": "HEAD",
    "LC_ALL": "de_DE.UTF-8",
    "LANG": "tr_TR",
    "LANGUAGE": "de",
    "TZ": "Asia/Kathmandu",
}


def test_nothing_outside_can_change_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_upstream: Path) -> None:
    """Configuration of the user, the system and the repository itself, attributes in all four places, hooks, external
    diff programs, environment, locale, the current folder. Each alone is shown to change what plain `git diff` says."""
    change = {"src/mmvq.cpp": ("int rows", "\n\nint lines"), "src/sampling.cpp": ("// line 9\n", "// nine\n\n")}
    for path, (old, new) in change.items():
        target = toy_upstream / path
        target.write_text(target.read_text().replace(old, new))
    (toy_upstream / "src/old.cpp").rename(toy_upstream / "src/moved.cpp")
    (toy_upstream / "bin").write_bytes(bytes(range(256)) * 40)
    git(toy_upstream, "add", "-A", "-f")
    git(toy_upstream, "commit", "-q", "-m", "x")
    store = Git(toy_upstream / ".git")
    old, new = git(toy_upstream, "rev-parse", "HEAD~^{tree}", "HEAD^{tree}").split()
    plain = canonical_diff(store, old, new)
    assert b"GIT binary patch" in plain
    assert b"\n \n" in plain
    stock = git(toy_upstream, "diff", old, new)

    attributes = "*.cpp diff=cpp -text\n*.txt binary\n* whitespace=cr-at-eol working-tree-encoding=UTF-16\n"
    (tmp_path / "attributes").write_text(attributes)
    (tmp_path / "order").write_text("src/sampling.cpp\nbin\n")
    (tmp_path / "hooks").mkdir()
    for name in ("post-index-change", "reference-transaction", "fsmonitor-watchman"):
        hook = tmp_path / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hook-ran\nexit 1\n")
        hook.chmod(0o755)
    config = HOSTILE.format(attributes=tmp_path / "attributes", hooks=tmp_path / "hooks", order=tmp_path / "order")
    home = tmp_path / "hostile-home"
    (home / ".config/git").mkdir(parents=True)
    (home / ".gitconfig").write_text(config)
    (home / ".config/git/attributes").write_text(attributes)
    (toy_upstream / ".gitattributes").write_text(attributes)
    (toy_upstream / ".git/info/attributes").write_text(attributes)
    with (toy_upstream / ".git/config").open("a") as out:
        out.write(config)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(home / ".gitconfig"))
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(toy_upstream / "src")
    assert canonical_diff(store, old, new) == plain
    assert not (tmp_path / "hook-ran").exists()
    # The settings are real: git on its own does not even say the same.
    env = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT}
    theirs = subprocess.run(["git", "diff", old, new], env=env, capture_output=True, cwd=toy_upstream).stdout.decode()
    assert theirs != stock


@given(st.binary(max_size=200_000))
@settings(max_examples=30, deadline=None)
def test_binary_round_trip(data: bytes) -> None:
    packed = deflate_stored(data)
    assert zlib.decompress(packed) == data
    assert len(packed) == len(data) + 6 + 5 * max(1, -(-len(data) // 65535))
    block = encode_literal(data)
    assert block.endswith(b"\n\n")
    head, *lines = block[:-2].split(b"\n")
    assert decode_block(head, lines) == (data, False)


def test_binary_blocks_of_git_are_read(tmp_path: Path) -> None:
    """git's own literals and deltas, compressed by whatever zlib it has."""
    old = os.urandom(3000)
    new = old[:1000] + b"\0middle\0" + old[500:2900] + old[:300]
    git(tmp_path, "init", "-q")
    for data in (old, new):
        (tmp_path / "f").write_bytes(data)
        git(tmp_path, "add", "f")
        git(tmp_path, "commit", "-q", "-m", "x")
    raw = subprocess.run(
        ["git", "diff", "--binary", "HEAD~", "HEAD"], cwd=tmp_path, env=GIT_ENV, capture_output=True, check=True
    ).stdout
    blocks = raw.partition(b"GIT binary patch\n")[2].split(b"\n\n")
    for block, base, wanted in ((blocks[0], old, new), (blocks[1], new, old)):
        head, *lines = block.split(b"\n")
        data, is_delta = decode_block(head, lines)
        assert is_delta
        assert apply_delta(base, data) == wanted
        with pytest.raises(BinaryError, match="the delta is for a file of"):
            apply_delta(base + b"x", data)


@given(st.binary(max_size=60), st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_damaged_binary_data_is_an_error(junk: bytes, base: bytes) -> None:
    for call in (
        lambda: apply_delta(base, junk),
        lambda: apply_delta(base, bytes([len(base)]) + junk),
        lambda: decode_block(b"literal 9", junk.split(b"\n")),
        lambda: decode_block(junk, [junk]),
    ):
        with contextlib.suppress(BinaryError):
            call()


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    packed = zlib.compress(bytes(200 << 20), 9)
    for size in (10, 1 << 20):
        with pytest.raises(BinaryError, match=f"do not inflate to {size} bytes"):
            decode_block(b"literal %d" % size, _lines_of(packed))
    with pytest.raises(BinaryError, match="more than the"):
        decode_block(b"literal 9999999999", _lines_of(packed))


def _lines_of(packed: bytes) -> list[bytes]:
    """`packed` in base85 lines."""
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    pieces = [packed[i : i + 52] for i in range(0, len(packed), 52)]
    return [letters[len(p) - 1 : len(p)] + base64.b85encode(p + bytes(-len(p) % 4)) for p in pieces]


def test_binary_diffs_that_lie(store: Git) -> None:
    old, new = tree_of(store, {"f": ("100644", b"\0a")}), tree_of(store, {"f": ("100644", b"\0b")})
    diff = canonical_diff(store, old, new)
    with pytest.raises(DiffError, match="not what the `index` line says"):
        parse_diff(_swap(diff))
    (parsed,) = parse_diff(diff)
    with pytest.raises(MismatchError, match="another binary file than the one the patch was made for"):
        apply_hunks(b"\0c", parsed)


def _swap(diff: bytes) -> bytes:
    """`diff` with the ids of its index line exchanged."""
    head, _, rest = diff.partition(b"index ")
    ids, _, body = rest.partition(b"\n")
    a, b = ids.split(b"..")
    return head + b"index " + b + b".." + a + b"\n" + body


def test_a_folder_gives_way_to_a_file(project: Project) -> None:
    """Through the whole chain: deletions come first, so a file can take the place of a folder, a link that of a file."""
    witness = project.witness
    project.patch("one", edit={"dir/a": "1\n", "dir/b": "2\n", "plain": "x\n"})
    for name in ("dir/a", "dir/b", "plain"):
        (witness / name).unlink()
    (witness / "dir").rmdir()
    (witness / "plain").symlink_to("dir")
    project.patch("two", edit={"dir": "a file now\n"})
    assert project.run("lock").code == 0
    assert project.run("apply").code == 0
    assert project.applied_tree() == project.disk_tree() == project.trees["two"]
    assert project.run("apply", "one").code == 0
    assert project.disk_tree() == project.trees["one"]
    lock = project.series().lock
    assert lock is not None
    assert [(f.path, f.mode) for f in lock.patches[1].files] == [
        ("dir", "100644"),
        ("dir/a", "100644"),
        ("dir/b", "100644"),
        ("plain", "120000"),
    ]
