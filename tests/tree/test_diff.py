"""The canonical diff: round trips against git, and hunks that must not be accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamapatch.git import Git
from llamapatch.tree.diff import (
    DiffError,
    HunkError,
    anchor,
    apply_hunks,
    canonical_diff,
    format_diff,
    parse_diff,
)
from llamapatch.tree.objects import Entry, ObjectPool, TreeState
from tests.project import MMVQ, git

HEAD = "diff --git a/f b/f\n--- a/f\n+++ b/f\n"


def tree_of(store: Git, files: dict[str, bytes]) -> str:
    """A tree of plain files, made by git."""
    lines = "".join(f"100644 blob {store.write_blob(data)}\t{name}\n" for name, data in files.items())
    return store.run("mktree", input=lines.encode())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Git:
    return Git.init_bare(tmp_path_factory.mktemp("diff") / "store.git")


# Lines that look like diff syntax, carriage returns, blank lines, repeated lines and a missing last newline.
LINE = st.sampled_from(
    ["a", "b", "", "\r", "-- a/f", "++ b/f", "@@ -1 +1 @@", "\\ No newline", "diff --git a/f b/f", "é"]
)
CONTENT = st.builds(
    lambda lines, end: ("\n".join(lines) + ("\n" if end and lines else "")).encode(),
    st.lists(LINE, max_size=30),
    st.booleans(),
)


@given(before=CONTENT, after=CONTENT)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_git_writes_it_and_we_apply_it(store: Git, before: bytes, after: bytes) -> None:
    """canonical_diff -> parse -> apply gives the file back, whatever its lines look like."""
    diff = canonical_diff(store, tree_of(store, {"f": before}), tree_of(store, {"f": after}))
    if before == after:
        assert diff == b""
        return
    (parsed,) = parse_diff(diff)
    assert parsed.path == "f"
    assert apply_hunks(before, parsed) == after
    assert b"\nindex " not in diff
    assert format_diff([parsed]) == diff


@given(data=st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_garbage_is_an_error_and_never_a_crash(data: bytes) -> None:
    if data:
        with pytest.raises(DiffError):
            parse_diff(data)
        with pytest.raises(DiffError):
            parse_diff(HEAD.encode() + data)
    else:
        assert parse_diff(data) == ()


def test_a_hunk_holds_only_at_its_line() -> None:
    """The case that `git apply` gets wrong: a look-alike above takes the hunk of the function below."""
    hunk = (
        "diff --git a/src/mmvq.cpp b/src/mmvq.cpp\n--- a/src/mmvq.cpp\n+++ b/src/mmvq.cpp\n"
        "@@ -3,5 +3,6 @@\n static int calc_rows(int n) {\n     if (n > 8) {\n         return 2;\n+        // ours\n"
        "     }\n     return 1;\n"
    )
    (diff,) = parse_diff(hunk.encode())
    assert b"// ours" in apply_hunks(MMVQ.encode(), diff)
    shifted = "// one line more\n" + MMVQ
    with pytest.raises(HunkError, match=r"src/mmvq.cpp, hunk 1 does not match at line 3") as caught:
        apply_hunks(shifted.encode(), diff)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("@@ -1,2 +1,3 @@\n x\n+y\n z\n", "line 1: the tree has `one`, the patch expects `x`"),
        ("@@ -3 +3,2 @@\n three\n+y\n", "line 3: the tree has the end of the file"),
        ("@@ -1 +2,2 @@\n one\n+y\n", "states line 2 for its result, which would be line 1"),
        ("@@ -1,2 +1,3 @@\n one\n+y\n two\n@@ -2 +3,2 @@\n two\n+z\n", "hunk 2 overlaps the one before it"),
        ("@@ -1,2 +1,3 @@\n one\n+y\n two\n\\ No newline at end of file\n", "line 2: the tree has `two`"),
    ],
)
def test_hunks_that_do_not_fit(body: str, says: str) -> None:
    (diff,) = parse_diff((HEAD + body).encode())
    with pytest.raises(HunkError) as caught:
        apply_hunks(b"one\ntwo\n", diff)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("From: someone\n", "line 1: expected `diff --git a/PATH b/PATH`, found `From: someone`"),
        (HEAD.replace("--- ", "index 1..2 100644\n--- "), "line 2: expected `--- a/PATH`, found `index 1..2 100644`"),
        (HEAD + "@@ -1 +1 @@ int f()\n-a\n+b\n", "line 4: nothing may follow the second @@"),
        (HEAD + "@@ -1,2 +1 @@\n-a\n+b\n", "the hunk is shorter than its header says, found the end of the file"),
        (HEAD + "@@ -1 +1 @@\n-a\n+b\n+c\n", "line 7: expected `diff --git a/PATH b/PATH`, found `+c`"),
        (HEAD + "@@ -1 +1,0 @@\n+b\n-a\n", "the hunk is longer than its header says"),
        ("diff --git a/../f b/../f\n", "the path leaves the tree"),
        ("diff --git a/.git/config b/.git/config\n", "the path leaves the tree"),
        ("diff --git a/f b/g\nsimilarity index 90%\n", "line 1: expected `diff --git"),
        ("diff --git a/f b/f\nold mode 100644\nnew file mode 100644\n", "the mode lines contradict each other"),
        ("diff --git a/f b/f\nBinary files a/f and b/f differ\n", "line 2: expected `--- a/PATH`"),
        ("diff --git a/f b/f\n--- a/g\n+++ b/f\n", "line 2: expected `--- a/f`, found `--- a/g`"),
        (
            HEAD + "@@ -1 +1 @@\n-a\n+b\n" + HEAD.replace("/f", "/e") + "@@ -1 +1 @@\n-a\n+b\n",
            "`e` must come before `f`",
        ),
    ],
)
def test_what_is_not_canonical(text: str, says: str) -> None:
    with pytest.raises(DiffError) as caught:
        parse_diff(text.encode(), "p/change.patch")
    assert caught.value.message.startswith("p/change.patch")
    assert says in caught.value.message
    assert caught.value.exit_code == 2


def test_modes_additions_deletions() -> None:
    text = (
        "diff --git a/a b/a\nnew file mode 100755\n--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+x\n"
        "diff --git a/b b/b\ndeleted file mode 100644\n--- a/b\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
        "diff --git a/c b/c\nold mode 100644\nnew mode 100755\n"
        "diff --git a/d b/d\nnew file mode 100644\n"
        "diff --git a/e f b/e f\n--- a/e f\t\n+++ b/e f\t\n@@ -1 +1 @@\n-a\n+b\n"
    )
    got = [(d.path, d.added, d.deleted, d.old_mode, d.new_mode, len(d.hunks)) for d in parse_diff(text.encode())]
    assert got == [
        ("a", True, False, "", "100755", 1),
        ("b", False, True, "100644", "", 1),
        ("c", False, False, "100644", "100755", 0),
        ("d", True, False, "", "100644", 0),
        ("e f", False, False, "", "", 1),
    ]


def test_anchor_names_the_enclosing_function() -> None:
    text = (
        "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -10,5 +10,5 @@\n static int calc_nwarps(int n) {\n"
        "     if (n > 8) {\n-        return 2;\n+        return 3;\n     }\n     return 1;\n"
    )
    (diff,) = parse_diff(text.encode())
    assert anchor(MMVQ.encode(), diff.hunks[0]) == (12, "static int calc_nwarps(int n) {")
    labelled = "int f() {\n    x();\nout:\n    y();\n}\n"
    (diff,) = parse_diff(b"diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -4 +4 @@\n-    y();\n+    z();\n")
    assert anchor(labelled.encode(), diff.hunks[0]) == (4, "int f() {")


def test_trees_commits_and_packs_are_git_s(store: Git, tmp_path: Path) -> None:
    """Every id and byte that we make, git makes as well: nested folders, the odd order of `a.b`, `a/`, `a0`."""
    files = {"a.b": b"1", "a/x": b"2", "a/y/z": b"3", "a0": b"4", "b": b"5", "é/ü": b"6"}
    work = tmp_path / "w"
    work.mkdir()
    git(work, "init", "-q")
    for name, data in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(data)
    git(work, "add", "-A")
    pool = ObjectPool()
    state = TreeState.read(store, tree_of(store, {"gone": b"x"}))
    state.remove("gone")
    for name, data in files.items():
        state.set(name, Entry("100644", pool.add("blob", data)))
    tree = state.write(pool)
    assert tree == git(work, "write-tree")
    again = state.copy()
    again.remove("a/y/z")
    again.set("a/x", Entry("100755", again.get("a/x").oid))  # type: ignore[union-attr]
    (work / "a/y/z").unlink()
    (work / "a/x").chmod(0o755)
    git(work, "add", "-A")
    assert again.write(pool) == git(work, "write-tree")
    assert state.write(pool) == tree
    commit = pool.commit(tree, None, author="Ada Ä <ada@localhost>", epoch=1_700_000_000, message="title\n")
    assert pool.store(store) == len(pool.objects)
    assert pool.store(store) == 0
    store.run("fsck", "--strict", "--no-dangling")
    assert store.run("log", "-1", "--format=%T %an %ae %at %cn %ct %B", commit).split("\n")[0] == (
        f"{tree} Ada Ä ada@localhost 1700000000 llamapatch 1700000000 title"
    )
    assert set(TreeState.read(store, tree).files()) == set(files)
