"""A source archive on PyPI that vendors an upstream tree, fetched by the running Python's own pip.

``pip download`` of a source archive asks the archive's build backend for metadata, which means: it installs whatever
the project names as build requirements and runs its code, a CMake configure included. None of that is wanted here. So
pip runs with ``--no-build-isolation`` and with the folder ``inert_build`` first on ``PYTHONPATH``; its
``sitecustomize`` answers the two questions that pip asks from the archive's own ``PKG-INFO``. The project's code never
runs.

Limits: an archive without ``PKG-INFO`` is refused; a pip so old that it runs ``setup.py`` of projects without
``pyproject.toml`` itself (before 23.1) would run that file; pip draws no progress for us.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from llamapatch.errors import EnvironmentProblem
from llamapatch.process import run
from llamapatch.upstream.content import BadArchiveError, altering_attributes, archive_entries, write_tree
from llamapatch.upstream.sources.base import FETCH_SECONDS, Found, Place, SourceFailedError

_SPEC = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==[0-9A-Za-z.!+]+")
_INERT = Path(__file__).resolve().parent.parent / "inert_build"


@dataclass(frozen=True)
class PypiArchive:
    """The folder `member` of the source archive of `package` (``name==version``)."""

    package: str
    member: str

    @property
    def name(self) -> str:
        return f"PyPI source archive {self.package}"

    def bring(self, place: Place) -> Found:
        spec = _SPEC.fullmatch(self.package)
        if not spec:
            raise SourceFailedError("the series must name it as name==version")
        if find_spec("pip") is None:
            raise SourceFailedError(f"{sys.executable} has no pip (`{sys.executable} -m ensurepip` brings it)")
        place.meter.step(f"downloading {self.package} with pip")
        archive = self._download(spec[1], place)
        place.meter.step(f"reading {self.member or 'the archive'}")
        try:
            entries = list(archive_entries(archive, self.member, place.scratch / "files"))
        except BadArchiveError as error:
            raise SourceFailedError(error.message) from error
        if not entries:
            raise SourceFailedError(f"its archive holds nothing under {self.member}")
        tree = write_tree(place.git, entries, place.scratch / "index")
        remark = "a project that vendors upstream may leave files out of its archive"
        if altering_attributes(place.git, tree):
            remark += ", and attributes of the tree say that `git archive` does"
        return Found(tree, remark=remark)

    def _download(self, project: str, place: Place) -> Path:
        path = os.pathsep.join(p for p in (str(_INERT), os.environ.get("PYTHONPATH", "")) if p)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", project, "--no-build-isolation"]
        command += ["--no-input", "--progress-bar", "off", "--retries", "2", "--timeout", "20"]
        command += ["--disable-pip-version-check", "--dest", str(place.scratch), self.package]
        try:
            done = run(
                command, cwd=place.scratch, env=os.environ | {"PYTHONPATH": path}, timeout=FETCH_SECONDS, check=False
            )
        except EnvironmentProblem as error:
            raise SourceFailedError(f"pip did not finish within {FETCH_SECONDS / 60:.0f} minutes") from error
        if done.code != 0:
            said = [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
            said = [re.sub(r"^(error|ERROR): *", "", line) for line in said] or [f"status {done.code}"]
            raise SourceFailedError(f"pip download failed: {said[0].rstrip('.')}")
        archives = list(place.scratch.glob("*.tar.*")) + list(place.scratch.glob("*.tgz"))
        if len(archives) != 1:
            raise SourceFailedError("pip brought no tar archive")
        return archives[0]
