"""The merge of one file: laws that hold for any text, and what the guard says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamapatch.tree.merge import Conflict, Fate, merge
from llamapatch.tree.scope import function_at, opener_name, scope_at
from tests.project import GIT_ENV

TEXT = st.lists(st.sampled_from(["a", "b", "    c", "    d", "}", ""]), max_size=25).map(
    lambda lines: "".join(f"{line}\n" for line in lines).encode()
)
NUMBERED = [f"line {i}\n".encode() for i in range(40)]


@given(TEXT, TEXT)
def test_on_its_own_ground_a_change_is_exact(pre: bytes, post: bytes) -> None:
    found = merge(pre, post, pre)
    assert (found.data, found.passes) == (post, True)


@given(TEXT, TEXT)
def test_a_change_that_is_there_already(pre: bytes, post: bytes) -> None:
    found = merge(pre, post, post)
    assert (found.data, found.conflicts) == (post, ())


@given(TEXT, TEXT, TEXT)
def test_never_a_crash_and_never_a_lost_marker(pre: bytes, post: bytes, now: bytes) -> None:
    found = merge(pre, post, now)
    assert found.data.count(b"<<<<<<< upstream\n") == len(found.conflicts)
    assert found.data.count(b">>>>>>> patch\n") == len(found.conflicts)


@given(st.sets(st.integers(0, 39), max_size=6), st.sets(st.integers(0, 39), max_size=6))
@settings(deadline=None)
def test_what_merges_is_what_git_merges(
    tmp_path_factory: pytest.TempPathFactory, ours: set[int], theirs: set[int]
) -> None:
    """Unique lines leave no doubt, so conflicts and results are the same as git's."""
    pre = b"".join(NUMBERED)
    post = b"".join(b"our " + line if i in ours else line for i, line in enumerate(NUMBERED))
    now = b"".join(b"their " + line if i in theirs else line for i, line in enumerate(NUMBERED))
    folder = tmp_path_factory.getbasetemp()
    for name, data in (("now", now), ("pre", pre), ("post", post)):
        (folder / name).write_bytes(data)
    words = ["git", "merge-file", "-p", "-q", "now", "pre", "post"]
    done = subprocess.run(words, cwd=folder, env=GIT_ENV, capture_output=True)
    found = merge(pre, post, now)
    # git draws conflicts that are close together as one.
    assert bool(found.conflicts) == (done.returncode > 0)
    if done.returncode == 0:
        assert found.data == done.stdout


def test_files_without_a_last_newline_and_with_crlf() -> None:
    assert merge(b"one\ntwo", b"one\ntwo\nthree", b"zero\n\none\ntwo").data == b"zero\n\none\ntwo\nthree"
    crlf = merge(b"a\r\nb\r\nc\r\nd\r\n", b"a\r\nb\r\nc\r\nD\r\n", b"A\r\nb\r\nc\r\nd\r\n")
    assert (crlf.data, crlf.passes) == (b"A\r\nb\r\nc\r\nD\r\n", True)
    clash = merge(b"a\nb", b"a\nours", b"a\ntheirs")
    assert clash.data == b"a\n<<<<<<< upstream\ntheirs\n||||||| before\nb\n=======\nours\n>>>>>>> patch\n"


def test_a_resolver_is_asked_for_each_conflict() -> None:
    asked: list[Conflict] = []

    def resolve(conflict: Conflict) -> tuple[bytes, ...] | None:
        asked.append(conflict)
        return (b"both\n",) if conflict.patch == (b"ours\n",) else None

    pre = b"x\na\ny\nz\nb\nw\n"
    found = merge(
        pre,
        pre.replace(b"a\n", b"ours\n").replace(b"b\n", b"ours 2\n"),
        pre.replace(b"a\n", b"A\n").replace(b"b\n", b"B\n"),
        resolve,
    )
    assert {(c.before, c.now, c.patch) for c in asked} == {
        ((b"a\n",), (b"A\n",), (b"ours\n",)),
        ((b"b\n",), (b"B\n",), (b"ours 2\n",)),
    }
    assert [p.fate for p in found.places] == [Fate.REUSED, Fate.CONFLICT]
    assert found.data.startswith(b"x\nboth\ny\nz\n<<<<<<< upstream\nB\n")


