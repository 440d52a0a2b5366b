"""The three-way merge of one file, and the guard that asks whether each change landed where it was meant to.

`merge` carries the change from `pre` to `post` over to `now`. It merges along every alignment of `pre` with `now` that
is as good as another (`llamapatch.tree.align`), and asks of each change: are the lines that enclose it the same lines,
is the brace depth the same, would another alignment put it elsewhere? A change that passes is merged, one that lands
cleanly but does not pass is suspicious, the rest is conflict. ``git apply`` and ``git am -3`` ask none of this.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from llamapatch.tree.align import Alignment, Edit, align, alignments, indent
from llamapatch.tree.diff import split_lines
from llamapatch.tree.scope import Scope, block_end, function_at, last_part, opener_name, scope_at, words

# A statement that a condition follows.
_CONTROL = re.compile(rb"^\s*(?:[}#]\s*)?(if|else|elif|elseif|for|foreach|while|switch|do|ifdef|ifndef)\b")

# The lines around a conflict in a merged file.
BEGIN, END = b"<<<<<<< upstream", b">>>>>>> "


class Fate(StrEnum):
    """What became of one change in a file."""

    PLACED = "placed"
    ALREADY = "already-upstream"
    REUSED = "reused"
    SUSPICIOUS = "suspicious"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class Place:
    """One change: the line that it begins at in the pre-image and in the file as it is now, from 1, and the function.
    `why` says what makes it suspicious, or remarks on what the enclosing line became."""

    fate: Fate
    line_before: int
    line_now: int
    function_before: str
    function_now: str
    why: str = ""


@dataclass(frozen=True)
class Conflict:
    """Lines that both sides changed. `line_before` and `line_now` (from 1) are where they begin in the pre-image and in
    the file as it is now."""

    line_before: int
    line_now: int
    function: str
    before: tuple[bytes, ...]
    now: tuple[bytes, ...]
    patch: tuple[bytes, ...]


@dataclass(frozen=True)
class Merge:
    """`data` is the merged content; with conflicts it holds git's markers in the style of ``diff3``."""

    data: bytes
    places: tuple[Place, ...]
    conflicts: tuple[Conflict, ...]

    @property
    def suspicious(self) -> tuple[Place, ...]:
        return tuple(p for p in self.places if p.fate is Fate.SUSPICIOUS)

    @property
    def passes(self) -> bool:
        """Whether everything landed, and where it was meant to."""
        return not self.conflicts and not self.suspicious


# What a person once decided for a conflict, or None; see `llamapatch.tree.resolutions`.
Resolver = Callable[[Conflict], tuple[bytes, ...] | None]


def merge(pre: bytes, post: bytes, now: bytes, resolve: Resolver | None = None, label: str = "patch") -> Merge:
    """Carry the change `pre` -> `post` over to `now`. `label` names the patch in conflict markers."""
    old, new, there = split_lines(pre), split_lines(post), split_lines(now)
    found = _merge_lines(old, new, there, resolve, label)
    return found if found.passes else _follow(old, new, there, resolve, label) or found


def _merge_lines(old: list[bytes], new: list[bytes], there: list[bytes], resolve: Resolver | None, label: str) -> Merge:
    ours = align(old, new).edits()
    tries = [_Try(old, new, there, ours, way, resolve, label) for way in alignments(old, there)]
    merges = [t.merge() for t in tries]
    passing = [m for m in merges if m.passes]
    if not passing:
        clean = [m for m in merges if not m.conflicts]
        return clean[0] if clean else merges[0]
    chosen = passing[0]
    rivals = [t for t, m in zip(tries, merges, strict=True) if m.data != chosen.data and (m.passes or t.is_serious(m))]
    if not rivals:
        return chosen
    doubt = "equal lines were added or taken away, so that it could as well belong elsewhere"
    other = rivals[0].merge()
    return replace(
        chosen,
        places=tuple(
            replace(mine, fate=Fate.SUSPICIOUS, why=_elsewhere(doubt, theirs))
            if mine.fate is Fate.PLACED and (mine.line_now, mine.fate) != (theirs.line_now, theirs.fate)
            else mine
            for mine, theirs in zip(chosen.places, other.places, strict=True)
        ),
    )


