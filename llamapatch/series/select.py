"""From selectors to an ordered set of patches that can stand together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llamapatch.errors import ConflictError, UsageProblem
from llamapatch.series.load import Series


@dataclass(frozen=True)
class Selection:
    """`ids` is the closure in series order; `asked` what the selectors name themselves, `pulled_in` what these require
    besides, `left_out` what ``--without`` took away (the patch and whatever requires it)."""

    ids: tuple[str, ...]
    asked: tuple[str, ...]
    pulled_in: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def select(series: Series, selectors: Sequence[str], without: Sequence[str] = ()) -> Selection:
    """Resolve `selectors` (a phase, a patch id, ``a..b``, ``all``; none means ``all``) minus `without`.

    A patch that requires one of `without` is left out too, unless it was asked for by its own id: then the request
    contradicts itself. Raises `UsageProblem` for an unknown or empty selector, `ConflictError` for a contradiction and
    for two patches that declare a conflict.
    """
    asked = expand(series, selectors or ("all",))
    ids = with_requirements(series, asked)
    left_out: set[str] = set()
    if without:
        excluded = expand(series, without)
        dropped = with_dependents(series, excluded, among=ids)
        for patch_id in series.ids:
            if patch_id in selectors and patch_id in dropped:
                reason = _requirement_path(series, patch_id, excluded)
                raise ConflictError(
                    f"`{patch_id}` was asked for, but --without takes it away{reason}.", "Drop one of the two."
                )
        left_out = (excluded | dropped) & (ids | excluded)
        # What only the removed patches needed goes as well: the closure is taken again over what remains asked.
        asked = asked - dropped
        ids = with_requirements(series, asked)
    if not ids:
        words = " ".join(selectors) or "all"
        tail = " without " + " ".join(without) if without else ""
        raise UsageProblem(f"`{words}`{tail} selects no patch.", "See `llamapatch list`.")
    _check_conflicts(series, ids)
    return Selection(
        ids=in_order(series, ids),
        asked=in_order(series, asked),
        pulled_in=in_order(series, ids - asked),
        left_out=in_order(series, left_out),
    )


def expand(series: Series, selectors: Iterable[str]) -> set[str]:
    """The ids that the selectors name, without what these require."""
    found: set[str] = set()
    for selector in selectors:
        if selector == "all":
            found |= set(series.ids)
        elif ".." in selector:
            first, last = selector.split("..", 1)
            start = _span(series, first)[0] if first else 0
            stop = _span(series, last)[1] if last else len(series.ids)
            if stop <= start:
                raise UsageProblem(f"`{selector}` runs backwards: `{last}` comes before `{first}`.", "Swap the two.")
            found |= set(series.ids[start:stop])
        else:
            start, stop = _span(series, selector)
            found |= set(series.ids[start:stop])
    return found


def with_requirements(series: Series, ids: Iterable[str]) -> set[str]:
    """`ids` and everything they require, however far."""
    closure: set[str] = set()
    todo = list(ids)
    while todo:
        patch_id = todo.pop()
        if patch_id not in closure:
            closure.add(patch_id)
            todo.extend(series.get(patch_id).meta.requires)
    return closure


def with_dependents(series: Series, ids: Iterable[str], among: Iterable[str]) -> set[str]:
    """Those of `among` that are in `ids` or require one of them, however far."""
    gone = set(ids)
    pool = set(among)
    result: set[str] = set()
    # One pass in series order is enough: a patch requires only earlier ones.
    for patch in series.patches:
        if patch.id in pool and (patch.id in gone or gone & set(patch.meta.requires)):
            gone.add(patch.id)
            result.add(patch.id)
    return result


def in_order(series: Series, ids: Iterable[str]) -> tuple[str, ...]:
    """`ids` in series order."""
    wanted = set(ids)
    return tuple(i for i in series.ids if i in wanted)


def _span(series: Series, word: str) -> tuple[int, int]:
    """The half-open range of positions that a phase or patch id covers."""
    at = 0
    for phase in series.file.phase:
        if phase.id == word:
            return at, at + len(phase.patches)
        if word in phase.patches:
            place = at + phase.patches.index(word)
            return place, place + 1
        at += len(phase.patches)
    known = [p.id for p in series.file.phase] + list(series.ids)
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"Did you mean `{near[0]}`? " if near else ""
    raise UsageProblem(
        f"unknown selector `{word}`.",
        f"{hint}A selector is a phase ({', '.join(p.id for p in series.file.phase)}), a patch id, a range `a..b`, or "
        "`all`; see `llamapatch list`.",
    )


def _check_conflicts(series: Series, ids: set[str]) -> None:
    for patch in series.patches:
        if patch.id in ids:
            for other in patch.meta.conflicts:
                if other in ids:
                    raise ConflictError(
                        f"`{patch.id}` and `{other}` cannot be applied together (`conflicts` in patch.toml).",
                        f"Add `--without {patch.id}` or `--without {other}`.",
                    )


def _requirement_path(series: Series, patch_id: str, excluded: set[str]) -> str:
    """`` (it requires x)`` naming the excluded patch it needs, empty when it is excluded itself."""
    if patch_id in excluded:
        return ""
    needed = in_order(series, with_requirements(series, [patch_id]) & excluded)
    return f" (it requires `{'`, `'.join(needed)}`)"
