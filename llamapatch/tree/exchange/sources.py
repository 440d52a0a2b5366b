"""From what the user names to patches: files and folders, or revisions of a repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llamapatch.errors import UsageProblem
from llamapatch.series.load import Series
from llamapatch.tree.exchange.files import read_path
from llamapatch.tree.exchange.fork import Fork, Merges, find_base, open_repository, read_commits, read_range
from llamapatch.tree.exchange.incoming import Found


def read_sources(
    series: Series,
    sources: Sequence[str],
    *,
    repository: str | None = None,
    revisions: str | None = None,
    strip: int | None = None,
    merges: Merges = "auto",
) -> Fork:
    """`sources` are files and folders; with `repository`, commits of it. `revisions` is ``BASE..BRANCH``, or ``BRANCH``
    alone when an ancestor of it has the pinned tree. Raises `UsageProblem`."""
    if repository is None:
        if revisions is not None:
            raise UsageProblem("--range is of a repository, and none is named.", "Add `--from REPOSITORY`.")
        if not sources:
            raise UsageProblem("no source is named.", "Give a file, a folder, or `--from REPOSITORY`.")
        found: Found = []
        for source in sources:
            found += read_path(Path(source), strip)
        return Fork(found, None)
    git = open_repository(Path(repository))
    if sources:
        if revisions is not None:
            raise UsageProblem("both commits and --range are given.", "Keep one of the two.")
        return read_commits(git, list(sources))
    base, dots, tip = (revisions or "HEAD").rpartition("..")
    if not dots:
        base = find_base(git, tip, series.pin.tree)
    return read_range(git, base, tip or "HEAD", merges)
