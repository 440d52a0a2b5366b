"""Where a line stands: the lines that enclose it, by indentation, by preprocessor conditional and by braces.

Indentation alone finds the function, the ``switch`` arm, the ``enum`` and the CMake call without a parser for each
language; lines in the first column that are conditionals of the preprocessor enclose in their own way. Brace depth is
counted from the function on, so that what another function does with ``#ifdef`` and half a pair of braces is no matter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llamapatch.tree.align import indent

_CONDITIONAL = re.compile(rb"^\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b")
_DIRECTIVE = re.compile(rb"^\s*#\s*(include|pragma|undef|error|warning|line)\b")
_ANNOTATION = re.compile(rb"^\s*(//|/\*|\*)|^(public|private|protected)\s*:")
# What braces do not count in: comments that end on their line, strings and characters.
_NOISE = re.compile(rb'//.*|/\*.*?\*/|"(?:\\.|[^"\\])*"|' + rb"'(?:\\.|[^'\\])*'")
_NAME = re.compile(rb"[A-Za-z_~][\w~]*(?:::[A-Za-z_~][\w~]*)*")
_KEYWORDS = frozenset(
    b"static inline const void int float double bool char auto struct class enum union typedef extern template "
    b"typename unsigned signed long short size_t namespace using define constexpr if for while switch case".split()
)


@dataclass(frozen=True)
class Scope:
    """The lines that enclose a place, outermost first: `blocks` by indentation, `conditionals` the active branch of
    each open ``#if``; and how many braces are open since the outermost block began."""

    blocks: tuple[int, ...]
    conditionals: tuple[int, ...]
    depth: int


def scope_at(lines: Sequence[bytes], at: int, column: int) -> Scope:
    """What encloses text of indentation `column` that stands, or would stand, before line `at`."""
    blocks: list[int] = []
    limit = column
    for i in range(at - 1, -1, -1):
        if limit == 0:
            break
        line = lines[i]
        if not line.strip() or _CONDITIONAL.match(line) or _DIRECTIVE.match(line) or _ANNOTATION.match(line):
            continue
        here = indent(line)
        if here < limit and (_opens(line.strip()) or _is_bare_block(lines, i)):
            blocks.append(i)
            limit = here
        elif here < limit:
            # A closing line ends a sibling, and an opening brace on its own line belongs to the line above it.
            limit = here + 1
    blocks.reverse()
    return Scope(tuple(blocks), _conditionals(lines, at), _depth(lines, blocks[0] if blocks else at, at))


def _opens(text: bytes) -> bool:
    """Whether a line that is indented less may be what encloses a place: `} else {` may, `}` and `{` may not."""
    return text[:1] not in (b"}", b")", b"{") or (len(text) > 1 and text.endswith(b"{"))


def _is_bare_block(lines: Sequence[bytes], at: int) -> bool:
    """Whether line `at` is an opening brace that belongs to no line above it."""
    if lines[at].strip() != b"{":
        return False
    above = next((line.strip() for line in reversed(lines[:at]) if line.strip()), b"")
    return above.endswith((b";", b"}", b"{"))


def block_end(lines: Sequence[bytes], opener: int) -> int:
    """The line after the block that `opener` begins: everything indented deeper, and the closing line."""
    column = indent(lines[opener])
    for i in range(opener + 1, len(lines)):
        text = lines[i].strip()
        if not text or _CONDITIONAL.match(lines[i]) or indent(lines[i]) > column or text == b"{":
            continue
        return i + 1 if text[:1] in (b"}", b")") else i
    return len(lines)


def opener_name(line: bytes) -> bytes:
    """The name that a line introduces, with its class: what stands before its first parenthesis, or its last word."""
    head = _NOISE.sub(b"", line).split(b"(", 1)[0]
    names = [w for w in _NAME.findall(head) if w not in _KEYWORDS]
    return names[-1] if names else b""


def last_part(name: bytes) -> bytes:
    """A name without its class."""
    return name.rpartition(b"::")[2]


def words(line: bytes) -> frozenset[bytes]:
    """The words and numbers of a line."""
    return frozenset(re.findall(rb"\w+", line))


def function_at(lines: Sequence[bytes], at: int) -> str:
    """How a person would say where line `at` stands: the line in the first column that opens what it is in."""
    for i in range(min(at, len(lines) - 1), -1, -1):
        line = lines[i]
        if re.match(rb"[A-Za-z_$~]|::|#\s*define\b", line) and not re.match(rb"[A-Za-z_]\w*:(?!:)", line):
            return line.decode("utf-8", "replace").strip()
    return ""


def _conditionals(lines: Sequence[bytes], at: int) -> tuple[int, ...]:
    stack: list[int] = []
    for i in range(at):
        line = lines[i]
        if b"#" not in line:
            continue
        match = _CONDITIONAL.match(line)
        if match is None:
            continue
        if match[1].startswith(b"if"):
            stack.append(i)
        elif stack and match[1] == b"endif":
            stack.pop()
        elif stack:
            stack[-1] = i
    return tuple(stack)


def _depth(lines: Sequence[bytes], start: int, at: int) -> int:
    depth = 0
    for line in lines[start:at]:
        if b"{" in line or b"}" in line:
            bare = _NOISE.sub(b"", line)
            depth += bare.count(b"{") - bare.count(b"}")
    return depth
