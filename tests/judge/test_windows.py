"""Intervals over windows: known answers, and how often they cover the truth on simulated text."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from llamapatch.judge.windows import MIN_WINDOWS, ROUNDING, block_length, interval, paired_difference, per_window

Floats = npt.NDArray[np.float64]


def series(rng: np.random.Generator, n: int, rho: float) -> Floats:
    """A stationary first-order autoregression with mean 0, variance 1."""
    noise = rng.standard_normal(n + 60) * math.sqrt(1 - rho**2)
    x = np.empty(n + 60)
    x[0] = noise[0]
    for i in range(1, n + 60):
        x[i] = rho * x[i - 1] + noise[i]
    return x[60:]


def batch_means(x: Floats) -> tuple[float, float]:
    """What was used before: at most 32 consecutive batches and Student's t."""
    means = np.array([part.mean() for part in np.array_split(x, min(32, x.size))])
    half = float(stats.t.ppf(0.975, means.size - 1)) * means.std(ddof=1) / math.sqrt(means.size)
    return float(means.mean() - half), float(means.mean() + half)


def coverage(n: int, rho: float, *, skewed: bool = False, runs: int = 1000) -> tuple[float, float]:
    """How often (block bootstrap, batch means) hold the true mean."""
    rng = np.random.default_rng(17)
    truth = math.exp(0.125) if skewed else 0.0
    ours = theirs = 0
    for _ in range(runs):
        x = series(rng, n, rho)
        if skewed:  # log-normal with the skewness of a window's KL divergence, about 1.7
            x = np.exp(0.5 * x)
        found = interval(x)
        assert found.low is not None and found.high is not None
        ours += found.low <= truth <= found.high
        low, high = batch_means(x)
        theirs += low <= truth <= high
    return ours / runs, theirs / runs


@pytest.mark.parametrize(
    ("n", "rho", "skewed"),
    [
        (64, 0.0, False), (64, 0.3, False), (128, 0.0, True), (128, 0.3, False), (128, 0.3, True),
        (356, 0.0, False), (356, 0.3, False), (356, 0.3, True),
    ],
)  # fmt: skip
def test_a_nominal_95_percent_interval_covers_between_93_and_97(n: int, rho: float, skewed: bool) -> None:
    ours, theirs = coverage(n, rho, skewed=skewed)
    print(f"{n} windows, autocorrelation {rho}, skewed {skewed}: {ours:.3f}, batch means {theirs:.3f}")
    assert 0.93 <= ours <= 0.97
    # Never worse than what it replaced, and clearly better where windows are few and related.
    assert abs(ours - 0.95) <= abs(theirs - 0.95) + 0.015
    if n == 64 and rho:
        assert theirs < 0.92


def test_sixteen_windows_are_too_few_to_be_exact_and_err_on_the_safe_side() -> None:
    assert coverage(16, 0.0)[0] >= 0.97
    assert coverage(16, 0.3)[0] >= 0.95 > 0.89 > coverage(16, 0.3)[1]


def test_the_seed_decides_and_the_mean_is_the_mean() -> None:
    x = series(np.random.default_rng(3), 100, 0.3)
    assert interval(x) == interval(x) != interval(x, seed=1)
    found = interval(x)
    assert found.mean == pytest.approx(x.mean()) and found.windows == 100
    assert found.low is not None and found.high is not None
    assert found.high - found.mean == pytest.approx(found.mean - found.low)


def test_windows_that_are_nearly_all_alike_have_an_interval_too() -> None:
    """A patch that changes one window of many: draws without it have no scatter, and the interval stays finite."""
    for n in (8, 16, 128):
        x = np.zeros(n)
        x[n // 2] = 1e-3
        found = interval(x)
        assert found.low is not None and found.high is not None
        assert found.low < 0 < found.mean < found.high < 1e-3


def test_block_lengths_follow_the_rule_and_the_data() -> None:
    rng = np.random.default_rng(5)
    assert [block_length(series(rng, n, 0.0)) for n in (8, 27, 64, 343)] == [2, 4, 6, 10]
    related = [block_length(series(rng, 343, 0.85)) for _ in range(20)]
    assert np.median(related) > 20 and max(related) <= 343 // 4
    assert block_length(np.ones(100)) == 7  # no scatter at all


def test_running_means_are_taken_apart_and_paired() -> None:
    values = np.array([1.0, 3.0, 2.0, 6.0, 4.0])
    running = np.cumsum(values) / np.arange(1, 6)
    assert per_window(running.tolist()) == pytest.approx(values)
    many = np.random.default_rng(2).normal(size=100)
    n = np.arange(1, 101)
    same = paired_difference((np.cumsum(many + 0.25) / n).tolist(), (np.cumsum(many) / n).tolist())
    assert (same.low, same.mean, same.high) == pytest.approx((0.24999, 0.25, 0.25001))
    nothing = paired_difference([0.5] * 20, [0.5] * 20)
    assert (nothing.low, nothing.mean, nothing.high) == (-1e-5, 0, 1e-5)
    few = interval(np.arange(MIN_WINDOWS - 1))
    assert (few.low, few.high, few.mean) == (None, None, 3.0)
    with pytest.raises(ValueError, match="different windows"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="no windows"):
        per_window([])


def test_five_decimals_widen_the_interval_and_never_hide_the_truth() -> None:
    """356 windows with a KL divergence of 1e-4 in a table that is printed as upstream prints it."""
    rng = np.random.default_rng(8)
    n = np.arange(1, 357)
    covered, widths, exact_widths = 0, [], []
    for _ in range(300):
        values = 1e-4 * np.exp(0.5 * series(rng, 356, 0.2))
        exact = np.cumsum(values) / n
        printed = np.round(exact, 5)
        found = paired_difference(printed.tolist(), [0.0] * 356)
        assert found.low is not None and found.high is not None and found.rounding == 2 * ROUNDING
        assert abs(found.mean - values.mean()) <= ROUNDING
        covered += found.low <= 1e-4 * math.exp(0.125) <= found.high
        widths.append(found.high - found.low)
        plain = interval(values)
        exact_widths.append((plain.high or 0) - (plain.low or 0))
    assert covered / 300 >= 0.95
    # What the rounding costs: the interval of so small a figure is wider, by less than 1e-4.
    assert np.median(exact_widths) < np.median(widths) < np.median(exact_widths) + 1e-4
