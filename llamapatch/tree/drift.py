"""Drift: how the series would fare on other upstreams. Computes in memory and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamapatch.config import Settings
from llamapatch.series.load import Series
from llamapatch.tree.rebase import Attempt, try_onto
from llamapatch.tree.registry import Collision, collisions
from llamapatch.tree.thread import put
from llamapatch.upstream.onto import Target


@dataclass(frozen=True)
class Drift:
    """One upstream: what would become of each patch, and the numeric ids that collide."""

    attempt: Attempt
    collisions: tuple[Collision, ...]

    @property
    def clean(self) -> bool:
        """Whether every patch would go through, or is upstream's by now, and no id collides."""
        return all(o.carried for o in self.attempt.outcomes) and not self.collisions


def drift(settings: Settings, series: Series, targets: Sequence[Target]) -> list[Drift]:
    """Try the series on each target; errors as for `try_onto`."""
    found = []
    for target in targets:
        attempt = try_onto(settings, series, target)
        result = attempt.start.copy()
        for outcome in attempt.outcomes:
            for file in outcome.files if outcome.carried else ():
                put(result, file.to, file.entry)
        ids = collisions(series, attempt.changes, attempt.start, result, attempt.blobs)
        found.append(Drift(attempt, tuple(ids)))
    return found