def _follow(
    old: list[bytes], new: list[bytes], there: list[bytes], resolve: Resolver | None, label: str
) -> Merge | None:
    """Merge function by function where upstream moved them about: each changed block that is known by a first line of
    its own is merged with the block of that line, wherever it is. None unless every change passes."""
    edits = align(old, new).edits()
    count_old, count_there = Counter(old), Counter(there)
    blocks: dict[int, list[Edit]] = {}
    for edit in edits:
        column = min((indent(t) for t in (*old[edit.i1 : edit.i2], *new[edit.j1 : edit.j2]) if t.strip()), default=0)
        scope = scope_at(old, edit.i1, column)
        if not scope.blocks or count_old[old[scope.blocks[0]]] != 1 or count_there[old[scope.blocks[0]]] != 1:
            return None
        blocks.setdefault(scope.blocks[0], []).append(edit)
    result = list(there)
    places: list[Place] = []
    # From the last to the first in the new file, so that line numbers before a block stay what they are.
    for start in sorted(blocks, key=lambda i: there.index(old[i]), reverse=True):
        stop, at = block_end(old, start), there.index(old[start])
        end = block_end(there, at)
        inside = blocks[start]
        if inside[-1].i2 > stop or _branches(old, start) != _branches(there, at):
            return None
        shift = inside[0].j1 - inside[0].i1
        grown = sum((e.j2 - e.j1) - (e.i2 - e.i1) for e in inside)
        versions = (old[start:stop], new[start + shift : stop + shift + grown], there[at:end])
        part = _merge_lines(*versions, resolve, label)
        if not part.passes:
            return None
        result[at:end] = split_lines(part.data)
        moved = f"`{_text(old[start])}` moved from line {start + 1} to line {at + 1}"
        places = [
            *(
                replace(p, line_before=p.line_before + start, line_now=p.line_now + at, why=p.why or moved)
                for p in part.places
            ),
            *places,
        ]
    return Merge(b"".join(result), tuple(sorted(places, key=lambda p: p.line_before)), ())


def _branches(lines: Sequence[bytes], at: int) -> list[bytes]:
    return [lines[i] for i in scope_at(lines, at, 0).conditionals]


def _elsewhere(doubt: str, other: Place) -> str:
    return f"{doubt} (line {other.line_now})" if other.fate is Fate.PLACED else doubt


@dataclass(frozen=True)
class _Group:
    """Changes of the two sides that overlap or touch, and the lines of the pre-image that they cover."""

    start: int
    stop: int
    ours: tuple[Edit, ...]
    theirs: tuple[Edit, ...]


