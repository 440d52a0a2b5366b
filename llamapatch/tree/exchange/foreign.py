"""Read a unified diff as others write it: git's with all its headers, or plain ``---``/``+++``.

Nothing is guessed: what cannot be read for certain is a `ForeignError`. Hunks keep what they state; whether they fit is
for `llamapatch.tree.exchange.fit` to find out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llamapatch.errors import UsageProblem
from llamapatch.tree.binary import BinaryError, decode_block
from llamapatch.tree.diff import Hunk, leaves_tree, unquote_path

_HUNK = re.compile(rb"^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_MODE = re.compile(rb"^(old mode|new mode|new file mode|deleted file mode) (\d{6})$")
_MOVE = re.compile(rb"^(rename|copy) (from|to) (.+)$")
_INDEX = re.compile(rb"^index ([0-9a-f]{4,40})\.\.([0-9a-f]{4,40})(?: (\d{6}))?$")
_INDEX_LINE = re.compile(rb"^(?:similarity|dissimilarity) index \d+%$")
_GIT = re.compile(rb"^diff --git (.+)$")
# What tools put between the files of a plain diff.
_BETWEEN = re.compile(rb"^(?:Index: |={3,}|Only in |diff -|\s*$)")
# diff(1) writes a name, a tab and a time; for a file that is not there, the first second of the epoch.
_NOTHING = re.compile(rb"^/dev/null(?:\t|$)|\t(?:1970-01-01 0\d:00:00|1969-12-31 1\d:00:00|Thu Jan 0?1 0\d:00:00 1970)")
_MODES = frozenset({"100644", "100755", "120000"})
_NULL = re.compile(r"^0+$")


class ForeignError(UsageProblem):
    """The text is no diff that can be read for certain."""


@dataclass(frozen=True)
class Block:
    """Binary data of one direction; a delta needs the file before."""

    data: bytes
    is_delta: bool


@dataclass(frozen=True)
class ForeignFile:
    """One file of a diff.

    Names are as they stand, prefix and all (see `strip`), None where the file is absent; those of a rename or copy have
    no prefix. `old_id` and `new_id` may be abbreviated, and are empty when not stated.
    """

    old: str | None
    new: str | None
    hunks: tuple[Hunk, ...] = ()
    old_mode: str = ""
    new_mode: str = ""
    old_id: str = ""
    new_id: str = ""
    binary: Block | None = None
    move: str = ""

    @property
    def name(self) -> str:
        """A name for messages."""
        return self.new or self.old or ""


def strip(name: str, count: int) -> str:
    """`name` without its first `count` folders, as ``patch -p``; `ForeignError` when nothing is left, or when the rest
    leads out of the tree."""
    rest = "/".join(name.split("/")[count:])
    if not rest or leaves_tree(rest):
        raise ForeignError(f"`{name}` names no file inside the tree.", "Correct the path, or give `--strip`.")
    return rest


def starts_file(lines: Sequence[bytes], at: int) -> bool:
    """Whether a file of a diff may begin at line `at`."""
    if lines[at].startswith(b"diff --git "):
        return True
    return lines[at].startswith(b"--- ") and at + 2 < len(lines) and lines[at + 1].startswith(b"+++ ")


def read_files(lines: Sequence[bytes], at: int, name: str) -> tuple[list[ForeignFile], int]:
    """The files of the diff that begins at line `at`, and the line after the last; lines end with LF.

    What tools write between the files of a plain diff is passed over, anything else ends it.
    """
    files: list[ForeignFile] = []
    reader = _Reader(lines, at, name)
    while reader.at < len(lines):
        start = reader.at
        while reader.at < len(lines) and not starts_file(lines, reader.at) and _BETWEEN.match(lines[reader.at]):
            reader.at += 1
        if reader.at >= len(lines) or not starts_file(lines, reader.at):
            reader.at = start
            break
        files.append(reader.file())
    return files, reader.at


class _Reader:
    def __init__(self, lines: Sequence[bytes], at: int, name: str) -> None:
        self.lines, self.at, self.name = lines, at, name

    def file(self) -> ForeignFile:
        return self._git() if self._peek().startswith(b"diff --git ") else self._plain()

    def _peek(self) -> bytes:
        """The line at hand, without its LF."""
        return self.lines[self.at].removesuffix(b"\n") if self.at < len(self.lines) else b""

    def _fail(self, what: str) -> ForeignError:
        return ForeignError(f"{self.name}, line {self.at + 1}: {what}.", "The patch is damaged, or of an unknown form.")

    def _plain(self) -> ForeignFile:
        old, new = self._names()
        if old is None and new is None:
            raise self._fail("both names are /dev/null")
        return ForeignFile(old, new, self._hunks())

    def _git(self) -> ForeignFile:
        header = _GIT.match(self._peek())
        if header is None:
            raise self._fail("`diff --git` names no file")
        self.at += 1
        modes: dict[bytes, str] = {}
        moved: dict[bytes, str] = {}
        move = old_id = new_id = index_mode = ""
        while True:
            line = self._peek()
            if match := _MODE.match(line):
                modes[match[1]] = self._mode(match[2])
            elif match := _MOVE.match(line):
                move = match[1].decode()
                moved[match[2]] = self._text(match[3])
            elif match := _INDEX.match(line):
                old_id, new_id = match[1].decode(), match[2].decode()
                index_mode = self._mode(match[3]) if match[3] else ""
            elif not _INDEX_LINE.match(line):
                break
            self.at += 1
        old, new = self._header_names(header[1]) if not moved else (moved.get(b"from"), moved.get(b"to"))
        absent = [False, False]
        if moved and (old is None or new is None):
            raise self._fail("a rename or copy states one name only")
        hunks: tuple[Hunk, ...] = ()
        binary: Block | None = None
        if self._peek() == b"GIT binary patch":
            binary = self._binary()
        elif self._peek().startswith(b"Binary files "):
            raise self._fail(
                "the patch says that a binary file differs, but does not hold it (`git diff --binary` would)"
            )
        elif self._peek().startswith(b"--- "):
            names = self._names()
            absent = [not moved and found is None for found in names]
            if not moved:
                old, new = names[0] or names[1] or old, names[1] or names[0] or new
            hunks = self._hunks()
        elif not modes and not moved:
            raise self._fail("a change of a file was expected")
        if old is None or new is None:
            raise self._fail("the name of the file cannot be told from its header")
        added = b"new file mode" in modes or absent[0] or bool(old_id and _NULL.match(old_id))
        deleted = b"deleted file mode" in modes or absent[1] or bool(new_id and _NULL.match(new_id))
        if (added and deleted) or (move and (added or deleted)):
            raise self._fail("the header contradicts itself")
        return ForeignFile(
            None if added else old,
            None if deleted else new,
            hunks,
            old_mode=modes.get(b"old mode") or modes.get(b"deleted file mode", ""),
            new_mode=modes.get(b"new mode") or modes.get(b"new file mode", "") or (index_mode if added else ""),
            old_id=old_id,
            new_id=new_id,
            binary=binary,
            move=move,
        )

    def _header_names(self, raw: bytes) -> tuple[str | None, str | None]:
        """The two names of ``diff --git``: alike but for their prefix, so a name with spaces can be told."""
        if raw.startswith(b'"') or raw.endswith(b'"'):
            quoted = re.match(rb'^("(?:[^"\\]|\\.)*"|[^"\s]+) ("(?:[^"\\]|\\.)*"|[^"\s]+)$', raw)
            return (self._text(quoted[1]), self._text(quoted[2])) if quoted else (None, None)
        middle = len(raw) // 2
        first, second = raw[:middle], raw[middle + 1 :]
        if raw[middle : middle + 1] == b" " and (
            first == second or first.partition(b"/")[2] == second.partition(b"/")[2] != b""
        ):
            return self._text(first), self._text(second)
        words = raw.split(b" ")
        return (self._text(words[0]), self._text(words[1])) if len(words) == 2 else (None, None)

    def _names(self) -> tuple[str | None, str | None]:
        """The names of a ``---``/``+++`` pair."""
        found: list[str | None] = []
        for mark in (b"--- ", b"+++ "):
            line = self._peek().removesuffix(b"\r")
            if not line.startswith(mark):
                raise self._fail(f"expected a line that begins with `{mark.decode()}`")
            rest = line[len(mark) :]
            found.append(None if _NOTHING.search(rest) else self._text(rest.partition(b"\t")[0].rstrip(b" ")))
            self.at += 1
        return found[0], found[1]

    def _text(self, raw: bytes) -> str:
        try:
            if raw.startswith(b'"') and raw.endswith(b'"') and len(raw) > 1:
                raw = unquote_path(raw[1:-1])
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self._fail("the path is not UTF-8") from None
        except ValueError:
            raise self._fail("the path is not quoted as git quotes") from None
        if not text or "\0" in text:
            raise self._fail("the path is empty or holds a NUL")
        return text

    def _mode(self, raw: bytes) -> str:
        mode = {"100664": "100644", "100775": "100755"}.get(raw.decode(), raw.decode())
        if mode not in _MODES:
            what = "a submodule" if mode == "160000" else f"mode {mode}"
            raise self._fail(f"{what} cannot be part of a patch")
        return mode

    def _binary(self) -> Block:
        """The forward block; the one that leads back, if there is one, must be readable."""
        self.at += 1
        blocks: list[Block] = []
        while self._peek().startswith((b"literal ", b"delta ")) and len(blocks) < 2:
            start = self.at
            while self._peek():
                self.at += 1
            body = [line.rstrip(b"\n") for line in self.lines[start : self.at]]
            self.at += self.at < len(self.lines)
            try:
                blocks.append(Block(*decode_block(body[0], body[1:])))
            except BinaryError as error:
                raise self._fail(str(error)) from error
        if not blocks:
            raise self._fail("the binary patch holds no data")
        return blocks[0]

    def _hunks(self) -> tuple[Hunk, ...]:
        hunks = []
        while match := _HUNK.match(self._peek()):
            self.at += 1
            old, new = (int(match[i]) if match[i] is not None else 1 for i in (2, 4))
            hunks.append(Hunk(int(match[1]), int(match[3]), self._body(old, new)))
        if not hunks:
            raise self._fail("a hunk was expected")
        return tuple(hunks)

    def _body(self, old: int, new: int) -> tuple[tuple[bytes, bytes], ...]:
        lines: list[tuple[bytes, bytes]] = []
        while old > 0 or new > 0 or (self.at < len(self.lines) and self.lines[self.at].startswith(b"\\ ")):
            line = self.lines[self.at] if self.at < len(self.lines) else b""
            kind = line[:1]
            if kind == b"\\" and lines and lines[-1][1].endswith(b"\n"):
                lines[-1] = (lines[-1][0], lines[-1][1][:-1])
            elif line in (b"\n", b"\r\n"):  # an empty context line whose space was lost on the way
                old, new = old - 1, new - 1
                lines.append((b" ", line))
            elif kind in (b" ", b"-", b"+"):
                old -= kind != b"+"
                new -= kind != b"-"
                lines.append((kind, line[1:] if line.endswith(b"\n") else line[1:] + b"\n"))
            else:
                raise self._fail("the hunk is shorter than its header says")
            if old < 0 or new < 0:
                raise self._fail("the hunk is longer than its header says")
            self.at += 1
        return tuple(lines)
