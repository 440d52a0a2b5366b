"""Complete patches, kernels inlined, in the forms that git am, quilt and patch accept on a clean upstream.

Every form is a function of the series alone: no dates of today, no versions, no commit ids. A mailbox and a quilt
folder also carry ``patch.toml`` and ``README.md`` (`llamapatch.tree.exchange.carried`), so that ``import`` gives the
same patch back; a standalone diff is one change and carries nothing.
"""

from __future__ import annotations

import datetime
import email.utils
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from llamapatch.config import Settings
from llamapatch.errors import DirtyError, UsageProblem
from llamapatch.files import current_umask, write_atomically
from llamapatch.series.load import META_NAME, README_NAME, Patch, Series
from llamapatch.series.select import Selection
from llamapatch.tree.diff import FileDiff, Ids, diff_trees, format_indexed
from llamapatch.tree.exchange.carried import write_carried
from llamapatch.tree.objects import ABSENT
from llamapatch.tree.plan import How, Plan, make_plan
from llamapatch.tree.store import Report, open_store, writing

Form = Literal["mbox", "quilt", "standalone"]
# Lines at which git am, quilt or patch would believe that the diff begins, and headers that git am takes from a body.
_DANGER = re.compile(
    r"^\s*(?:---|\+\+\+|\*\*\*|diff |Index:|Prereq:|@@|GIT binary|index |From:|Date:|Subject:|\d+(?:,\d+)?[acd]\d"
    r"|(?:old|new|deleted|new file|deleted file) mode|(?:similarity|dissimilarity|rename|copy) |\[|-- ?$)"
)
_FORWARDED = {
    "never": "not-needed", "not-forwarded": "no", "rejected": "rejected", "merged": "yes", "forwarded": "yes",
}  # fmt: skip


@dataclass(frozen=True)
class Export:
    """`files` by name (one named ``""`` when the form is a single text), the patches in it, the tree that they make."""

    form: Form
    files: dict[str, bytes]
    ids: tuple[str, ...]
    tree: str
    how: How


def export(
    settings: Settings, series: Series, selection: Selection, form: Form, report: Report | None = None
) -> Export:
    """The patches of `selection` in `form`. Raises what `make_plan` raises, and `UsageProblem` for a binary file in the
    quilt form, which GNU patch cannot apply."""
    with writing(settings):
        store = open_store(settings, series, report)
        plan = make_plan(store.git, series, selection.ids)
        plan.pool.store(store.git)
        trees = [plan.base_tree, *(step.tree for step in plan.steps)]
        if form == "standalone":
            (diff,) = diff_trees(store.git, [(plan.base_tree, plan.tree, ())])
            return Export(form, {"": _standalone(series, plan, diff)}, plan.ids, plan.tree, plan.how)
        diffs = diff_trees(store.git, [(old, new, ()) for old, new in pairwise(trees)])
    patches = [(step.patch, diff) for step, diff in zip(plan.steps, diffs, strict=True)]
    if form == "mbox":
        mails = [_mail(*patch, number, len(patches)) for number, patch in enumerate(patches, 1)]
        return Export(form, {"": b"".join(mails)}, plan.ids, plan.tree, plan.how)
    files = {"series": "".join(f"{patch.id}.patch\n" for patch, _ in patches).encode()}
    files |= {f"{patch.id}.patch": _quilt(patch, diff) for patch, diff in patches}
    return Export(form, files, plan.ids, plan.tree, plan.how)


def write_export(found: Export, output: Path, *, dry_run: bool = False) -> list[str]:
    """Write `found` to `output`, a new file or folder, and return the names of its files; `DirtyError` when something
    is there already."""
    if os.path.lexists(output):
        raise DirtyError(f"{output} is there already.", "Name another place; an export never overwrites.")
    if list(found.files) == [""]:
        if not dry_run:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(output, found.files[""])
        return [output.name]
    if not dry_run:
        output.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=output.parent, prefix=".llamapatch-export-"))
        try:
            for name, data in found.files.items():
                (aside / name).write_bytes(data)
            aside.chmod(0o777 & ~current_umask())
            aside.rename(output)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return sorted(found.files)


def _mail(patch: Patch, diff: Sequence[tuple[FileDiff, Ids]], number: int, count: int) -> bytes:
    """One mail of a mailbox, as git am reads it."""
    meta = patch.meta
    name, address = email.utils.parseaddr(meta.authors[0])
    moment = datetime.datetime.combine(meta.date, datetime.time(), datetime.UTC)
    tag = f"[PATCH {number:0{len(str(count))}d}/{count}] " if count > 1 else "[PATCH] "
    body = _prose(patch)
    trailers = [f"Llamapatch-Id: {meta.id}", *(f"Co-authored-by: {author}" for author in meta.authors[1:])]
    text = "".join(_guarded(line) + "\n" for line in (body.split("\n") if body else ()))
    message = (text + "\n" if text else "") + "\n".join(trailers) + "\n"
    content = message.encode() + b"---\n" + _carried(patch) + b"\n" + format_indexed(diff) + b"-- \nllamapatch\n\n"
    quoted = _must_be_quoted(content)
    head = [
        f"From {ABSENT} Mon Sep 17 00:00:00 2001",
        f"From: {_words(name)} <{address}>",
        f"Date: {email.utils.format_datetime(moment)}",
        f"Subject: {_words(tag + meta.title)}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=UTF-8",
        f"Content-Transfer-Encoding: {'quoted-printable' if quoted else '8bit'}",
    ]
    return "\n".join([*head, "", ""]).encode() + (quote_printable(content) if quoted else content)