class _Try:
    """One merge, along one alignment."""

    def __init__(
        self,
        old: list[bytes],
        new: list[bytes],
        there: list[bytes],
        ours: list[Edit],
        way: Alignment,
        resolve: Resolver | None,
        label: str,
    ) -> None:
        self.old, self.new, self.there, self.way = old, new, there, way
        self.ours, self.theirs = ours, way.edits()
        self.resolve, self.label = resolve, label
        self.count_old, self.count_there = Counter(old), Counter(there)

    def merge(self) -> Merge:
        out: list[bytes] = []
        places: list[Place] = []
        conflicts: list[Conflict] = []
        at = at_there = 0
        for group in _groups(self.ours, self.theirs):
            out += self.old[at : group.start]
            at_there += group.start - at
            at = group.stop
            upstream, stop = _side(self.there, group.theirs, group, at_there)
            if not group.ours:
                out += upstream
                at_there = stop
                continue
            mine, _ = _side(self.new, group.ours, group, group.ours[0].j1 - (group.ours[0].i1 - group.start))
            if not group.theirs:
                places.append(self._guard(group.ours[0], at_there))
                out += mine
            elif (taken := _taken(self.old[group.start : group.stop], mine, upstream)) is not None:
                fate = Fate.ALREADY if taken == upstream else Fate.PLACED
                why = "" if taken == upstream else "upstream has part of it already"
                places += [self._place(fate, edit, at_there, why) for edit in group.ours]
                out += taken
            else:
                conflict = Conflict(
                    group.start + 1,
                    at_there + 1,
                    function_at(self.old, group.ours[0].i1 - 1),
                    tuple(self.old[group.start : group.stop]),
                    tuple(upstream),
                    tuple(mine),
                )
                decided = self.resolve(conflict) if self.resolve else None
                fate = Fate.CONFLICT if decided is None else Fate.REUSED
                places += [self._place(fate, edit, at_there) for edit in group.ours]
                if decided is None:
                    conflicts.append(conflict)
                    out += self._marked(conflict)
                else:
                    out += decided
            at_there = stop
        return Merge(b"".join(out + self.old[at:]), tuple(places), tuple(conflicts))

    def is_serious(self, merged: Merge) -> bool:
        """Whether a merge with conflicts is a reading of what happened that must be reckoned with: some lines that the
        change stands on are gone. An insertion beside it, or lines that ended up in another function, are none."""
        if not merged.conflicts:
            return False
        for group in _groups(self.ours, self.theirs):
            for edit in group.ours:
                if not group.theirs:
                    continue
                around = [i for i in (edit.i1 - 1, *range(edit.i1, edit.i2), edit.i2) if 0 <= i < len(self.old)]
                kept = [i for i in around if self.way.new[i] >= 0]
                if len(kept) < len(around) and all(self._stays(edit, i) for i in kept):
                    return True
        return False

    def _stays(self, edit: Edit, line: int) -> bool:
        column = self._column(edit)
        here, there = scope_at(self.old, line, column), scope_at(self.there, self.way.new[line], column)
        return self._differs(here, there, edit)[0] == ""

    def _place(self, fate: Fate, edit: Edit, at_there: int, why: str = "") -> Place:
        return Place(
            fate,
            edit.i1 + 1,
            at_there + 1,
            function_at(self.old, edit.i1 - 1),
            function_at(self.there, at_there - 1),
            why,
        )

    def _guard(self, edit: Edit, at_there: int) -> Place:
        column = self._column(edit)
        before, now = scope_at(self.old, edit.i1, column), scope_at(self.there, at_there, column)
        why, remark = self._differs(before, now, edit)
        if not why and before.blocks and not self._is_itself(before):
            why = f"its block begins with `{_text(self.old[before.blocks[0]])}` like others, and changed too much"
        return self._place(Fate.SUSPICIOUS if why else Fate.PLACED, edit, at_there, why or remark)

    def _column(self, edit: Edit) -> int:
        """The indentation of what the change is about."""
        touched = [*self.old[edit.i1 : edit.i2], *self.new[edit.j1 : edit.j2]]
        told = [line for line in touched if line.strip() and not line.lstrip().startswith(b"#")]
        if not told:
            told = [line for line in self.old[edit.i1 : edit.i2 + 3] if line.strip()][:1]
        return min((indent(line) for line in told), default=0)

    def _differs(self, before: Scope, now: Scope, edit: Edit) -> tuple[str, str]:
        """Why two scopes are not the same (empty when they are), and a remark on an enclosing line that changed."""
        remarks: list[str] = []
        for what, mine, theirs in (
            ("preprocessor conditionals", before.conditionals, now.conditionals),
            ("blocks", before.blocks, now.blocks),
        ):
            if len(mine) != len(theirs):
                return f"{len(mine)} {what} enclosed it, now {len(theirs)} do", ""
            for level, (i, j) in enumerate(zip(mine, theirs, strict=True)):
                ok, remark = self._corresponds(i, j, edit, is_function=what == "blocks" and level == 0)
                if not ok:
                    return f"it stood in `{_text(self.old[i])}` and would stand in `{_text(self.there[j])}`", ""
                remarks += [remark] if remark else []
        if before.depth != now.depth:
            return f"the brace depth was {before.depth} and is {now.depth}", ""
        return "", "; ".join(remarks)

    def _corresponds(self, i: int, j: int, edit: Edit, *, is_function: bool) -> tuple[bool, str]:
        """Whether line `j` is what the enclosing line `i` became."""
        if self.way.new[i] == j:
            return True, ""
        line, became = self.old[i], self.there[j]
        if line == became and self.count_old[line] == self.count_there[line] == 1:
            return True, ""
        change = next((e for e in self.theirs if e.i1 <= i < e.i2 and e.j1 <= j < e.j2), None)
        if change is None:
            return False, ""
        column = indent(line)
        alone = (_openers(self.old, change.i1, change.i2, column), _openers(self.there, change.j1, change.j2, column))
        if alone != (1, 1):
            return False, ""
        name, new_name = opener_name(line), opener_name(became)
        if not is_function:
            same = _condition_grew(line, became) and self._stands_alone(edit)
            return same, f"`{_text(line)}` became `{_text(became)}`"
        if name == new_name:
            one_each = len(self._bearers(self.old, name)) == len(self._bearers(self.there, name)) == 1
            return one_each, f"the signature became `{_text(became)}`"
        if self._is_renamed(name, new_name, i, j) and self._stands_alone(edit):
            return True, f"`{name.decode(errors='replace')}` was renamed to `{new_name.decode(errors='replace')}`"
        return False, ""

    def _is_renamed(self, name: bytes, new_name: bytes, i: int, j: int) -> bool:
        """A rename in place: the old name is gone, the new one is new, the rest of the line is much the same, and no
        other new line is as good a successor."""
        name, new_name = last_part(name), last_part(new_name)
        if not name or not new_name or self._mentions(self.there, name) or self._mentions(self.old, new_name):
            return False
        successors = [
            k
            for k, line in enumerate(self.there)
            if indent(line) == indent(self.old[i])
            and self.count_old[line] == 0
            and _openers(self.there, k, k + 1, indent(line))
            and _resembles(self.old[i], name, line)
        ]
        return successors == [j] and self._follows_its_callers(name, new_name, i)

    def _follows_its_callers(self, name: bytes, new_name: bytes, opener: int) -> bool:
        """Whether all that used the old name uses the new one, and nothing else about it changed: a function that was
        replaced by one of the same shape has other callers. Where nothing used it, one name must contain the other."""
        uses = [line for k, line in enumerate(self.old) if k != opener and name in line and name in words(line)]
        if not uses:
            return name in new_name or new_name in name
        renamed = re.compile(rb"\b" + re.escape(name) + rb"\b")
        return all(self.count_there[renamed.sub(new_name, line)] for line in uses)

    @staticmethod
    def _bearers(lines: Sequence[bytes], name: bytes) -> list[bytes]:
        """The lines in the first column that introduce this name; prototypes do not."""
        return [
            line
            for line in lines
            if name in line and indent(line) == 0 and not line.rstrip().endswith(b";") and opener_name(line) == name
        ]

    @staticmethod
    def _mentions(lines: Sequence[bytes], name: bytes) -> bool:
        return any(name in line and name in words(line) for line in lines)

    def _stands_alone(self, edit: Edit) -> bool:
        """Whether the lines around a change that are still there, as far as its block goes, occur once in each."""
        column = self._column(edit)
        start, stop = edit.i1, edit.i2
        while start > max(edit.i1 - 3, 0) and self._belongs(start - 1, column):
            start -= 1
        while stop < min(edit.i2 + 3, len(self.old)) and self._belongs(stop, column):
            stop += 1
        context = self.old[start:stop]
        return _occurrences(self.old, context) == 1 and _occurrences(self.there, context) == 1

    def _belongs(self, line: int, column: int) -> bool:
        return self.way.new[line] >= 0 and (not self.old[line].strip() or indent(self.old[line]) >= column)

    def _is_itself(self, scope: Scope) -> bool:
        """Whether the enclosing block is known by more than a line that others share."""
        enclosing = [*scope.blocks, *scope.conditionals]
        if any(self.count_old[self.old[i]] == 1 for i in enclosing):
            return True
        block = range(scope.blocks[0], block_end(self.old, scope.blocks[0]))
        own = [i for i in block if self.count_old[self.old[i]] == 1 and len(self.old[i].strip()) > 2]
        return not own or 2 * sum(self.way.new[i] >= 0 for i in own) >= len(own)

    def _marked(self, conflict: Conflict) -> list[bytes]:
        parts: list[bytes] = []
        for mark, lines in (
            (BEGIN, conflict.now),
            (b"||||||| before", conflict.before),
            (b"=======", conflict.patch),
        ):
            parts += [mark + b"\n", *lines]
            if lines and not lines[-1].endswith(b"\n"):
                parts.append(b"\n")
        return [*parts, END + self.label.encode() + b"\n"]


