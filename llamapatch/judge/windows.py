"""Quality over the windows of a text: intervals that pretend neither tokens nor windows to be independent.

llama-perplexity's own error bars treat every token as independent, and its table is cumulative. Here the table is taken
apart again, the unpatched build's own row (measured the same way) is subtracted window by window, which removes what
the 16-bit storage of its log-probabilities adds, and a circular block bootstrap gives the interval: neighbouring
windows come from the same source file, so they are drawn together, in blocks.

*Block length.* The larger of 1.5 n^(1/3) and the length that Politis and White estimate from the autocorrelation of the
data (2004, Econometric Reviews 23; corrected by Patton, Politis and White 2009, ibid. 28), at most a quarter of the
windows. The power of n is the one that is best for the variance of a mean (Hall, Horowitz and Jing 1995, Biometrika
82); the factor was chosen on simulated coverage: 1 covered too seldom on short texts, 2 only widened the intervals.

*Interval.* Symmetric bootstrap-t: the bootstrap finds how far a studentised mean strays, not only how far a mean does,
because a percentile interval from a dozen blocks is too narrow (Hall 1988, Journal of the Royal Statistical Society B
50). How often it covers the truth is simulated in ``tests/judge/test_windows.py``.

*Rounding.* The tool prints running means with five decimals, so a single window's value may be wrong by up to
``n * 1e-5``, but the mean over all windows only by `Interval.rounding`, by which the interval is widened on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from llamapatch.judge.paired import LEVEL

# Fewer windows hold too few blocks for an interval.
MIN_WINDOWS = 8
DRAWS = 2000
# Half of the last of the five decimals that llama-perplexity prints.
ROUNDING = 0.5e-5
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over windows with its 95 % interval; the bounds are None with fewer than `MIN_WINDOWS` windows.

    `block` is the length of the blocks that were drawn; `rounding`, the largest error of `mean` from the tool's five
    decimals, is part of the interval.
    """

    mean: float
    low: float | None
    high: float | None
    windows: int
    block: int
    rounding: float = 0.0


def per_window(cumulative: Sequence[float]) -> _Floats:
    """Each window's own value from the running means after 1, 2, ... windows."""
    means = np.asarray(cumulative, dtype=np.float64)
    if means.size == 0:
        raise ValueError("no windows")
    return np.diff(means * np.arange(1, means.size + 1), prepend=0.0)


def interval(values: npt.ArrayLike, level: float = LEVEL, *, seed: int = 0, rounding: float = 0.0) -> Interval:
    """The mean of autocorrelated values with a symmetric bootstrap-t interval over circular blocks."""
    x = np.asarray(values, dtype=np.float64)
    mean, n = float(x.mean()), x.size
    if n < MIN_WINDOWS:
        return Interval(mean, None, None, n, 1, rounding)
    block = block_length(x)
    blocks = max(2, n // block)
    # The mean of each of the n circular blocks, about the mean of all.
    sums = np.cumsum(np.concatenate([[0.0], x - mean, (x - mean)[: block - 1]]))
    deviations = (sums[block:] - sums[:-block]) / block
    error = math.sqrt(float(np.mean(deviations**2)) / (blocks - 1))
    if error == 0.0:
        return Interval(mean, mean - rounding, mean + rounding, n, block, rounding)
    drawn = deviations[np.random.default_rng(seed).integers(0, n, (DRAWS, blocks))]
    scatter = drawn.std(axis=1, ddof=1) / math.sqrt(blocks)
    flat = scatter <= 1e-9 * float(np.abs(deviations).max())
    if flat.mean() > (1 - level) / 2:
        # Most windows are alike, so that too many draws have no scatter to be measured by: Student's quantile instead.
        stray = float(stats.t.ppf((1 + level) / 2, blocks - 1))
    else:
        stray = float(np.quantile(np.abs(drawn.mean(axis=1)) / np.where(flat, np.inf, scatter), level))
    half = stray * error + rounding
    return Interval(mean, mean - half, mean + half, n, block, rounding)


def paired_difference(arm: Sequence[float], floor: Sequence[float]) -> Interval:
    """The mean of (arm - floor) over windows, from the two cumulative columns of the same windows."""
    if len(arm) != len(floor):
        raise ValueError("the two columns cover different windows")
    return interval(per_window(np.subtract(arm, floor).tolist()), rounding=2 * ROUNDING)


def block_length(values: npt.ArrayLike) -> int:
    """How many neighbouring values are drawn together; see the module's head for the rule."""
    x = np.asarray(values, dtype=np.float64)
    return int(min(max(1, round(1.5 * x.size ** (1 / 3)), _politis_white(x)), max(1, x.size // 4)))


def _politis_white(x: _Floats) -> int:
    """The block length for a circular bootstrap of the mean, from a flat-top estimate of the spectrum at zero."""
    n = x.size
    reach = 5  # Politis and White: max(5, sqrt(log10 n)), which is 5 for any text
    lags = min(math.ceil(math.sqrt(n)) + reach, n - 1)
    centred = x - x.mean()
    covariance = np.array([centred[: n - lag] @ centred[lag:] for lag in range(lags + 1)]) / n
    if covariance[0] <= 0:
        return 1
    small = np.abs(covariance[1:] / covariance[0]) < 2 * math.sqrt(math.log10(n) / n)
    # The first lag after which `reach` autocorrelations in a row are negligible.
    quiet = next((lag for lag in range(lags - reach + 1) if small[lag : lag + reach].all()), lags)
    window = min(2 * max(quiet, 1), lags)
    at = np.arange(1, window + 1)
    weight = np.minimum(1.0, 2 * (1 - at / window))
    slope = 2 * float(np.sum(weight * at * covariance[1 : window + 1]))
    spectrum = float(covariance[0] + 2 * np.sum(weight * covariance[1 : window + 1]))
    if spectrum <= 0:
        return 1
    return math.ceil(math.pow(1.5 * (slope / spectrum) ** 2 * n, 1 / 3))
