"""Patches from files: a single one of any kind, a quilt folder, a folder of numbered patches."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

from llamapatch.errors import UsageProblem
from llamapatch.series.model import Forwarding
from llamapatch.tree.diff import split_lines
from llamapatch.tree.exchange.carried import read_carried
from llamapatch.tree.exchange.foreign import ForeignError
from llamapatch.tree.exchange.incoming import Found, Incoming, NotTaken
from llamapatch.tree.exchange.mail import (
    authors_of,
    clean_subject,
    looks_like_mail,
    read_date,
    read_mailbox,
    split_message,
)

# Far above any patch, far below what fills memory.
MAX_BYTES = 256 << 20
_NAME_LENGTH = 200
_ENDINGS = (".patch", ".diff", ".mbox", ".eml")
_FIELD = re.compile(r"^([A-Za-z][A-Za-z-]*):[ \t]*(.*)$")
# DEP-3: https://dep-team.pages.debian.net/deps/dep3/
_DEP3 = frozenset(
    {"description", "subject", "author", "from", "origin", "forwarded", "last-update", "applied-upstream"}
)
_URL = re.compile(r"\bhttps?://\S+")


def read_path(path: Path, strip: int | None = None) -> Found:
    """Whatever `path` is: a file, a quilt folder (it has a file named ``series``), a folder of patches.

    Raises `UsageProblem` when there is nothing to read; what cannot be read as a patch is `NotTaken`.
    """
    if path.is_dir():
        return read_quilt(path, strip) if (path / "series").is_file() else read_folder(path, strip)
    return read_file(path, path.name, strip)


def read_folder(folder: Path, strip: int | None = None) -> Found:
    """The patches of a folder in the order of their numbers and names."""
    found: Found = []
    for path in sorted((p for p in folder.iterdir() if p.is_file()), key=lambda p: _natural(p.name)):
        if path.suffix in _ENDINGS:
            found += read_file(path, path.name, strip)
        else:
            found.append(NotTaken(path.name, "its name does not end in .patch, .diff, .mbox or .eml"))
    if not found:
        raise UsageProblem(f"{folder} holds no file.", "Name the folder that has the patches.")
    return found


def read_quilt(folder: Path, strip: int | None = None) -> Found:
    """The patches that ``series`` lists, in its order; ``-pN`` there says how many folders their paths lose."""
    found: Found = []
    listed: set[str] = set()
    for line in _bytes_of(folder / "series").decode("utf-8", "replace").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            words = line.split()
        if not words:
            continue
        name, *options = words
        listed.add(name)
        path = folder / name
        level = next((o[2:] for o in options if re.fullmatch(r"-p\d", o)), None)
        if name.startswith("/") or ".." in Path(name).parts:
            found.append(NotTaken(name, "its path leaves the folder"))
        elif len(name) > _NAME_LENGTH or not name.isprintable():
            found.append(NotTaken(name[:40], "that is no name of a file"))
        elif "-R" in options:
            found.append(NotTaken(name, "series applies it in reverse (-R)"))
        elif not path.is_file():
            found.append(NotTaken(name, "series lists it, but it is not there"))
        else:
            found += read_file(path, name, strip if strip is not None else int(level) if level else None)
    for path in sorted(folder.iterdir()):
        if path.suffix in _ENDINGS and path.name not in listed:
            found.append(NotTaken(path.name, "series does not list it"))
    return found


def read_file(path: Path, name: str, strip: int | None = None) -> Found:
    """One file: a mailbox or mail, else a diff with text above it (DEP-3 or free)."""
    data = _bytes_of(path)
    if looks_like_mail(data):
        return [_with_strip(item, strip) for item in read_mailbox(data, name)]
    return [read_plain(data, name, strip)]


def read_plain(data: bytes, name: str, strip: int | None = None) -> Incoming | NotTaken:
    """A diff with a header of DEP-3 fields, with a free text, or with nothing above it."""
    try:
        message, between, files = split_message(split_lines(data), name)
    except ForeignError as error:
        return NotTaken(name, error.message)
    text = b"".join(message).decode("utf-8", "replace").strip("\n")
    fields, rest = _fields(text)
    if not fields.keys() & _DEP3:
        # The name is the better title for a text that begins with a paragraph.
        first, _, more = text.partition("\n")
        is_title = bool(first) and (not more or more.startswith("\n"))
        title = first if is_title else _stem(name)
        body = more if is_title else text
        return Incoming(
            name, clean_subject(title), body.strip("\n"), files=files, strip=strip, carried=read_carried(between)
        )
    description = fields.get("description") or fields.get("subject") or _stem(name)
    title, _, body = description.partition("\n")
    body = "\n\n".join(part for part in (body.strip("\n"), rest) if part)
    return Incoming(
        origin=name,
        title=clean_subject(title) or _stem(name),
        body=body,
        authors=authors_of(fields.get("author") or fields.get("from", ""), ""),
        date=read_date(fields.get("last-update", "")),
        files=files,
        strip=strip,
        forwarding=_forwarding(fields),
        carried=read_carried(between),
    )


def _fields(text: str) -> tuple[dict[str, str], str]:
    """The fields at the head of `text` (lower case; continued lines lose a space, a lone dot is an empty line), and the
    text after them. A field that stands twice keeps its first value."""
    fields: dict[str, str] = {}
    key = ""
    lines = text.split("\n")
    last = max((number for number, line in enumerate(lines) if _FIELD.match(line)), default=-1)
    for number, line in enumerate(lines):
        if match := _FIELD.match(line):
            key = match[1].lower()
            fields.setdefault(key, match[2].strip())
        elif line[:1] in (" ", "\t") and key:
            fields[key] += "\n" + ("" if line.strip() == "." else line[1:])
        elif line.strip() or number > last:
            return fields, "\n".join(lines[number:]).strip("\n")
    return fields, ""


def _forwarding(fields: dict[str, str]) -> Forwarding | None:
    """DEP-3's Forwarded and Applied-Upstream as our status; None where the header says nothing."""
    applied, forwarded = fields.get("applied-upstream", ""), fields.get("forwarded", "").strip()
    origin = fields.get("origin", "").strip()
    url = next((m[0] for m in (_URL.search(applied), _URL.search(forwarded), _URL.search(origin)) if m), "")
    reason = fields.get("x-llamapatch-reason", "").strip().replace("\n", " ")
    if applied:
        return Forwarding(status="merged", reason=reason or f"Applied upstream: {applied}", url=url)
    if not forwarded:
        return None
    word = forwarded.lower()
    if word in ("not-needed", "not needed"):
        return Forwarding(status="never", reason=reason or "Its header says that forwarding is not needed.", url=url)
    if word == "no":
        return Forwarding(
            status="not-forwarded", reason=reason or "Its header says that it was not forwarded.", url=url
        )
    if word == "rejected":
        return Forwarding(status="rejected", reason=reason or "Its header says that upstream rejected it.", url=url)
    return Forwarding(status="forwarded", reason=reason or f"Forwarded: {forwarded}", url=url)


def _bytes_of(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageProblem(f"{path} is larger than {MAX_BYTES >> 20} MiB, which no patch is.", "Name another file.")
        return path.read_bytes()
    except OSError as error:
        raise UsageProblem(
            f"{path} cannot be read: {error.strerror}.", "Name a file, a folder, or `--from` a repository."
        ) from error


def _with_strip(item: Incoming | NotTaken, strip: int | None) -> Incoming | NotTaken:
    if isinstance(item, NotTaken) or strip is None:
        return item
    return replace(item, strip=strip)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that orders 2 before 10."""
    return [(int(part), "") if part.isdigit() and part.isascii() else (-1, part) for part in re.split(r"(\d+)", name)]


def _stem(name: str) -> str:
    """A title from a file name: no folder, no number, no ending."""
    stem = name.rpartition("/")[2]
    for ending in _ENDINGS:
        stem = stem.removesuffix(ending)
    return re.sub(r"[-_]+", " ", re.sub(r"^\d+[-_.]*", "", stem)).strip() or stem
