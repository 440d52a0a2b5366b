"""The canonical diff: read, check, apply to the byte, and write.

``change.patch`` holds unified diffs with three lines of context, ``a/`` and ``b/`` prefixes, files in byte order and
no ``index`` lines; nothing follows the second ``@@``; no mail header. One change then has one spelling, and blob ids
live in ``series.lock``, where they may change without touching a patch. Renames stand as a deletion and an addition; a
file whose diff would hold a NUL byte stands as a ``GIT binary patch`` (with the ``index`` line that git asks for then).

Which lines a change consists of is git's choice (Myers with the indent heuristic, every option given); all other bytes
are written here (docs/decisions/canonical-diff.md).

`apply_hunks` accepts a hunk at the line it states, with exactly the lines it states, or not at all. ``git apply`` would
search the neighbourhood and can silently choose a look-alike function.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from llamapatch.errors import InternalError, MismatchError, UsageProblem
from llamapatch.git import Git
from llamapatch.tree.binary import BinaryError, decode_block, encode_literal
from llamapatch.tree.objects import ABSENT, hash_object

_HEADER = re.compile(rb'^diff --git (?:a/(.+) b/\1|"a/((?:[^"\\\n]|\\.)+)" "b/\2")\n$')
_HUNK = re.compile(rb"^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(.*)\n$")
_MODE = re.compile(rb"^(old mode|new mode|new file mode|deleted file mode) (100644|100755|120000)\n$")
_INDEX = re.compile(rb"^index ([0-9a-f]{40})\.\.([0-9a-f]{40})(?: (\d{6}))?\n$")
_TREES = re.compile(rb"^[0-9a-f]{40} [0-9a-f]{40}\n$")
_NO_NEWLINE = b"\\ No newline at end of file\n"
_BINARY = b"GIT binary patch\n"
# What counts as the start of a function, type or namespace: a name in the first column, but no label and no macro line.
_ANCHOR = re.compile(rb"^(?:[A-Za-z_$~]|::)")
_LABEL = re.compile(rb"^[A-Za-z_]\w*:(?!:)")
_ESCAPES = {7: b"a", 8: b"b", 9: b"t", 10: b"n", 11: b"v", 12: b"f", 13: b"r", 34: b'"', 92: b"\\"}

# --text: what is binary is decided here, whatever attributes say.
DIFF_OPTIONS = (
    "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--text", "-U3", "--inter-hunk-context=0",
    "--src-prefix=a/", "--dst-prefix=b/", "--no-relative", "--diff-algorithm=myers", "--indent-heuristic",
)  # fmt: skip


class DiffError(UsageProblem):
    """``change.patch`` is not a canonical diff."""


class HunkError(MismatchError):
    """A hunk does not stand where, or on what, it says."""


# The blob ids of a file before and after a change, and its mode where that stays (else empty): git's ``index`` line.
Ids = tuple[str, str, str]


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
class Binary:
    """The whole content of a file before and after; empty where it is absent."""

    old: bytes
    new: bytes


@dataclass(frozen=True)
class FileDiff:
    """The change of one file. A mode is empty when the diff does not state it; `added` and `deleted` say what became
    of the file as a whole. A file has hunks, or `binary`, or neither (an empty file, a change of mode)."""

    path: str
    hunks: tuple[Hunk, ...]
    added: bool = False
    deleted: bool = False
    old_mode: str = ""
    new_mode: str = ""
    binary: Binary | None = None


def parse_diff(data: bytes, name: str = "change.patch") -> tuple[FileDiff, ...]:
    """Parse a canonical diff; raises `DiffError` that names `name` and the line."""
    files = _Parser(data, name).parse()
    for before, after in pairwise(files):
        # A file that becomes a link, or the reverse, stands twice: deleted, then added.
        swapped = before.path == after.path and before.deleted and after.added
        if before.path.encode() >= after.path.encode() and not swapped:
            raise DiffError(f"{name}: `{after.path}` must come before `{before.path}`.", "Sort the files by bytes.")
    return tuple(files)


def apply_hunks(pre: bytes, diff: FileDiff, name: str = "change.patch") -> bytes:
    """The content of `diff.path` after the change; raises `HunkError` unless every line is where the hunk says."""
    if diff.binary is not None:
        if pre != diff.binary.old:
            raise HunkError(
                f"{name}: {diff.path} is another binary file than the one the patch was made for.",
                "The patch was made for another tree; nothing is applied by guessing.",
            )
        return diff.binary.new
    lines = split_lines(pre)
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
    lines = split_lines(pre)
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
    return canonical_diffs(git, [(old_tree, new_tree, paths)])[0]


def canonical_diffs(git: Git, pairs: Sequence[tuple[str, str, Collection[str]]]) -> list[bytes]:
    """`canonical_diff` of many pairs (old tree, new tree, paths; none: all) with one process."""
    return [format_diff(diff for diff, _ in files) for files in diff_trees(git, pairs)]


def diff_trees(git: Git, pairs: Sequence[tuple[str, str, Collection[str]]]) -> list[list[tuple[FileDiff, Ids]]]:
    """The changed files of each pair (old tree, new tree, paths; none: all), with their blob ids before and after."""
    wanted = {path for _, _, paths in pairs for path in paths} if all(paths for _, _, paths in pairs) else set()
    raw = git.run_bytes(
        *("diff-tree", "--stdin", "-r", "-p", "--full-index", *DIFF_OPTIONS, "--", *sorted(wanted)),
        input="".join(f"{old} {new}\n" for old, new, _ in pairs).encode(),
        env={"GIT_LITERAL_PATHSPECS": "1"},
    )
    # git says nothing about a pair that does not differ.
    sections = iter(_Parser(raw, "git diff-tree", raw=True).parse_pairs())
    section = next(sections, None)
    found: list[list[tuple[FileDiff, Ids]]] = []
    for old, new, paths in pairs:
        files: list[tuple[FileDiff, Ids]] = []
        if section is not None and section[0] == f"{old} {new}":
            files = [f for f in section[1] if not paths or f[0].path in paths]
            section = next(sections, None)
        found.append(files)
    if section is not None:
        raise InternalError("git diff-tree answered with trees that it was not asked for")
    binary = {oid for files in found for diff, ids in files if _holds_nul(diff) for oid in ids[:2]}
    blobs = git.read_blobs(sorted(binary - {ABSENT})) if binary else {}
    blobs[ABSENT] = b""
    return [
        [
            (replace(diff, hunks=(), binary=Binary(blobs[ids[0]], blobs[ids[1]])) if _holds_nul(diff) else diff, ids)
            for diff, ids in files
        ]
        for files in found
    ]


def format_diff(files: Iterable[FileDiff]) -> bytes:
    """The canonical bytes of `files`, which must be in byte order of their paths."""
    return b"".join(_format_file(diff, None) for diff in files)


def format_indexed(files: Iterable[tuple[FileDiff, Ids]]) -> bytes:
    """`format_diff` with an ``index`` line for each file, so that who receives it can merge three ways."""
    return b"".join(_format_file(diff, ids) for diff, ids in files)


def _format_file(diff: FileDiff, ids: Ids | None) -> bytes:
    path = diff.path.encode("utf-8", "surrogateescape")
    old, new = quote_path(b"a/" + path), quote_path(b"b/" + path)
    out = [b"diff --git %b %b\n" % (old, new)]
    if diff.added:
        out.append(b"new file mode %b\n" % diff.new_mode.encode())
    elif diff.deleted:
        out.append(b"deleted file mode %b\n" % diff.old_mode.encode())
    elif diff.new_mode:
        out.append(b"old mode %b\nnew mode %b\n" % (diff.old_mode.encode(), diff.new_mode.encode()))
    if diff.binary is not None:
        pre = ABSENT if diff.added else hash_object("blob", diff.binary.old)
        post = ABSENT if diff.deleted else hash_object("blob", diff.binary.new)
        ids = (pre, post, ids[2] if ids else "")
    if ids is not None and ids[0] != ids[1]:
        out.append(f"index {ids[0]}..{ids[1]} {ids[2]}".rstrip().encode() + b"\n")
    if diff.binary is not None:
        out.append(_BINARY)
        out += [encode_literal(diff.binary.new), encode_literal(diff.binary.old)]
    elif diff.hunks:
        # git ends a name that holds a space with a tab, so that nothing takes what follows the space for a date.
        out.append(b"--- " + (b"/dev/null" if diff.added else old + b"\t" * (b" " in old)) + b"\n")
        out.append(b"+++ " + (b"/dev/null" if diff.deleted else new + b"\t" * (b" " in new)) + b"\n")
        out += [_format_hunk(hunk) for hunk in diff.hunks]
    return b"".join(out)


def _format_hunk(hunk: Hunk) -> bytes:
    def span(start: int, count: int) -> bytes:
        return b"%d" % start if count == 1 else b"%d,%d" % (start, count)

    head = b"@@ -%b +%b @@\n" % (span(hunk.old_start, len(hunk.old)), span(hunk.new_start, len(hunk.new)))
    body = [kind + (text if text.endswith(b"\n") else text + b"\n" + _NO_NEWLINE) for kind, text in hunk.lines]
    return head + b"".join(body)


def quote_path(path: bytes) -> bytes:
    """A path as git writes it in a diff: in quotes when it holds a quote, a backslash or a control character."""
    if not any(byte < 0x20 or byte in (0x22, 0x5C, 0x7F) for byte in path):
        return path
    out = bytearray(b'"')
    for byte in path:
        if byte in _ESCAPES:
            out += b"\\" + _ESCAPES[byte]
        elif byte < 0x20 or byte == 0x7F:
            out += b"\\%03o" % byte
        else:
            out.append(byte)
    return bytes(out + b'"')


def unquote_path(quoted: bytes) -> bytes:
    """What stands between the quotes of `quote_path`; `ValueError` for an escape that git does not know."""
    named = {value[0]: key for key, value in _ESCAPES.items()}
    out = bytearray()
    at = 0
    while at < len(quoted):
        if quoted[at] != 0x5C:
            out.append(quoted[at])
            at += 1
        elif (octal := re.match(rb"[0-3][0-7]{2}", quoted[at + 1 : at + 4])) is not None:
            out.append(int(octal[0], 8))
            at += 4
        elif quoted[at + 1 : at + 2] and quoted[at + 1] in named:
            out.append(named[quoted[at + 1]])
            at += 2
        else:
            raise ValueError("unknown escape")
    return bytes(out)


def _holds_nul(diff: FileDiff) -> bool:
    return any(b"\0" in text for hunk in diff.hunks for _, text in hunk.lines)


class _Parser:
    """`raw` is for what git itself printed: ``index`` lines everywhere, text after the second ``@@``."""

    def __init__(self, data: bytes, name: str, *, raw: bool = False) -> None:
        self.lines = split_lines(data)
        self.name = name
        self.raw = raw
        self.at = 0
        self.ids: Ids = (ABSENT, ABSENT, "")

    def parse(self) -> list[FileDiff]:
        files = []
        while self.at < len(self.lines):
            files.append(self._file())
        return files

    def parse_pairs(self) -> Iterable[tuple[str, list[tuple[FileDiff, Ids]]]]:
        """What ``diff-tree --stdin`` prints: the line that names a pair, and its files with their blob ids."""
        while self.at < len(self.lines):
            if not _TREES.match(self._peek()):
                raise self._fail("expected two trees")
            pair = self._peek().decode().strip()
            self.at += 1
            files = []
            while self.at < len(self.lines) and not _TREES.match(self._peek()):
                self.ids = (ABSENT, ABSENT, "")
                files.append((self._file(), self.ids))
            yield pair, files

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
        try:
            raw = header[1] if header[1] is not None else unquote_path(header[2])
            path = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self._fail("the path is not UTF-8") from None
        except ValueError:
            raise self._fail("the path is not quoted as git quotes") from None
        if leaves_tree(path):
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
        binary: Binary | None = None
        index = _INDEX.match(self._peek())
        if index and (self.raw or self.lines[self.at + 1 : self.at + 2] == [_BINARY]):
            self.ids = (index[1].decode(), index[2].decode(), (index[3] or b"").decode())
            self.at += 1
        if self._peek() == _BINARY and index:
            binary = self._binary(added, deleted)
        elif self._peek().startswith(b"--- "):
            old, new = quote_path(b"a/" + raw), quote_path(b"b/" + raw)
            self._expect(b"--- /dev/null\n" if added else b"--- " + old + b"\n", raw)
            self._expect(b"+++ /dev/null\n" if deleted else b"+++ " + new + b"\n", raw)
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
            binary=binary,
        )

    def _binary(self, added: bool, deleted: bool) -> Binary:
        self.at += 1
        new, old = self._literal(), self._literal()
        ids = (ABSENT if added else hash_object("blob", old), ABSENT if deleted else hash_object("blob", new))
        if ids != self.ids[:2] or (added and old) or (deleted and new):
            raise self._fail("the binary data are not what the `index` line says")
        return Binary(old, new)

    def _literal(self) -> bytes:
        start = self.at
        while self._peek() not in (b"\n", b""):
            self.at += 1
        block = [line.rstrip(b"\n") for line in self.lines[start : self.at]]
        self.at += 1
        try:
            data, is_delta = decode_block(block[0] if block else b"", block[1:])
        except BinaryError as error:
            raise self._fail(str(error)) from error
        if is_delta:
            raise self._fail("a delta is not canonical")
        return data

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
            if match[5] and not self.raw:
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


def leaves_tree(path: str) -> bool:
    """Whether git would refuse `path` in a tree: absolute, climbing, or inside a repository's own folder."""
    return any(part in ("", ".", "..") or part.lower() == ".git" for part in path.split("/"))


def split_lines(data: bytes) -> list[bytes]:
    """Lines with their LF; a carriage return is an ordinary byte, as in git."""
    lines = data.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _show(line: bytes) -> str:
    text = line.decode("utf-8", "replace").rstrip("\n")
    return f"`{text if len(text) <= 100 else text[:97] + '...'}`"
