"""Numeric ids that a series claims in upstream's enums, against those that upstream gave out meanwhile.

``GGML_TYPE_*`` and ``LLAMA_FTYPE_*`` are written into files that outlive both sides: a number that means one thing to
the fork and another to upstream merges without a conflict and corrupts models. ``GGML_OP_COUNT`` is asserted in several
files; a count that was right for either side alone is wrong for both together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llamapatch.series.load import Series
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.objects import TreeState
from llamapatch.tree.thread import Change

# Where upstream keeps the enums and the assertions on them.
HEADERS = ("ggml/include/ggml.h", "include/llama.h")
ASSERTS = ("ggml/src/ggml.c", "ggml/include/ggml-rpc.h", "ggml/src/ggml-rpc/ggml-rpc.cpp")
_FAMILIES = ("GGML_TYPE_", "LLAMA_FTYPE_", "GGML_OP_")
_MEMBER = re.compile(rb"^\s*((?:GGML_TYPE|LLAMA_FTYPE|GGML_OP)_\w+)\s*(?:=\s*(\d+)\s*)?(?:,|$|//|/\*)", re.MULTILINE)
_ASSERT = re.compile(rb"static_assert\s*\(\s*(GGML_(?:OP|TYPE)_COUNT)\s*==\s*(\d+)")


@dataclass(frozen=True)
class Collision:
    """`patch` claims `name` = `value`; `other` says who has that number or that name too."""

    patch: str
    name: str
    value: int
    other: str

    def __str__(self) -> str:
        return f"{self.patch}: {self.name} = {self.value}: {self.other}" if self.patch else f"{self.name}: {self.other}"


def members(text: bytes) -> dict[str, int]:
    """The numbered members of upstream's enums in a header; one without a number follows the one before it."""
    found: dict[str, int] = {}
    family, following = "", 0
    for match in _MEMBER.finditer(text):
        name = match[1].decode()
        here = next(f for f in _FAMILIES if name.startswith(f))
        if here != family:
            family, following = here, 0
        value = int(match[2]) if match[2] else following
        found[name], following = value, value + 1
    return found


def collisions(
    series: Series, changes: Sequence[Change], new: TreeState, result: TreeState, blobs: Blobs
) -> list[Collision]:
    """What `series` claims and upstream (the tree `new`) has given to another name, what two patches claim, and counts
    that are wrong in `result`, the tree with every patch that was carried."""
    upstream: dict[str, int] = {}
    for path in HEADERS:
        upstream |= members(_text(new, path, blobs))
    claims = list(_claims(series, changes, blobs))
    found: list[Collision] = []
    for n, (patch, name, value) in enumerate(claims):
        if name in upstream and upstream[name] != value:
            found.append(Collision(patch, name, value, f"upstream has {name} = {upstream[name]}"))
        for other, number in upstream.items():
            if number == value and other != name and _same_family(name, other) and not other.endswith("_COUNT"):
                found.append(Collision(patch, name, value, f"upstream has {other} = {number}"))
        for other_patch, other, number in claims[:n]:
            if number == value and other != name and _same_family(name, other):
                found.append(Collision(patch, name, value, f"`{other_patch}` claims it for {other}"))
    return found + list(_wrong_counts(result, blobs))


def _claims(series: Series, changes: Sequence[Change], blobs: Blobs) -> Iterator[tuple[str, str, int]]:
    """(patch, name, value) of every ``[registry]`` entry and of every member that a patch adds to a header."""
    for patch, change in zip(series.patches, changes, strict=True):
        claimed = dict(patch.meta.registry)
        for file in change.files:
            if file.path in HEADERS and file.pre is not None and file.post is not None:
                before, after = members(blobs.get(file.pre.oid)), members(blobs.get(file.post.oid))
                # An operation's number is nobody's but the build's; types are stored in files.
                added = {n: v for n, v in after.items() if n not in before and not n.startswith("GGML_OP_")}
                claimed = added | claimed
        yield from ((patch.id, name, value) for name, value in sorted(claimed.items()))


def _wrong_counts(result: TreeState, blobs: Blobs) -> Iterator[Collision]:
    header = members(_text(result, HEADERS[0], blobs))
    for path in ASSERTS:
        for match in _ASSERT.finditer(_text(result, path, blobs)):
            name, value = match[1].decode(), int(match[2])
            if name in header and header[name] != value:
                yield Collision("", name, value, f"{path} asserts {value}, the merged enum has {header[name]}")


def _same_family(name: str, other: str) -> bool:
    return any(name.startswith(f) and other.startswith(f) for f in _FAMILIES)


def _text(state: TreeState, path: str, blobs: Blobs) -> bytes:
    entry = state.get(path)
    return blobs.get(entry.oid) if entry else b""
