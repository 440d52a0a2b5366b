"""Which line became which: the alignment of two versions of a file, without git and without a process.

Lines that are unique in both versions are matched first and in order (patience), the gaps between them by a shortest
edit script (Myers). Where a block of equal lines was added or taken away, several alignments are equally good; a merge
that rests on one of them rests on luck. So `alignments` returns those that differ: the pleasant one (an added function
is added as a whole), the one that matches as early as possible, and the one that matches as late as possible.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# A gap that needs more edits than this counts as rewritten: its lines are no evidence of anything.
_MAX_EDITS = 400


@dataclass(frozen=True)
class Edit:
    """Lines ``[i1, i2)`` of the old version are replaced by ``[j1, j2)`` of the new one; one of them may be empty."""

    i1: int
    i2: int
    j1: int
    j2: int


@dataclass(frozen=True)
class Alignment:
    """`new[i]` is the line of the new version that line `i` of the old one became, or -1; `size` counts the new lines.
    The matches ascend."""

    new: tuple[int, ...]
    size: int

    def edits(self) -> list[Edit]:
        """Everything that is not matched, in order."""
        found: list[Edit] = []
        i = j = 0
        for k, at in enumerate((*self.new, self.size)):
            if at < 0:
                continue
            if k > i or at > j:
                found.append(Edit(i, k, j, at))
            i, j = k + 1, at + 1
        return found


def align(old: Sequence[bytes], new: Sequence[bytes]) -> Alignment:
    """The pleasant alignment."""
    a, b = _numbers(old, new)
    return _slide(_match(a, b), a, b, old, new)


def alignments(old: Sequence[bytes], new: Sequence[bytes]) -> list[Alignment]:
    """The pleasant alignment first, then those of the earliest and the latest match that differ from it."""
    a, b = _numbers(old, new)
    early = _match(a, b)
    mirrored = _match(a[::-1], b[::-1])
    late = [len(b) - 1 - at if at >= 0 else -1 for at in reversed(mirrored)]
    found = [_slide(early, a, b, old, new)]
    for matches in (early, late):
        other = Alignment(tuple(matches), len(b))
        if other not in found:
            found.append(other)
    return found


def _numbers(old: Sequence[bytes], new: Sequence[bytes]) -> tuple[list[int], list[int]]:
    ids: dict[bytes, int] = {}
    return [ids.setdefault(line, len(ids)) for line in old], [ids.setdefault(line, len(ids)) for line in new]


def _match(a: list[int], b: list[int]) -> list[int]:
    """For each of `a` its match in `b` or -1; what can be matched at the start is."""
    match = [-1] * len(a)
    todo = [(0, len(a), 0, len(b))]
    while todo:
        i1, i2, j1, j2 = todo.pop()
        while i1 < i2 and j1 < j2 and a[i1] == b[j1]:
            match[i1] = j1
            i1, j1 = i1 + 1, j1 + 1
        while i1 < i2 and j1 < j2 and a[i2 - 1] == b[j2 - 1]:
            i2, j2 = i2 - 1, j2 - 1
            match[i2] = j2
        if i1 == i2 or j1 == j2:
            continue
        anchors = _unique_in_both(a, i1, i2, b, j1, j2)
        if not anchors:
            for i, j in _shortest(a[i1:i2], b[j1:j2]):
                match[i1 + i] = j1 + j
            continue
        for (p, q), (r, s) in zip([(i1 - 1, j1 - 1), *anchors], [*anchors, (i2, j2)], strict=True):
            todo.append((p + 1, r, q + 1, s))
        for i, j in anchors:
            match[i] = j
    return match


def _unique_in_both(a: list[int], i1: int, i2: int, b: list[int], j1: int, j2: int) -> list[tuple[int, int]]:
    """The longest ascending run of pairs of lines that occur once in each of the two ranges."""
    in_a, in_b = Counter(a[i1:i2]), Counter(b[j1:j2])
    place = {b[j]: j for j in range(j1, j2) if in_b[b[j]] == 1}
    pairs = [(i, place[a[i]]) for i in range(i1, i2) if in_a[a[i]] == 1 and a[i] in place]
    tails: list[int] = []
    ends: list[int] = []
    back: list[int] = []
    for n, (_, j) in enumerate(pairs):
        k = bisect_left(tails, j)
        back.append(ends[k - 1] if k else -1)
        if k == len(tails):
            tails.append(j)
            ends.append(n)
        else:
            tails[k], ends[k] = j, n
    chosen: list[tuple[int, int]] = []
    n = ends[-1] if ends else -1
    while n >= 0:
        chosen.append(pairs[n])
        n = back[n]
    return chosen[::-1]


def _shortest(a: list[int], b: list[int]) -> list[tuple[int, int]]:
    """Pairs of equal lines along a shortest edit script (Myers 1986, greedy), or none when that is too long."""
    reach = {1: 0}
    trace: list[dict[int, int]] = []
    for d in range(min(len(a) + len(b), _MAX_EDITS) + 1):
        trace.append(dict(reach))
        for k in range(-d, d + 1, 2):
            down = k == -d or (k != d and reach[k - 1] < reach[k + 1])
            x = reach[k + 1] if down else reach[k - 1] + 1
            while x < len(a) and 0 <= x - k < len(b) and a[x] == b[x - k]:
                x += 1
            reach[k] = x
            if x >= len(a) and x - k >= len(b):
                return _walk_back(trace, len(a), len(b))
    return []


def _walk_back(trace: list[dict[int, int]], x: int, y: int) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for d in range(len(trace) - 1, -1, -1):
        reach, k = trace[d], x - y
        down = k == -d or (k != d and reach[k - 1] < reach[k + 1])
        before = k + 1 if down else k - 1
        px = reach[before]
        py = px - before
        while x > px and y > py and x > 0 and y > 0:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        x, y = px, max(py, 0)
    return pairs[::-1]


def _slide(match: list[int], a: list[int], b: list[int], old: Sequence[bytes], new: Sequence[bytes]) -> Alignment:
    """Move each pure insertion or deletion, among the places where it says the same, to where it reads best: a whole
    function, not one's tail with the other's head."""
    inserted = _slide_insertions(match, len(b), b, new)
    back = _slide_insertions(_inverse(inserted, len(b)), len(a), a, old)
    return Alignment(tuple(_inverse(back, len(a))), len(b))


def _inverse(match: Sequence[int], size: int) -> list[int]:
    inverse = [-1] * size
    for i, j in enumerate(match):
        if j >= 0:
            inverse[j] = i
    return inverse


def _slide_insertions(match: list[int], size: int, b: list[int], text: Sequence[bytes]) -> list[int]:
    moved = list(match)
    for edit in Alignment(tuple(match), size).edits():
        if edit.i1 != edit.i2:
            continue
        i, start, stop = edit.i1, edit.j1, edit.j2
        low = high = 0
        while i + low > 0 and moved[i + low - 1] == start + low - 1 and b[start + low - 1] == b[stop + low - 1]:
            low -= 1
        while i + high < len(moved) and moved[i + high] == stop + high and b[start + high] == b[stop + high]:
            high += 1
        best = min(range(low, high + 1), key=lambda n: (_weight(text, start + n, stop + n), -n))
        for k in range(best, 0):  # up: what stood before the block stands after it
            moved[i + k] = stop + k
        for k in range(best):
            moved[i + k] = start + k
    return moved


def _weight(text: Sequence[bytes], start: int, stop: int) -> int:
    first = text[start].strip()
    closes = 2 if first[:1] in (b"}", b")") else 0 if first else 1
    return 3 * (indent(text[start]) + (indent(text[stop]) if stop < len(text) else 0)) + closes


def indent(line: bytes) -> int:
    """Columns of white space before the text of a line."""
    spaces = line[: len(line) - len(line.lstrip())]
    return len(spaces.expandtabs(4).rstrip(b"\r\n"))
