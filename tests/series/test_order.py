"""Editing the order of series.toml: the whole new text each time, and random edits against a plain list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamapatch.errors import UsageProblem
from llamapatch.series.order import insert_id, move_id, phase_of, remove_id

HEAD = """\
# The series.
schema = 1   # odd   spacing

[upstream]
version = 'v1'
url = "https://example.org/x"
tree = "0123456789012345678901234567890123456789"

[[upstream.source]]
kind = "git"
"""
TEXT = (
    HEAD
    + """
[[phase]]
id = "phase0"
title = "First"
patches = [
    # what everything needs
    "base-work", # keep first
    "two",
]

[[phase]]
id = "phase1"   # the second
title = "Second"
patches = [
]
"""
)


def test_insert_at_the_end_of_a_phase() -> None:
    assert insert_id(TEXT, "new", phase="phase0") == TEXT.replace('    "two",\n', '    "two",\n    "new",\n')
    assert insert_id(TEXT, "new", phase="phase1") == TEXT.removesuffix("]\n") + '    "new",\n]\n'


def test_insert_next_to_another() -> None:
    assert insert_id(TEXT, "new", before="two") == TEXT.replace('    "two",\n', '    "new",\n    "two",\n')
    wanted = TEXT.replace("# keep first\n", '# keep first\n    "new",\n')
    assert insert_id(TEXT, "new", after="base-work") == wanted
    assert insert_id(TEXT, "new", after="base-work", phase="phase0") == wanted


def test_a_comment_goes_with_its_id() -> None:
    wanted = TEXT.replace('    "base-work", # keep first\n', "").removesuffix("]\n")
    assert move_id(TEXT, "base-work", phase="phase1") == wanted + '    "base-work", # keep first\n]\n'
    assert remove_id(TEXT, "base-work") == TEXT.replace('    "base-work", # keep first\n', "")


def test_a_new_phase() -> None:
    added = '\n[[phase]]\nid = "phase2"\ntitle = "Third"\npatches = [\n    "new",\n]\n'
    assert insert_id(TEXT, "new", phase="phase2", title="Third") == TEXT + added
    assert move_id(insert_id(TEXT, "new", phase="phase1"), "new", phase="phase2", title="Third") == TEXT + added


def test_a_new_phase_ahead_of_another() -> None:
    added = '[[phase]]\nid = "phase2"\ntitle = "Third"\npatches = [\n    "new",\n]\n\n'
    head, heading, rest = TEXT.partition('[[phase]]\nid = "phase1"')
    assert insert_id(TEXT, "new", phase="phase2", title="Third", ahead_of="phase1") == head + added + heading + rest
    head, heading, rest = TEXT.partition('[[phase]]\nid = "phase0"')
    assert insert_id(TEXT, "new", phase="phase2", title="Third", ahead_of="phase0") == head + added + heading + rest


def test_the_form_of_the_array_is_made_regular() -> None:
    """One id per line, whatever it was; the line ends and the indent of the file are kept."""
    short = HEAD + "[[phase]]\nid = 'p'\ntitle = 't'\npatches = ['a', 'b'] # both\n"
    wanted = HEAD + '[[phase]]\nid = \'p\'\ntitle = \'t\'\npatches = [\n    "a",\n    "c",\n    "b",\n] # both\n'
    assert insert_id(short, "c", after="a") == wanted
    assert insert_id(wanted.replace("\n", "\r\n"), "d", phase="p") == (
        wanted.replace('"b",\n', '"b",\n    "d",\n').replace("\n", "\r\n")
    )
    missing = HEAD + "[[phase]]\nid = 'p'\ntitle = 't'\n"
    assert insert_id(missing, "a", phase="p") == missing + 'patches = [\n    "a",\n]\n'
    tabs = HEAD + "[[phase]]\nid = 'p'\ntitle = 't'\npatches = [\n\t\"a\"\n]\n"
    assert insert_id(tabs, "b", phase="p") == tabs.replace('\t"a"\n', '\t"a",\n\t"b",\n')


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: insert_id(TEXT, "two", phase="phase1"), "`two` is in the series already."),
        (lambda: insert_id(TEXT, "New", phase="phase1"), "`New` is no patch id. Use lower-case letters and digits"),
        (lambda: insert_id(TEXT, "new", phase="phase9"), "there is no phase `phase9`. The series has phase0, phase1;"),
        (lambda: insert_id(TEXT, "new"), "no phase is named. The series has phase0, phase1;"),
        (lambda: insert_id(TEXT, "new", before="x"), "there is no patch `x`. See `llamapatch list`."),
        (lambda: insert_id(TEXT, "new", before="two", after="two"), "both `before` and `after` are given."),
        (lambda: insert_id(TEXT, "new", phase="phase1", after="two"), "`two` is in phase0, not in phase1."),
        (lambda: remove_id(TEXT, "x"), "there is no patch `x`."),
        (lambda: move_id(TEXT, "two", before="two"), "`two` cannot be moved next to itself."),
        (lambda: move_id("schema = ", "two", before="x"), "series.toml cannot be edited: "),
        (lambda: remove_id("schema = 1", "two"), "series.toml cannot be edited: "),
        (lambda: remove_id(HEAD + "[[phase]]\nid = 'p'\ntitle = 't'\npatches = [7]\n", "x"), "cannot be edited: "),
        (
            lambda: remove_id("phase = [{id = 'p', title = 't', patches = ['a']}]\n" + HEAD, "a"),
            "series.toml cannot be edited: its phases are inline.",
        ),
    ],
)
def test_what_cannot_be_done(call: object, says: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        call()  # type: ignore[operator]
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


IDS = ["base-work", "two", "three", "four", "five"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["insert", "remove", "move"]), st.sampled_from(IDS), st.sampled_from(IDS), st.booleans()
        ),
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_random_edits_against_a_list(edits: list[tuple[str, str, str, bool]]) -> None:
    """The ids stand as in a plain list, every comment line stays, and nothing outside the arrays changes."""
    text, order = TEXT, ["base-work", "two"]
    for what, patch_id, other, after in edits:
        try:
            if what == "remove":
                text = remove_id(text, patch_id)
            elif what == "insert":
                text = insert_id(text, patch_id, **{"after" if after else "before": other})
            else:
                text = move_id(text, patch_id, **{"after" if after else "before": other})
        except UsageProblem:
            continue
        if what != "insert":
            order.remove(patch_id)
        if what != "remove":
            order.insert(order.index(other) + after, patch_id)
    lines = text.splitlines()
    assert [line.split('"')[1] for line in lines if line.startswith('    "')] == order
    assert all(phase_of(text, i) == "phase0" for i in order)
    assert [line for line in lines if not line.startswith('    "')] == [
        line for line in TEXT.splitlines() if not line.startswith('    "')
    ]
