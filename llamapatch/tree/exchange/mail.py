"""Patches as mail: what ``git format-patch`` writes, one file each or a mailbox, and what mail systems make of it.

Where does the message end and the diff begin? git am stops at the first line that looks like a diff, which cuts off a
message that quotes one. Here the diff is the part of the mail that can be read as a diff from its first line to the
mail's end, and the message is what stands before it.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import email.errors
import email.header
import email.message
import email.utils
import re
from collections.abc import Sequence
from itertools import islice

from llamapatch.tree.diff import split_lines
from llamapatch.tree.exchange.carried import read_carried
from llamapatch.tree.exchange.foreign import ForeignError, ForeignFile, read_files, starts_file
from llamapatch.tree.exchange.incoming import Found, Incoming, NotTaken

# mboxo's separator, told from a line of text by the time and year that it ends with, as git tells it.
_FROM = re.compile(rb"^From \S+ .*\d:\d\d(?::\d\d)? .*\d{4}\s*$")
_HEADER = re.compile(rb"^[!-9;-~]+:(?:[ \t]|\r?$)")
_PATCH_TAG = re.compile(r"^\s*\[(?=[^\]]*(?:PATCH|RFC))[^\]]*\]\s*", re.IGNORECASE)
_REPLY = re.compile(r"^\s*(?:(?:re|fwd?|aw):\s*)+", re.IGNORECASE)
_STAT = re.compile(
    rb"^(?: \S.*\|\s+(?:\d+ [+-]*|\d+|Bin\b.*|Unmerged)\s*| \d+ files? changed.*| (?:create|delete) mode \d{6} .*"
    rb"| mode change \d{6} => \d{6} .*| (?:rename|copy) .*\(\d+%\)| rewrite .*\(\d+%\)|\s*)$"
)
_SUMMARY = re.compile(rb"^ \d+ files? changed")
# How many quotations of diffs, and how many rules, a message may hold; each costs a look at the rest of the mail.
_TRIES = 20
_IN_BODY = re.compile(r"^(From|Subject|Date): (.*)$")
_TRAILER = re.compile(r"^(Signed-off-by|Co-authored-by|Reviewed-by|Acked-by|Llamapatch-[A-Za-z]+): ")


def looks_like_mail(data: bytes) -> bool:
    """Whether `data` begins as a mailbox or as a single mail."""
    first = data[:4096].lstrip(b"\n")
    if first.startswith(b"From ") or _FROM.match(first.partition(b"\n")[0]):
        return True
    heads = first.split(b"\n\n")[0].split(b"\n")
    names = {line.partition(b":")[0].strip().lower() for line in heads if _HEADER.match(line)}
    return bool(heads) and bool(_HEADER.match(heads[0])) and {b"from", b"subject", b"date"} <= names


def read_mailbox(data: bytes, name: str) -> Found:
    """Every mail of a mailbox, or the one mail that `data` is. A mail that holds no readable diff is `NotTaken`."""
    lines = split_lines(data)
    if lines and all(line.endswith(b"\r\n") for line in lines if line.endswith(b"\n")):
        lines = [line[:-2] + b"\n" if line.endswith(b"\r\n") else line for line in lines]
    starts = [i for i, line in enumerate(lines) if _FROM.match(line) and (i == 0 or lines[i - 1].strip() == b"")]
    if not starts:
        return [_read_mail(lines, name)]
    ends = [*starts[1:], len(lines)]
    many = len(starts) > 1
    return [
        _read_mail(lines[start + 1 : end], f"{name} #{number}" if many else name)
        for number, (start, end) in enumerate(zip(starts, ends, strict=True), 1)
    ]


def split_message(lines: Sequence[bytes], name: str) -> tuple[list[bytes], list[bytes], tuple[ForeignFile, ...]]:
    """The message, what stands between it and the diff (comments, a diffstat), and the files of the diff.

    Of all lines where a diff could begin, the first is taken from which it can be read to the end. What looked like one
    before that must belong to the message: a separator with a diffstat that agrees with the diff has to follow it, or a
    damaged file would be dropped without a word. Raises `ForeignError`.
    """
    first_error: ForeignError | None = None
    failed = -1
    candidates = (at for at in range(len(lines)) if starts_file(lines, at))
    for at in islice(candidates, _TRIES):
        try:
            files, end = read_files(lines, at, name)
            if _is_signature(lines[end:]):
                cut = _separator(lines, at)
                if failed < 0 or (failed < cut < at and _agrees(lines[cut + 1 : at], files)):
                    return list(lines[:cut]), list(lines[cut + 1 : at]), tuple(files)
                break
            raise ForeignError(
                f"{name}, line {end + 1}: text follows the diff.", "The patch is damaged, or holds two; split it."
            )
        except ForeignError as error:
            first_error, failed = first_error or error, at
    raise first_error or ForeignError(f"{name} holds no diff.", "There is nothing to take from it.")


def _agrees(between: Sequence[bytes], files: Sequence[ForeignFile]) -> bool:
    """Whether a diffstat counts as many files as the diff has; what an export of ours carries is sign enough."""
    counted = next((int(line.split()[0]) for line in between if _SUMMARY.match(line)), -1)
    return bool(read_carried(between)) or counted == len({f.name.partition("/")[2] or f.name for f in files})


def _is_signature(rest: Sequence[bytes]) -> bool:
    """Whether what follows a diff is nothing, or a mail's signature."""
    body = [line.strip() for line in rest if line.strip()]
    return not body or body[0] == b"--"