def _groups(ours: Sequence[Edit], theirs: Sequence[Edit]) -> list[_Group]:
    """The changes of both sides in order; those that overlap or touch are one group, as in git."""
    found: list[_Group] = []
    for edit, is_ours in sorted(
        [(e, True) for e in ours] + [(e, False) for e in theirs], key=lambda x: (x[0].i1, x[0].i2)
    ):
        mine, other = ((edit,), ()) if is_ours else ((), (edit,))
        last = found[-1] if found else None
        if last is not None and edit.i1 <= last.stop and not (is_ours and not last.theirs) and (is_ours or last.ours):
            found[-1] = _Group(last.start, max(last.stop, edit.i2), last.ours + mine, last.theirs + other)
        else:
            found.append(_Group(edit.i1, edit.i2, mine, other))
    return found


def _taken(before: list[bytes], mine: list[bytes], upstream: list[bytes]) -> list[bytes] | None:
    """The lines that both sides come to where one of them did all that the other did, and perhaps more; else None.

    That is so line by line where no line was added or removed, and for lines that both added in one place where one
    side's are the beginning or the end of the other's.
    """
    if mine == upstream:
        return mine
    if len(before) == len(mine) == len(upstream):
        both = list(zip(before, mine, upstream, strict=True))
        if all(theirs in (old, ours) for old, ours, theirs in both):
            return mine
        if all(ours in (old, theirs) for old, ours, theirs in both):
            return upstream
        return None
    less, more = sorted((mine, upstream), key=len)
    if before or not less or less not in (more[: len(less)], more[-len(less) :]):
        return None
    # Two sides may both add a `break;` or a `}` and mean different things by it.
    return more if any(len(words(line)) > 1 for line in less) else None