def _quilt(patch: Patch, diff: Sequence[tuple[FileDiff, Ids]]) -> bytes:
    """One patch of a quilt folder, with a DEP-3 header."""
    trouble = _beyond_gnu_patch([d for d, _ in diff])
    if trouble:
        raise UsageProblem(
            f"`{patch.id}` {trouble}: GNU patch, which quilt runs, cannot do that.",
            "Export with `--mbox`, or with `--standalone` for `git apply`.",
        )
    meta = patch.meta
    forwarded = meta.upstream.url or _FORWARDED[meta.upstream.status]
    if meta.upstream.status in ("never", "not-forwarded", "rejected"):
        forwarded = _FORWARDED[meta.upstream.status]
    body = _prose(patch)
    prose = [_guarded(line) for line in body.split("\n")] if body else []
    lines = [f"Description: {meta.title}"]
    lines += [" ." if not line else f" {line}" for line in prose]
    lines += [f"Author: {author}" for author in meta.authors[:1]]
    lines.append(f"Forwarded: {forwarded}")
    if meta.upstream.status == "merged":
        lines.append(f"Applied-Upstream: {meta.upstream.url or 'yes'}")
    lines += [f"X-Llamapatch-Reason: {meta.upstream.reason}", f"Last-Update: {meta.date.isoformat()}", "---"]
    return "\n".join([*lines, ""]).encode() + _carried(patch) + b"\n" + format_indexed(diff)


def _beyond_gnu_patch(files: Sequence[FileDiff]) -> str:
    """What of a change GNU patch 2.7 cannot do; empty when it can do all of it."""
    folders = {path.rpartition("/")[0] for path in (d.path for d in files)}
    folders |= {"/".join(f.split("/")[:n]) for f in folders for n in range(1, f.count("/") + 1)}
    deleted = {d.path for d in files if d.deleted}
    for diff in files:
        if diff.binary is not None:
            return f"changes {diff.path}, a binary file"
        if diff.added and (diff.path in folders or diff.path in deleted):
            return f"puts {diff.path} in the place of a folder or of a file of another kind"
    return ""


def _standalone(series: Series, plan: Plan, diff: Sequence[tuple[FileDiff, Ids]]) -> bytes:
    """One diff for the whole selection, with a few lines that say what it is."""
    lines = [
        f"llama.cpp {series.pin.version} (tree {plan.base_tree}) with {', '.join(plan.ids)}",
        f"makes tree {plan.tree}.",
        "",
    ]
    return "\n".join([*lines, ""]).encode() + format_indexed(diff)


def _carried(patch: Patch) -> bytes:
    files = {name: (patch.folder / name).read_bytes() for name in (META_NAME, README_NAME)}
    return write_carried(files)


def _prose(patch: Patch) -> str:
    """The README's text as a message: no headings, no empty lines at its ends."""
    text = (patch.folder / README_NAME).read_text(encoding="utf-8", errors="replace").replace("\r", "")
    kept: list[str] = []
    for line in text.split("\n"):
        if line.startswith("#"):
            continue
        if line.strip() or (kept and kept[-1]):
            kept.append(line.rstrip())
    return "\n".join(kept).strip("\n")


def _guarded(line: str) -> str:
    """A line of prose that no tool takes for the beginning of a diff or for a header."""
    return f"> {line.lstrip()}" if _DANGER.match(line) else line


def _words(text: str) -> str:
    """A header's text: as it is, or in RFC 2047 words where it is not plain ASCII."""
    if text.isascii() and text.isprintable() and "=?" not in text and len(text) < 900:
        return text
    words, word = [], ""
    for character in text:
        code = _q_word(character)
        if len(word) + len(code) > 60:
            words.append(word)
            word = ""
        word += code
    return "\n ".join(f"=?UTF-8?q?{part}?=" for part in [*words, word])


def _q_word(character: str) -> str:
    if character.isascii() and character.isalnum():
        return character
    return "_" if character == " " else "".join(f"={byte:02X}" for byte in character.encode())


def _must_be_quoted(content: bytes) -> bool:
    """Whether something between us and git am could change the text: carriage returns, what looks like the start of
    another mail, lines longer than mail allows."""
    return b"\r" in content or b"\nFrom " in content or any(len(line) > 990 for line in content.split(b"\n"))


def quote_printable(content: bytes) -> bytes:
    """`content` as quoted-printable (RFC 2045, 6.7), with line feeds for line ends and carriage returns as ``=0D``."""
    out: list[bytes] = []
    for line in content.split(b"\n"):
        row = bytearray()
        for at, byte in enumerate(line):
            last = at == len(line) - 1
            plain = (33 <= byte <= 126 and byte != 61) or (byte in (9, 32) and not last)
            if at == 0 and line.startswith(b"From "):
                plain = False
            code = bytes([byte]) if plain else b"=%02X" % byte
            if len(row) + len(code) > 75:
                out.append(bytes(row) + b"=\n")
                row = bytearray()
            row += code
        out.append(bytes(row) + b"\n")
    return b"".join(out)[:-1]