def _separator(lines: Sequence[bytes], diff: int) -> int:
    """The line ``---`` that ends the message, or where the diff begins when there is none.

    What follows it must be a diffstat, or comments that end with one, or what an export of ours carries: a rule in the
    message is no separator.
    """
    cut = diff
    rules = (at for at in range(diff - 1, -1, -1) if lines[at].strip() == b"---")
    for at in islice(rules, _TRIES):
        between = lines[at + 1 : diff]
        stat = [i for i, line in enumerate(between) if _SUMMARY.match(line)]
        tail = between[stat[-1] + 1 :] if stat else between
        if read_carried(between) or all(_STAT.match(line) for line in tail):
            cut = at
            if not stat or read_carried(between) or all(_STAT.match(line) for line in between):
                break
    return cut


def _read_mail(lines: Sequence[bytes], name: str) -> Incoming | NotTaken:
    headers, at = _headers(lines)
    try:
        body = _decoded(headers, lines[at:], lines)
        message, between, files = split_message(body, name)
    except ForeignError as error:
        title = headers.get("subject", "")
        if "holds no diff" in error.message:
            return NotTaken(name, f"no change in it{f' ({title})' if title else ''}")
        return NotTaken(name, str(error.message))
    text = b"".join(message).decode("utf-8", "replace").strip("\n")
    author, subject, date = headers.get("from", ""), headers.get("subject", ""), headers.get("date", "")
    # What stands first in the body in the form of a header overrules the mail's own.
    while match := _IN_BODY.match(text.partition("\n")[0]):
        author, subject, date = (
            match[2] if match[1] == key else value
            for key, value in (("From", author), ("Subject", subject), ("Date", date))
        )
        text = text.partition("\n")[2].lstrip("\n")
    return Incoming(
        origin=name,
        title=clean_subject(subject),
        body=text.strip("\n"),
        authors=authors_of(author, text),
        date=read_date(date),
        files=files,
        carried=read_carried(between),
    )


def clean_subject(subject: str) -> str:
    """A subject without ``[PATCH 1/2]`` and ``Re:``; any other bracket, such as ``[cuda]``, belongs to the title."""
    text = " ".join(subject[:1000].split())
    while True:
        shorter = _PATCH_TAG.sub("", _REPLY.sub("", text))
        if shorter == text:
            return text
        text = shorter


def authors_of(author: str, text: str) -> tuple[str, ...]:
    """``Name <mail>`` of the author, and of everyone whom a trailer names as co-author."""
    found = []
    for value in (author, *re.findall(r"(?mi)^Co-authored-by: (.+)$", text)):
        person, address = email.utils.parseaddr(" ".join(value.split()))
        address = re.sub(r"[<>\s]", "", address) or "unknown@localhost"
        person = re.sub(r"[<>\n]", "", person).strip() or address.partition("@")[0]
        entry = f"{person} <{address}>"
        if value and entry not in found:
            found.append(entry)
    return tuple(found)


def read_date(text: str) -> datetime.date | None:
    """The day, in UTC, of a mail's date or of an ISO date; None when it cannot be told."""
    try:
        if re.match(r"^\d{4}-\d\d-\d\d", text):
            return datetime.date.fromisoformat(text[:10])
        moment = email.utils.parsedate_to_datetime(text)
        return (moment.astimezone(datetime.UTC) if moment.tzinfo else moment).date()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _headers(lines: Sequence[bytes]) -> tuple[dict[str, str], int]:
    """The headers in lower case, unfolded and decoded, and the line where the body begins."""
    raw: list[tuple[str, bytes]] = []
    at = 0
    while at < len(lines) and lines[at].strip():
        line = lines[at]
        if line[:1] in (b" ", b"\t") and raw:
            raw[-1] = (raw[-1][0], raw[-1][1].rstrip(b"\r\n") + b" " + line.strip())
        elif _HEADER.match(line):
            key, _, value = line.partition(b":")
            raw.append((key.decode("ascii", "replace").lower(), value.strip()))
        elif not line.startswith(b">From "):
            break
        at += 1
    decoded: dict[str, str] = {}
    for name, words in raw:
        decoded.setdefault(name, _decode_words(words))
    return decoded, at


def _decode_words(value: bytes) -> str:
    """A header's text: UTF-8 (else Latin-1) as it stands, RFC 2047 words decoded."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    if "=?" not in text:
        return text
    # Words that are only divided by space are one text.
    parts: list[str] = []
    try:
        for word, charset in email.header.decode_header(text):
            parts.append(word if isinstance(word, str) else word.decode(charset or "ascii", "replace"))
    except (email.errors.HeaderParseError, LookupError, ValueError):
        return text
    return "".join(parts)


def _decoded(headers: dict[str, str], body: Sequence[bytes], whole: Sequence[bytes]) -> list[bytes]:
    """The lines of the text of a mail: its transfer encoding undone, of several parts those that are text."""
    if headers.get("content-type", "").lower().startswith("multipart/"):
        parts = []
        for part in email.message_from_bytes(b"".join(whole)).walk():
            name = part.get_filename() or ""
            if part.get_content_maintype() == "text" or name.endswith((".patch", ".diff")):
                payload = part.get_payload(decode=True)
                parts.append(payload if isinstance(payload, bytes) else b"")
        return split_lines(b"\n".join(parts))
    encoding = headers.get("content-transfer-encoding", "").strip().lower()
    raw = b"".join(body)
    try:
        if encoding == "base64":
            return split_lines(base64.b64decode(raw))
        if encoding == "quoted-printable":
            return split_lines(binascii.a2b_qp(raw))
    except binascii.Error as error:
        raise ForeignError(f"the mail's {encoding} text is damaged ({error}).", "Save the mail again.") from error
    return list(body)
