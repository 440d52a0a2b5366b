"""The canonical diff: read, check, apply to the byte, and write.

``change.patch`` holds unified diffs with three lines of context, ``a/`` and ``b/`` prefixes, files in byte order and
no ``index`` lines; nothing follows the second ``@@``; no mail header. One change then has one spelling, and blob ids
live in ``series.lock``, where they may change without touching a patch.

`apply_hunks` accepts a hunk at the line it states, with exactly the lines it states, or not at all. ``git apply`` would
search the neighbourhood and can silently choose a look-alike function.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from llamapatch.errors import MismatchError, UsageProblem
from llamapatch.git import Git

_HEADER = re.compile(rb"^diff --git a/(.+) b/\1\n$")
_HUNK = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)\n$")
_MODE = re.compile(rb"^(old mode|new mode|new file mode|deleted file mode) (100644|100755|120000)\n$")
_NO_NEWLINE = b"\\ No newline at end of file\n"
# What counts as the start of a function, type or namespace: a name in the first column, but no label and no macro line.
_ANCHOR = re.compile(rb"^(?:[A-Za-z_$~]|::)")
_LABEL = re.compile(rb"^[A-Za-z_]\w*:(?!:)")

DIFF_OPTIONS = (
    "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "-U3", "--src-prefix=a/", "--dst-prefix=b/",
    "--diff-algorithm=myers", "--indent-heuristic",
)  # fmt: skip


class DiffError(UsageProblem):
    """``change.patch`` is not a canonical diff."""


class HunkError(MismatchError):
    """A hunk does not stand where, or on what, it says."""


@dataclass(frozen=True)
class Hunk:
    """`old_start` and `new_start` count from 1 (the line before, when the count is 0). `lines` are (kind, text): kind
    is ``b" "``, ``b"-"`` or ``b"+"``; text ends with LF unless it is the last line of a file without one."""

    old_start: int
    new_start: int
    lines: tuple[tuple[bytes, bytes], ...]

    @property
    def old(self) -> list[bytes]:
        return [text for kind, text in self.lines if kind != b"+"]

    @property
    def new(self) -> list[bytes]:
        return [text for kind, text in self.lines if kind != b"-"]


@dataclass(frozen=True)
class FileDiff:
    """The change of one file. A mode is empty when the diff does not state it; `added` and `deleted` say what became
    of the file as a whole."""

    path: str
    hunks: tuple[Hunk, ...]
    added: bool = False
    deleted: bool = False
    old_mode: str = ""
    new_mode: str = ""


def parse_diff(data: bytes, name: str = "change.patch") -> tuple[FileDiff, ...]:
    """Parse a canonical diff; raises `DiffError` that names `name` and the line."""
    files = _Parser(data, name).parse()
    for before, after in pairwise(files):
        if before.path.encode() >= after.path.encode():
            raise DiffError(f"{name}: `{after.path}` must come before `{before.path}`.", "Sort the files by bytes.")
    return tuple(files)


def apply_hunks(pre: bytes, diff: FileDiff, name: str = "change.patch") -> bytes:
    """The content of `diff.path` after the change; raises `HunkError` unless every line is where the hunk says."""
    lines = _split(pre)
    out: list[bytes] = []
    at = 0
    for number, hunk in enumerate(diff.hunks, 1):
        old, new = hunk.old, hunk.new
        start = hunk.old_start - 1 if old else hunk.old_start
        where = f"{name}: {diff.path}, hunk {number}"
        if start < at:
            raise HunkError(f"{where} overlaps the one before it.", "Make the patch again.")
        out += lines[at:start]
        found = lines[start : start + len(old)]
        if found != old:
            wrong = next((i for i, (a, b) in enumerate(zip(found, old, strict=False)) if a != b), len(found))
            here = _show(found[wrong]) if wrong < len(found) else "the end of the file"
            raise HunkError(
                f"{where} does not match at line {start + wrong + 1}: the tree has {here}, "
                f"the patch expects {_show(old[wrong])}.",
                "The patch was made for another tree; nothing is applied by guessing.",
            )
        if len(out) != (hunk.new_start - 1 if new else hunk.new_start):
            raise HunkError(
                f"{where} states line {hunk.new_start} for its result, which would be line {len(out) + 1}.",
                "Make the patch again.",
            )
        out += new
        at = start + len(old)
    return b"".join(out + lines[at:])


def anchor(pre: bytes, hunk: Hunk) -> tuple[int, str]:
    """Where a hunk stands in the pre-image: the first line that it changes, and the line that opens the enclosing
    function, type or section (empty when there is none)."""
    lines = _split(pre)
    line = hunk.old_start - 1 if hunk.old else hunk.old_start
    for kind, _ in hunk.lines:
        if kind != b" ":
            break
        line += 1
    for text in reversed(lines[:line]):
        if _ANCHOR.match(text) and not _LABEL.match(text):
            return line + 1, text.decode("utf-8", "replace").rstrip()
    return line + 1, ""


def canonical_diff(git: Git, old_tree: str, new_tree: str, paths: Sequence[str] = ()) -> bytes:
    """The canonical diff between two trees of one repository, of all files or of `paths` only."""
    raw = git.run_bytes(
        *("diff-tree", "-r", "-p", "--full-index", *DIFF_OPTIONS, old_tree, new_tree, "--", *paths),
        env={"GIT_LITERAL_PATHSPECS": "1"},
    )
    return canonicalise(raw)


def canonicalise(raw: bytes) -> bytes:
    """git's diff without ``index`` lines and without what follows the second ``@@``.

    Only header lines are touched: hunks are skipped by their counts, so that a changed line which looks like a header
    survives.
    """
    out: list[bytes] = []
    old = new = 0
    for line in _split(raw):
        if old > 0 or new > 0 or line.startswith(b"\\"):
            old -= line[:1] in (b" ", b"-")
            new -= line[:1] in (b" ", b"+")
            out.append(line)
        elif hunk := _HUNK.match(line):
            old, new = (int(hunk[i]) if hunk[i] is not None else 1 for i in (2, 4))
            out.append(line[: hunk.start(5)] + b"\n")
        elif not line.startswith(b"index "):
            out.append(line)
    return b"".join(out)


class _Parser:
    def __init__(self, data: bytes, name: str) -> None:
        self.lines = _split(data)
        self.name = name
        self.at = 0

    def parse(self) -> list[FileDiff]:
        files = []
        while self.at < len(self.lines):
            files.append(self._file())
        return files

    def _peek(self) -> bytes:
        return self.lines[self.at] if self.at < len(self.lines) else b""

    def _fail(self, what: str) -> DiffError:
        shown = _show(self._peek()) if self.at < len(self.lines) else "the end of the file"
        return DiffError(
            f"{self.name}, line {self.at + 1}: {what}, found {shown}.",
            "A canonical diff has no mail header, no `index` lines and nothing after the second @@.",
        )

    def _file(self) -> FileDiff:
        header = _HEADER.match(self._peek())
        if not header:
            raise self._fail("expected `diff --git a/PATH b/PATH`")
        raw = header[1]
        try:
            path = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self._fail("the path is not UTF-8") from None
        if any(part in ("", ".", "..", ".git") for part in path.split("/")):
            raise self._fail("the path leaves the tree")
        self.at += 1
        modes: dict[str, str] = {}
        while match := _MODE.match(self._peek()):
            modes[match[1].decode()] = match[2].decode()
            self.at += 1
        added, deleted = "new file mode" in modes, "deleted file mode" in modes
        if ("old mode" in modes) != ("new mode" in modes) or (added and deleted) or (modes and self._bad_mix(modes)):
            raise self._fail("the mode lines contradict each other")
        hunks: tuple[Hunk, ...] = ()
        if self._peek().startswith(b"--- "):
            self._expect(b"--- /dev/null\n" if added else b"--- a/" + raw + b"\n", raw)
            self._expect(b"+++ /dev/null\n" if deleted else b"+++ b/" + raw + b"\n", raw)
            hunks = self._hunks()
        elif not modes:
            raise self._fail("expected `--- a/PATH`")
        return FileDiff(
            path,
            hunks,
            added,
            deleted,
            old_mode=modes.get("old mode") or modes.get("deleted file mode", ""),
            new_mode=modes.get("new mode") or modes.get("new file mode", ""),
        )

    @staticmethod
    def _bad_mix(modes: dict[str, str]) -> bool:
        return ("old mode" in modes) == ("new file mode" in modes or "deleted file mode" in modes)

    def _expect(self, line: bytes, path: bytes) -> None:
        # git ends the name with a tab when it holds a space.
        if self._peek() not in (line, line[:-1] + b"\t\n" if b" " in path else line):
            raise self._fail(f"expected {_show(line)}")
        self.at += 1

    def _hunks(self) -> tuple[Hunk, ...]:
        hunks = []
        while match := _HUNK.match(self._peek()):
            if match[5]:
                raise self._fail("nothing may follow the second @@")
            self.at += 1
            old, new = (int(match[i]) if match[i] is not None else 1 for i in (2, 4))
            hunks.append(Hunk(int(match[1]), int(match[3]), self._body(old, new)))
        if not hunks:
            raise self._fail("expected a hunk")
        return tuple(hunks)

    def _body(self, old: int, new: int) -> tuple[tuple[bytes, bytes], ...]:
        lines: list[tuple[bytes, bytes]] = []
        while old > 0 or new > 0 or self._peek() == _NO_NEWLINE:
            line = self._peek()
            kind = line[:1]
            if line == _NO_NEWLINE and lines and lines[-1][1].endswith(b"\n"):
                lines[-1] = (lines[-1][0], lines[-1][1][:-1])
            elif kind in (b" ", b"-", b"+") and line.endswith(b"\n"):
                old -= kind != b"+"
                new -= kind != b"-"
                lines.append((kind, line[1:]))
            else:
                raise self._fail("the hunk is shorter than its header says")
            self.at += 1
        if old or new:
            raise self._fail("the hunk is longer than its header says")
        return tuple(lines)


def _split(data: bytes) -> list[bytes]:
    """Lines with their LF; a carriage return is an ordinary byte, as in git."""
    lines = data.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _show(line: bytes) -> str:
    text = line.decode("utf-8", "replace").rstrip("\n")
    return f"`{text if len(text) <= 100 else text[:97] + '...'}`"
