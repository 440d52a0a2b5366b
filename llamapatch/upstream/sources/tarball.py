"""A source archive, from a URL or a path."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from llamapatch import __version__
from llamapatch.upstream.content import MAX_BYTES, BadArchiveError, altering_attributes, archive_entries, write_tree
from llamapatch.upstream.sources.base import ASK_SECONDS, Found, Place, SourceFailedError

_CHUNK = 1 << 18


@dataclass(frozen=True)
class Tarball:
    """The archive at `location` (http, https or file URL, or a path that starts at `home`).

    Its one top folder is left away, as in archives that `git archive --prefix` makes, and so is all outside `member`.
    """

    location: str
    home: Path
    member: str = ""

    @property
    def name(self) -> str:
        return f"source archive {self.location}"

    def bring(self, place: Place) -> Found:
        archive = self._get(place)
        place.meter.step(f"reading {archive.name}")
        try:
            entries = list(
                archive_entries(
                    archive,
                    self.member,
                    place.scratch / "files",
                    lambda n: place.meter.advance(n, None, f"{n / 1e6:.0f} MB"),
                )
            )
        except BadArchiveError as error:
            raise SourceFailedError(error.message) from error
        if not entries:
            raise SourceFailedError(
                "it holds no file below its top folder" + (f" in {self.member}" * bool(self.member))
            )
        tree = write_tree(place.git, entries, place.scratch / "index")
        remark = ""
        if files := altering_attributes(place.git, tree):
            remark = f"export attributes in {', '.join(files)} make `git archive` leave out or rewrite files"
        return Found(tree, remark=remark)

    def _get(self, place: Place) -> Path:
        kind = urllib.parse.urlsplit(self.location).scheme
        if kind not in ("http", "https", "file"):
            path = self.home / self.location
            if not path.is_file():
                raise SourceFailedError("there is no such file")
            return path
        place.meter.step(f"downloading {self.location}")
        target = place.scratch / "archive"
        request = urllib.request.Request(self.location, headers={"User-Agent": f"llamapatch/{__version__}"})  # noqa: S310
        try:
            # The limit is for each read, so a slow download lives and a dead one ends.
            with urllib.request.urlopen(request, timeout=ASK_SECONDS) as answer, target.open("wb") as out:  # noqa: S310
                length = answer.headers.get("Content-Length")
                total = int(length) if length and length.isdigit() else None
                while chunk := answer.read(_CHUNK):
                    out.write(chunk)
                    if out.tell() > MAX_BYTES:
                        raise SourceFailedError(f"it is larger than {MAX_BYTES >> 30} GiB")
                    place.meter.advance(out.tell(), total, f"{out.tell() / 1e6:.1f} MB")
                if total is not None and out.tell() != total:
                    raise SourceFailedError(f"the connection ended after {out.tell()} of {total} bytes")
        except urllib.error.HTTPError as error:
            raise SourceFailedError(f"the server answered {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise SourceFailedError(str(error.reason)) from error
        except TimeoutError as error:
            raise SourceFailedError(f"nothing came for {ASK_SECONDS:.0f} s") from error
        return target
