"""Paired statistics on log-ratios.

A block gives one difference ``d = ln(arm) - ln(base)``, in which what the two share (clocks, neighbours, temperature)
cancels. The estimate is ``exp(mean d)`` with Student's interval and p-value. A second p-value comes from flipping the
signs of the differences, which needs no normal distribution, only symmetry under "no effect"; it is coarse (with seven
pairs nothing below 1/64), so it cannot be corrected for many metrics, and both must be small for a claim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.95
# 2**7 sign patterns: the smallest two-sided p is 1/64, below 0.025; six pairs could never reject when looked at twice.
MIN_PAIRS = 7
_EXACT_PAIRS = 16
_DRAWS = 20_000


@dataclass(frozen=True)
class Estimate:
    """A ratio with its interval (None with fewer than two pairs), the number of pairs, the standard deviation of the
    log-ratios, Student's p-value (1 with fewer than two pairs) and the sign-flip p-value, both two-sided, and the
    Hodges-Lehmann ratio as a check against outliers."""

    ratio: float
    low: float | None
    high: float | None
    n: int
    sd: float | None
    p: float
    flip_p: float
    robust: float


def estimate(log_ratios: Sequence[float], level: float = LEVEL) -> Estimate:
    """Judge the log-ratios of the blocks. Raises `ValueError` for none, or for one that is not finite."""
    d = np.asarray(log_ratios, dtype=np.float64)
    if d.size == 0 or not np.isfinite(d).all():
        raise ValueError("log-ratios must be finite numbers, at least one")
    mean = float(d.mean())
    low = high = sd = None
    p = 1.0
    if d.size > 1:
        sd = float(d.std(ddof=1))
        half = float(stats.t.ppf(0.5 + level / 2, d.size - 1)) * sd / math.sqrt(d.size)
        low, high = math.exp(mean - half), math.exp(mean + half)
        t = abs(mean) * math.sqrt(d.size) / sd if sd > 0 else math.inf if mean else 0.0
        p = float(2 * stats.t.sf(t, d.size - 1))
    return Estimate(math.exp(mean), low, high, int(d.size), sd, p, sign_flip_p(d), math.exp(hodges_lehmann(d)))


def sign_flip_p(differences: Sequence[float] | npt.NDArray[np.float64], seed: int = 0) -> float:
    """Two-sided p of "the differences are symmetric about zero".

    All sign patterns up to 16 pairs; beyond, 20,000 random ones, the observed pattern counted among them, so that p
    is never zero.
    """
    d = np.asarray(differences, dtype=np.float64)
    observed = abs(float(d.sum()))
    # Rounding must not turn the observed pattern itself, or its ties, into a smaller sum.
    bar = observed - 1e-12 * float(np.abs(d).sum())
    if d.size <= _EXACT_PAIRS:
        bits = (np.arange(2**d.size)[:, None] >> np.arange(d.size)) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ d) >= bar))
    signs = np.random.default_rng(seed).integers(0, 2, size=(_DRAWS, d.size)) * 2 - 1
    return float((1 + np.count_nonzero(np.abs(signs @ d) >= bar)) / (_DRAWS + 1))


def hodges_lehmann(differences: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """The median of all pairwise means: a centre that one wild block cannot move."""
    d = np.asarray(differences, dtype=np.float64)
    i, j = np.triu_indices(d.size)
    return float(np.median((d[i] + d[j]) / 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order (Holm 1979, Scandinavian Journal of Statistics 6)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def pairs_needed(sd: float, margin: float) -> int:
    """Pairs that resolve a change of `margin` (0.02: 2 %) at 5 % with 80 % power, for log-ratios scattered by `sd`."""
    return max(MIN_PAIRS, math.ceil(((1.96 + 0.84) * sd / math.log1p(margin)) ** 2 + 2))
