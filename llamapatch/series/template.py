"""The files of a new patch, made from ``templates/patch/``."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import tomlkit

from llamapatch.config import packaged_home
from llamapatch.errors import UsageProblem
from llamapatch.series.lint import RESERVED_IDS
from llamapatch.series.model import Forwarding, Overlay

_FOLDER = "patch"
# Longer ids are legal; a name that people type should not be.
_LENGTH = 40


@dataclass(frozen=True)
class NewPatch:
    """What the templates need to know of a patch that is to be written. `origin` says where an import came from."""

    id: str
    title: str
    phase: str
    authors: Sequence[str]
    date: datetime.date
    upstream: Forwarding
    effect: str
    requires: Sequence[str] = ()
    overlay: Sequence[Overlay] = ()
    body: str = ""
    origin: str = ""


def render_patch(templates: Path, patch: NewPatch) -> dict[str, bytes]:
    """``patch.toml`` and ``README.md`` of `patch`; `UsageProblem` when a template is damaged.

    A series without templates of its own, which would be in `templates`, gets those that came with llamapatch.
    """
    if not (templates / _FOLDER).is_dir():
        templates = packaged_home() / "templates"
    environment = jinja2.Environment(  # noqa: S701 (TOML and Markdown, where HTML escapes would be wrong)
        loader=jinja2.FileSystemLoader(templates / _FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["toml"] = lambda text: tomlkit.item(str(text)).as_string()
    values: dict[str, Any] = {name: getattr(patch, name) for name in NewPatch.__dataclass_fields__}
    made = {}
    for name in ("patch.toml", "README.md"):
        try:
            made[name] = environment.get_template(f"{name}.j2").render(**values).encode("utf-8", "replace")
        except jinja2.TemplateError as error:
            raise UsageProblem(
                f"{templates / _FOLDER / name}.j2 cannot be used: {error.message or type(error).__name__}.",
                "Mend the template; `llamapatch init` brings the one that came with llamapatch.",
            ) from error
    return made


def today() -> datetime.date:
    """The day, in UTC: a patch that is written now."""
    return datetime.datetime.now(datetime.UTC).date()


def id_from(title: str, taken: Collection[str]) -> str:
    """A free patch id made of the words of `title`."""
    words = re.findall(r"[a-z0-9]+", title.lower())
    name = ""
    for word in words:
        if name and len(name) + len(word) >= _LENGTH:
            break
        name = f"{name}-{word}" if name else word[:_LENGTH]
    name = name or "patch"
    if name in RESERVED_IDS or name.startswith("sel-"):
        name = f"patch-{name}"
    number, candidate = 2, name
    while candidate in taken:
        candidate = f"{name}-{number}"
        number += 1
    return candidate
