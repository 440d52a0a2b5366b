"""Quality over the windows of a text: intervals that do not pretend tokens to be independent.

llama-perplexity's own error bars treat every token as independent, and its table is cumulative. Here the table is taken
apart again and neighbouring windows are averaged into at most 32 batches (batch means), whose scatter gives the
interval; the unpatched build's own row, measured the same way, is subtracted batch by batch, which removes what the
16-bit storage of its log-probabilities adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from llamapatch.judge.paired import LEVEL

MAX_BATCHES = 32


@dataclass(frozen=True)
class Interval:
    """A mean over batches of windows with its 95 % interval; the bounds are None with fewer than four batches."""

    mean: float
    low: float | None
    high: float | None
    batches: int


def batch_means(cumulative: Sequence[float], batches: int = MAX_BATCHES) -> npt.NDArray[np.float64]:
    """The means of consecutive stretches of windows, from running means after 1, 2, ... windows.

    Rounding of a running mean to 1e-5 becomes at most ``windows * 1e-5 / (windows per batch)``: below 4e-4 here.
    """
    means = np.asarray(cumulative, dtype=np.float64)
    n = means.size
    if n == 0:
        raise ValueError("no windows")
    count = min(batches, n)
    ends = np.array([(i + 1) * n // count for i in range(count)])
    sums = np.concatenate([[0.0], means[ends - 1] * ends])
    lengths = np.diff(np.concatenate([[0], ends]))
    result: npt.NDArray[np.float64] = np.diff(sums) / lengths
    return result


def interval(values: npt.NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Mean and t-interval of batch means."""
    mean = float(values.mean())
    if values.size < 4:
        return Interval(mean, None, None, int(values.size))
    half = float(stats.t.ppf(0.5 + level / 2, values.size - 1)) * float(values.std(ddof=1)) / math.sqrt(values.size)
    return Interval(mean, mean - half, mean + half, int(values.size))


def paired_difference(arm: Sequence[float], floor: Sequence[float]) -> Interval:
    """The mean of (arm - floor) over batches, from the two cumulative columns of the same windows."""
    if len(arm) != len(floor):
        raise ValueError("the two columns cover different windows")
    return interval(batch_means(arm) - batch_means(floor))
