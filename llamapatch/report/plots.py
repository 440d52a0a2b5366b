"""The geometry of the page's plots: ratios on a logarithmic axis as percentages of a strip's width.

Every row of a plot is a row of a table with its own strip, so that numbers stay text that can be read, selected and
reflowed on a phone; percentages instead of a fixed drawing width keep marks and letters undistorted at any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

# Sets of ratios that may carry a label.
_TICKS = (
    tuple(2.0**k for k in range(-10, 11)),
    tuple(4.0**k for k in range(-8, 9)),
    tuple(10.0**k for k in range(-6, 7)),
    (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
    (0.25, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0),
    (0.6, 0.8, 1.0, 1.2, 1.4, 1.6),
    (0.8, 0.9, 1.0, 1.1, 1.2),
    (0.9, 0.95, 1.0, 1.05, 1.1),
    (0.97, 0.98, 0.99, 1.0, 1.01, 1.02, 1.03),
)
# An interval from two wild blocks may span decades; the axis shows this factor around the estimates, arrows the rest.
_REACH = 3.0
_APART = 12.0  # per cent that a label needs
_EDGE = 3.0  # per cent left free at both ends


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from `low` to `high`."""

    low: float
    high: float

    def at(self, ratio: float) -> float:
        """Where `ratio` lies, in per cent of the width; clipped to the axis."""
        share = (math.log(ratio) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return round(_EDGE + (100 - 2 * _EDGE) * min(max(share, 0.0), 1.0), 2)

    def holds(self, ratio: float) -> bool:
        """Whether `ratio` lies on the axis."""
        return self.low * (1 - 1e-9) <= ratio <= self.high * (1 + 1e-9)

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and labels: as many as can be told apart on a phone."""
        best: list[tuple[float, str]] = [(self.at(1.0), "1×")]
        for ticks in _TICKS:
            found = [(self.at(tick), f"{tick:g}×") for tick in ticks if self.holds(tick)]
            apart = all(right[0] - left[0] >= _APART for left, right in pairwise(found))
            if apart and _rank(found) > _rank(best):
                best = found
        return best


@dataclass(frozen=True)
class Interval:
    """A mark and its whisker in per cent of the width; `cut_low` and `cut_high` say that the whisker goes on."""

    x: float
    low: float | None
    high: float | None
    cut_low: bool = False
    cut_high: bool = False


def _rank(ticks: Sequence[tuple[float, str]]) -> tuple[bool, int]:
    """Labels that span the axis before many labels on a part of it."""
    return ticks[-1][0] - ticks[0][0] > 50 if ticks else False, len(ticks)


def axis_over(estimates: Iterable[tuple[float, float | None, float | None]], margin: float = 0.02) -> Axis:
    """An axis that holds 1, the margin around it, every estimate, and its interval within reason."""
    found = list(estimates)
    points = [ratio for ratio, _, _ in found] + [1 - margin, 1 + margin]
    low, high = min(points), max(points)
    lows = [max(bound, low / _REACH) for _, bound, _ in found if bound is not None and bound > 0]
    highs = [min(bound, high * _REACH) for _, _, bound in found if bound is not None and math.isfinite(bound)]
    low, high = min([low, *lows]), max([high, *highs])
    room = (high / low) ** 0.04
    return Axis(low / room, high * room)


def interval_on(axis: Axis, ratio: float, low: float | None, high: float | None) -> Interval:
    """Place an estimate on `axis`."""
    return Interval(
        x=axis.at(ratio),
        low=None if low is None else axis.at(max(low, axis.low)),
        high=None if high is None else axis.at(high),
        cut_low=low is not None and low < axis.low,
        cut_high=high is not None and not axis.holds(high) and high > axis.high,
    )


@dataclass(frozen=True)
class Step:
    """A bar of a waterfall from `start` to `end`, in per cent of the width."""

    start: float
    end: float

    @property
    def left(self) -> float:
        return min(self.start, self.end)

    @property
    def width(self) -> float:
        return round(max(abs(self.end - self.start), 0.6), 2)


def spread(values: Sequence[float]) -> list[float]:
    """Evenly spaced positions for points in time, in per cent of the width."""
    if len(values) == 1:
        return [50.0]
    return [round(_EDGE + (100 - 2 * _EDGE) * i / (len(values) - 1), 2) for i in range(len(values))]