@pytest.mark.parametrize(
    ("pre", "ours", "theirs", "want"),
    [
        ("a\nb\n", "a\nint x = 1;\nint y;\nb\n", "a\nint x = 1;\nb\n", "a\nint x = 1;\nint y;\nb\n"),
        ("a\nb\n", "a\nint x = 1;\nb\n", "a\nint w;\nint x = 1;\nb\n", "a\nint w;\nint x = 1;\nb\n"),
        ("a\n1\n2\nb\n", "a\nI\nII\nb\n", "a\nI\n2\nb\n", "a\nI\nII\nb\n"),
        ("a\n1\n2\nb\n", "a\nI\n2\nb\n", "a\nI\nII\nb\n", "a\nI\nII\nb\n"),
        # A brace that both added may close two things, and lines that differ on both sides are nobody's to choose.
        ("a\nb\n", "a\n}\nb\n", "a\n}\nint x;\nb\n", None),
        ("a\n1\n2\nb\n", "a\nI\nii\nb\n", "a\nI\nII\nb\n", None),
    ],
)
def test_what_one_side_did_in_part(pre: str, ours: str, theirs: str, want: str | None) -> None:
    found = merge(pre.encode(), ours.encode(), theirs.encode())
    assert (found.data.decode() if found.passes else None) == want


def test_the_guard_says_both_places() -> None:
    twin = b"static int %s(int n) {\n    log(n);\n    return 1;\n}\n\n"
    pre = twin % b"rows"
    post = pre.replace(b"    return 1;", b"    lp();\n    return 1;")
    found = merge(pre, post, twin % b"warps" + twin % b"tiles")
    (place,) = found.places
    assert (place.fate, place.line_before, place.function_before) == (Fate.SUSPICIOUS, 3, "static int rows(int n) {")
    assert place.function_now in ("static int warps(int n) {", "static int tiles(int n) {")
    assert place.why.startswith("it stood in `static int rows(int n) {` and would stand in `static int ")


def test_brace_depth_and_conditionals() -> None:
    pre = b"void f() {\n    a();\n    b();\n    c();\n    d();\n    e();\n}\n"
    post = pre.replace(b"    c();\n", b"    lp();\n    c();\n")
    deeper = pre.replace(b"    a();\n", b"    a();\n    {\n").replace(b"    e();\n", b"    e();\n    }\n")
    assert merge(pre, post, deeper).places[0].why == "the brace depth was 1 and is 2"
    hidden = pre.replace(b"    a();\n", b"    a();\n#if 0\n").replace(b"    e();\n", b"    e();\n#endif\n")
    assert merge(pre, post, hidden).places[0].why == "0 preprocessor conditionals enclosed it, now 1 do"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"static int calc_rows(int n) {\n", b"calc_rows"),
        (b"value for_statement::execute_impl(context & ctx) const {\n", b"for_statement::execute_impl"),
        (b"llama_context::~llama_context() {\n", b"llama_context::~llama_context"),
        (b"typedef enum {\n", b""),
        (b"enum ggml_type {\n", b"ggml_type"),
        (b"#define LOAD(x) \\\n", b"LOAD"),
    ],
)
def test_names(line: bytes, name: bytes) -> None:
    assert opener_name(line) == name


def test_scopes(tmp_path: Path) -> None:
    lines = [
        line + b"\n"
        for line in (
            b"#if defined(A)",  # 0
            b"void f(int t) {",  # 1
            b"    switch (t) {",  # 2
            b"        case 1:",  # 3
            b"            a();",  # 4
            b"            break;",  # 5
            b"        case 2:",  # 6
            b"            {",  # 7
            b'                b("}");  // }',  # 8
            b"                c();",  # 9
            b"            } break;",  # 10
            b"    }",  # 11
            b"    if (t) {",  # 12
            b"        d();",  # 13
            b"    } else {",  # 14
            b"        e();",  # 15
            b"    }",  # 16
            b"}",  # 17
            b"#endif",  # 18
        )
    ]
    found = scope_at(lines, 9, 16)
    assert (found.blocks, found.conditionals, found.depth) == ((1, 2, 6), (0,), 3)
    assert scope_at(lines, 15, 8).blocks == (1, 14)
    assert scope_at(lines, 13, 8).blocks == (1, 12)
    assert function_at(lines, 15) == "void f(int t) {"