def _side(lines: list[bytes], edits: tuple[Edit, ...], group: _Group, start: int) -> tuple[list[bytes], int]:
    """The lines that one side has for a group, and where they stop; `start` is where they begin."""
    grown = sum((e.j2 - e.j1) - (e.i2 - e.i1) for e in edits)
    stop = start + (group.stop - group.start) + grown
    return lines[start:stop], stop


def _openers(lines: Sequence[bytes], start: int, stop: int, column: int) -> int:
    """How many lines of a range begin something: they have this indentation, and the next line more."""
    count = 0
    for i in range(start, stop):
        if lines[i].strip() and indent(lines[i]) == column:
            after = next((line for line in lines[i + 1 : i + 4] if line.strip() and line.strip() != b"{"), b"")
            count += indent(after) > column or lines[i].lstrip().startswith(b"#")
    return count


def _condition_grew(line: bytes, other: bytes) -> bool:
    """Whether a line is still the same statement with a changed condition. A label or a key (``case X:``, ``[X] = {``)
    is what its block is known by: with another one it is another block."""
    keyword, other_keyword = _CONTROL.match(line), _CONTROL.match(other)
    if keyword is None or other_keyword is None or keyword[1] != other_keyword[1]:
        return False
    mine, theirs = words(line), words(other)
    return 2 * len(mine & theirs) >= len(mine | theirs)


def _resembles(line: bytes, name: bytes, other: bytes) -> bool:
    """Whether two lines introduce the same kind of thing, names left out."""
    rest, other_rest = words(line) - {name}, words(other) - {last_part(opener_name(other))}
    return 2 * len(rest & other_rest) >= len(rest | other_rest)


def _occurrences(lines: Sequence[bytes], context: Sequence[bytes]) -> int:
    if not context:
        return 0
    size = len(context)
    return sum(
        lines[i] == context[0] and list(lines[i : i + size]) == list(context) for i in range(len(lines) - size + 1)
    )


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    return text if len(text) <= 80 else text[:77] + "..."
