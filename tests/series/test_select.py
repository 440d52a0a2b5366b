"""Selectors, closures, exclusions."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamapatch.errors import ConflictError, UsageProblem
from llamapatch.series.load import Series
from llamapatch.series.select import Selection, select
from tests.project import Project

ALL = ("foundation", "sampler", "warps", "warps-more")


@pytest.mark.parametrize(
    ("selectors", "ids", "pulled_in"),
    [
        ([], ALL, ()),
        (["all"], ALL, ()),
        (["phase0"], ("foundation",), ()),
        (["phase1"], ("foundation", "sampler"), ("foundation",)),
        (["warps-more"], ("foundation", "warps", "warps-more"), ("foundation", "warps")),
        (["phase2", "sampler"], ALL, ("foundation",)),
        (["sampler..warps"], ("foundation", "sampler", "warps"), ("foundation",)),
        (["phase1..phase2"], ALL, ("foundation",)),
        (["..sampler"], ("foundation", "sampler"), ()),
        (["warps.."], ("foundation", "warps", "warps-more"), ("foundation",)),
        (["sampler", "sampler"], ("foundation", "sampler"), ("foundation",)),
    ],
)
def test_selectors(sampler: Project, selectors: list[str], ids: tuple[str, ...], pulled_in: tuple[str, ...]) -> None:
    found = select(sampler.series(), selectors)
    assert (found.ids, found.pulled_in) == (ids, pulled_in)
    assert set(found.asked) | set(found.pulled_in) == set(found.ids)


@pytest.mark.parametrize(
    ("selectors", "message"),
    [
        (["wraps"], "unknown selector `wraps`. Did you mean `warps`? A selector is a phase (phase0, phase1, phase2), "),
        (["phase9"], "unknown selector `phase9`. Did you mean `phase2`? "),
        (["sampler..nothing"], "unknown selector `nothing`. "),
        (["warps..sampler"], "`warps..sampler` runs backwards: `sampler` comes before `warps`. Swap the two."),
        ([""], "unknown selector ``. "),
    ],
)
def test_unknown_selectors(sampler: Project, selectors: list[str], message: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        select(sampler.series(), selectors)
    assert str(caught.value).startswith(message)


def test_an_empty_phase_selects_nothing(project: Project) -> None:
    project.patch("one", "phase1", edit={"x": "y\n"})
    with pytest.raises(UsageProblem, match="`phase2` selects no patch"):
        select(project.series(), ["phase2"])


def test_without(sampler: Project) -> None:
    series = sampler.series()
    assert select(series, [], ["sampler"]) == Selection(
        ids=("foundation", "warps", "warps-more"),
        asked=("foundation", "warps", "warps-more"),
        pulled_in=(),
        left_out=("sampler",),
    )
    # Its dependents go with it, and are named.
    assert select(series, [], ["warps"]) == Selection(
        ids=("foundation", "sampler"), asked=("foundation", "sampler"), pulled_in=(), left_out=("warps", "warps-more")
    )
    # What only they needed is not kept.
    assert select(series, ["phase2", "sampler"], ["phase2"]).ids == ("foundation", "sampler")
    with pytest.raises(UsageProblem, match="`all` without foundation selects no patch"):
        select(series, [], ["foundation"])
    with pytest.raises(UsageProblem, match="unknown selector `samplr`"):
        select(series, [], ["samplr"])


def test_without_contradicts_what_was_asked(sampler: Project) -> None:
    with pytest.raises(ConflictError) as caught:
        select(sampler.series(), ["warps-more"], ["warps"])
    assert str(caught.value) == (
        "`warps-more` was asked for, but --without takes it away (it requires `warps`). Drop one of the two."
    )
    with pytest.raises(ConflictError, match=r"`warps` was asked for, but --without takes it away\. Drop"):
        select(sampler.series(), ["warps"], ["warps"])


def test_declared_conflicts(project: Project) -> None:
    project.patch("one", edit={"a": "1\n"})
    project.patch("two", edit={"b": "2\n"}, conflicts=("one",))
    series = project.series()
    assert select(series, ["two"]).ids == ("two",)
    with pytest.raises(ConflictError) as caught:
        select(series, [])
    assert str(caught.value) == (
        "`two` and `one` cannot be applied together (`conflicts` in patch.toml). Add `--without two` or "
        "`--without one`."
    )
    assert select(series, [], ["one"]).ids == ("two",)


@pytest.fixture
def series(sampler: Project) -> Series:
    return sampler.series()


@given(picked=st.sets(st.sampled_from(ALL), min_size=1), out=st.sets(st.sampled_from(ALL), max_size=2))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_selection_is_always_closed_and_ordered(series: Series, picked: set[str], out: set[str]) -> None:
    try:
        found = select(series, sorted(picked), sorted(out))
    except (UsageProblem, ConflictError):
        return
    assert list(found.ids) == [i for i in series.ids if i in found.ids]
    for patch_id in found.ids:
        assert set(series.get(patch_id).meta.requires) <= set(found.ids)
    assert not set(found.ids) & out
    assert not set(found.ids) & set(found.left_out)
    assert select(series, found.ids).ids == found.ids
