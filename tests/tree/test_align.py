"""Alignments: always a valid edit script, always in order; what an added look-alike does to them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamapatch.tree.align import Alignment, Edit, align, alignments
from llamapatch.tree.diff import split_lines

LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"    d\n", b"}\n", b"\n"]), max_size=30)


def rebuild(way: Alignment, old: list[bytes], new: list[bytes]) -> list[bytes]:
    out: list[bytes] = []
    at = 0
    for edit in way.edits():
        out += old[at : edit.i1] + new[edit.j1 : edit.j2]
        at = edit.i2
    return out + old[at:]


@given(LINES, LINES)
def test_every_alignment_is_an_edit_script(old: list[bytes], new: list[bytes]) -> None:
    for way in alignments(old, new):
        matches = [j for j in way.new if j >= 0]
        assert matches == sorted(set(matches))
        assert all(old[i] == new[j] for i, j in enumerate(way.new) if j >= 0)
        assert rebuild(way, old, new) == new


@given(LINES)
def test_equal_files_have_no_edit(lines: list[bytes]) -> None:
    assert align(lines, lines).edits() == []
    assert len(alignments(lines, lines)) == 1


@given(st.binary(max_size=60))
def test_lines_add_up(data: bytes) -> None:
    assert b"".join(split_lines(data)) == data
    assert all(line.endswith(b"\n") for line in split_lines(data)[:-1])


def test_an_added_function_is_added_whole() -> None:
    old = split_lines(b"int f() {\n    return 1;\n}\n\nint g() {\n    return 2;\n}\n")
    added = split_lines(b"int h() {\n    return 1;\n}\n\n")
    new = [*old[:4], *added, *old[4:]]
    assert align(old, new).edits() == [Edit(4, 4, 4, 8)]


def test_equal_blocks_have_two_alignments() -> None:
    block = split_lines(b"    if (x) {\n        go();\n    }\n")
    pleasant, *others = alignments(block * 2, block * 3)
    assert pleasant.edits() == [Edit(6, 6, 6, 9)]
    assert [way.edits() for way in others] == [[Edit(0, 0, 0, 3)]]
