"""A git server: one tag, without its history."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llamapatch.errors import EnvironmentProblem
from llamapatch.git import GitError
from llamapatch.upstream.sources.base import (
    ASK_SECONDS,
    FETCH_SECONDS,
    Found,
    Place,
    SourceFailedError,
    UnknownNameError,
)
from llamapatch.upstream.store import reason

_COMMIT = re.compile(r"[0-9a-f]{40}")
# Below 1 kB/s for 30 s a transfer counts as dead; libcurl knows no such limit while it still connects, which is what
# the question before the transfer is for.
_STALL = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30")


@dataclass(frozen=True)
class GitUrl:
    """`ref` (a tag, branch or full commit id) of the repository at `url`, fetched with depth 1."""

    url: str
    ref: str

    @property
    def name(self) -> str:
        return f"git {self.url} {self.ref}"

    def bring(self, place: Place) -> Found:
        place.meter.step(f"asking {self.url} for {self.ref}")
        is_commit = _COMMIT.fullmatch(self.ref) is not None
        question = ("--", self.url) if is_commit else ("--exit-code", "--", self.url, self.ref)
        try:
            place.git.transfer(*_STALL, "ls-remote", *question, timeout=ASK_SECONDS)
        except GitError as error:
            if error.code == 2 and not error.stderr.strip():
                raise UnknownNameError(f"it has no {self.ref}") from error
            raise SourceFailedError(reason(error)) from error
        except EnvironmentProblem as error:
            raise SourceFailedError(f"no answer within {ASK_SECONDS:.0f} s") from error
        place.meter.step(f"fetching {self.ref} from {self.url}")
        try:
            place.git.transfer(
                *_STALL,
                "fetch",
                "--progress",
                "--no-tags",
                "--depth=1",
                "--no-write-fetch-head",
                "--",
                self.url,
                f"+{self.ref}:refs/fetched",
                timeout=FETCH_SECONDS,
                on_line=place.meter.git_line,
            )
            return Found(place.git.tree_of("refs/fetched"))
        except GitError as error:
            raise SourceFailedError(reason(error)) from error
        except EnvironmentProblem as error:
            raise SourceFailedError(f"not finished within {FETCH_SECONDS / 60:.0f} minutes") from error
