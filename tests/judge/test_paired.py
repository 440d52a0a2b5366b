"""The statistics: known values, and coverage on simulated noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from llamapatch.judge.paired import (
    MIN_PAIRS,
    estimate,
    hodges_lehmann,
    holm,
    pairs_needed,
    sign_flip_p,
)
from llamapatch.judge.verdict import agrees_with_itself, judge


def test_sign_flip_counts_patterns() -> None:
    assert sign_flip_p([1.0] * 5) == 2 / 32
    assert sign_flip_p([1.0] * 7) == 2 / 128
    assert sign_flip_p([1.0, -1.0]) == 1.0
    assert sign_flip_p([0.3, 0.1, -0.05, 0.2]) == 4 / 16  # |sum| >= 0.55: all plus, one of them flipped at 0.05
    many = sign_flip_p([0.01] * 20)
    assert 0 < many <= 2 / 20_000
    assert sign_flip_p([0.1] * 20, seed=3) == sign_flip_p([0.1] * 20, seed=3)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    # What the smallest number of blocks is for: seven can reject when looked at twice, six cannot.
    assert 2 / 2**MIN_PAIRS <= 0.025 < 2 / 2 ** (MIN_PAIRS - 1)


def test_estimate_is_the_textbook_interval() -> None:
    logs = [0.01, 0.03, 0.02, 0.00, 0.04]
    found = estimate(logs)
    half = 2.7764451 * float(np.std(logs, ddof=1)) / math.sqrt(5)
    assert found.ratio == pytest.approx(math.exp(0.02))
    assert found.low == pytest.approx(math.exp(0.02 - half)) and found.high == pytest.approx(math.exp(0.02 + half))
    assert found.p == pytest.approx(stats.ttest_1samp(logs, 0).pvalue) and found.flip_p == 4 / 32
    assert estimate([0.5]).low is None and estimate([0.5]).p == 1.0
    assert estimate([0.1] * 3).p < 1e-12 and estimate([0.0] * 3).p == 1.0
    for bad in ([], [float("nan")], [0.0, float("inf")]):
        with pytest.raises(ValueError, match="finite"):
            estimate(bad)


def test_hodges_lehmann_ignores_a_wild_block() -> None:
    assert hodges_lehmann([0.01, 0.02, 0.03, 5.0, 0.02, 0.01, 0.02]) < 0.05


def test_pairs_needed() -> None:
    assert pairs_needed(0.005, 0.02) == MIN_PAIRS
    assert pairs_needed(0.1, 0.02) > 150


def test_intervals_cover_the_truth_and_false_claims_are_rare() -> None:
    """Seven blocks of noise with a drift and occasional spikes, both within a block and of no effect."""
    rng = np.random.default_rng(11)
    rounds, n, truth = 2000, 7, 0.01
    plain = truth + rng.normal(scale=0.02, size=(rounds, n))
    covered = sum((e.low or 0) <= math.exp(truth) <= (e.high or 0) for e in (estimate(row) for row in plain))
    assert 0.935 <= covered / rounds <= 0.965
    drift = np.linspace(-0.01, 0.01, n) * rng.choice([-1, 1], size=(rounds, 1))
    spikes = rng.choice([-1, 1], size=(rounds, n)) * (rng.random((rounds, n)) < 0.1) * rng.exponential(0.2, (rounds, n))
    claims = 0
    for row in rng.normal(scale=0.02, size=(rounds, n)) + drift + spikes:
        claims += judge([estimate(row)], faster_is_more=True)[0].word in ("faster", "slower")
    assert claims / rounds <= 0.05
    # Power: a change of 5 % with 2 % of noise is found in most runs of seven blocks.
    found = sum(
        judge([estimate(row)], faster_is_more=True)[0].word == "faster"
        for row in 0.05 + rng.normal(scale=0.02, size=(500, n))
    )
    assert found / 500 >= 0.9


def test_verdict_words() -> None:
    def word(logs: list[float], *, more: bool = True, fit: bool = True) -> str:
        return judge([estimate(logs)], faster_is_more=more, fit=[fit])[0].word

    wobble = [0.001, -0.001, 0.002, -0.002, 0.0005, -0.0005, 0.0]
    assert word([0.7 + w for w in wobble]) == "faster"
    assert word([-0.7 + w for w in wobble]) == "slower"
    assert word([0.7 + w for w in wobble], more=False) == "more"
    assert word([-0.7 + w for w in wobble], more=False) == "less"
    assert word(wobble) == "same"
    assert word([20 * w for w in wobble]) == "inconclusive"
    assert word([0.7] * 6) == "no verdict"
    assert word([0.7 + w for w in wobble], fit=False) == "unfit"
    assert word([0.01 + 16 * w for w in wobble]) == "not slower"
    needed = judge([estimate([20 * w for w in wobble])], faster_is_more=True)[0].blocks_needed
    assert needed is not None and needed >= 7


def test_verdicts_of_a_family_pay_for_their_number() -> None:
    logs = [0.05, 0.02, 0.06, 0.01, 0.03, 0.08, 0.001]
    alone = judge([estimate(logs)], faster_is_more=True)[0]
    family = judge([estimate(logs)] * 5, faster_is_more=True)[0]
    assert alone.word == "faster" and family.word == "not slower"
    assert family.p == pytest.approx(5 * (alone.p or 0))


def test_a_normal_looking_result_of_a_lopsided_sample_is_no_claim() -> None:
    """Student's p is tiny, but one of seven blocks points the other way by as much: the sign flips disagree."""
    verdict = judge([estimate([0.02, 0.02, 0.02, 0.02, 0.02, -0.001, -0.0005])], faster_is_more=True)[0]
    assert (verdict.p or 1) < 0.025 and verdict.word == "not slower"


def test_a_machine_that_disagrees_with_itself_is_unfit() -> None:
    assert agrees_with_itself(estimate([0.001, -0.001] * 4))
    assert not agrees_with_itself(estimate([0.1, 0.11, 0.09, 0.1, 0.12, 0.08, 0.1]))
    assert agrees_with_itself(estimate([0.1, 0.1]))  # too few to tell
