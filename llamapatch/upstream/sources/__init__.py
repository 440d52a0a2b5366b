"""Where upstream can come from, one small class for each kind of place."""

from __future__ import annotations

from pathlib import Path

from llamapatch.series.model import Source as SourceEntry
from llamapatch.upstream.sources.base import Source
from llamapatch.upstream.sources.git_url import GitUrl
from llamapatch.upstream.sources.npm import NpmBundle
from llamapatch.upstream.sources.pypi import PypiArchive
from llamapatch.upstream.sources.tarball import Tarball


def from_entry(entry: SourceEntry, home: Path) -> Source:
    """The source that an ``[[upstream.source]]`` of series.toml describes; paths in it start at `home`."""
    match entry.kind:
        case "git":
            return GitUrl(entry.url, entry.ref)
        case "npm":
            return NpmBundle(entry.package, entry.member)
        case "pypi":
            return PypiArchive(entry.package, entry.member)
        case "tarball":
            return Tarball(entry.url, home, entry.member)
