"""Each class, each word: what decides, and the sentence that says so."""

from __future__ import annotations

from typing import Any

import pytest

from llamapatch.judge.quality import Finding, judge_identity, judge_quality
from llamapatch.judge.result import RoundResult
from llamapatch.measure.arms import ON
from tests.judge.test_rules import meta
from tests.report.conftest import comparison, logits, quality


def found(
    on: dict[str, Any] | None = None, floor: dict[str, Any] | None = None, compared: list[dict[str, Any]] | None = None
) -> RoundResult:
    """A round whose `on` arm has a KL divergence of 5e-4, interval 4e-4 to 6e-4, over 128 windows."""
    data = comparison().data()["rounds"][0]
    sound = {"mean_kld": 5e-4, "mean_kld_low": 4e-4, "mean_kld_high": 6e-4, "windows": 128}
    data["quality"] = [
        quality("base-again", floor=True, **({"mean_kld": 0.0} | (floor or {}))) if floor != {"none": True} else None,
        quality("on", **(sound | (on or {}))) if on != {"none": True} else None,
    ]
    data["quality"] = [row for row in data["quality"] if row is not None]
    data["logits"] = [logits("on", 512, "different")] if compared is None else compared
    return RoundResult.model_validate(data)


def test_identical_is_decided_on_bytes_of_every_micro_batch() -> None:
    strict = meta(effect={"class": "identical"})
    same = [logits(ON, 512, "identical"), logits(ON, 1, "identical")]
    assert judge_quality(found(compared=same), strict) == [
        Finding("identity -ub 512", "pass", "-ub 512: the logits of the on arm are upstream's in every byte (200 x 4096 logits)."),
        Finding("identity -ub 1", "pass", "-ub 1: the logits of the on arm are upstream's in every byte (200 x 4096 logits)."),
    ]  # fmt: skip
    odd = [logits(ON, 512, "different"), logits(ON, 1, "not provable")]
    assert judge_quality(found(compared=odd), strict) == [
        Finding("identity -ub 512", "fail", "-ub 512: the logits of the on arm differ from upstream's by an NMSE of 1.00e-07 (200 x 4096 logits)."),
        Finding("identity -ub 1", "not measured", "-ub 1: the logits of the on arm prove nothing, because upstream does not repeat itself (200 x 4096 logits)."),
    ]  # fmt: skip
    assert judge_quality(found(compared=[]), strict) == [
        Finding("identity", "not measured", "the logits of the on arm were not compared.")
    ]
    other_shape = logits(ON, 512, "different") | {"nmse": None}
    assert "by more than a number can say" in judge_identity(found(compared=[other_shape]), ON)[0].said


def test_a_patch_without_a_switch_is_judged_elsewhere() -> None:
    said = "the patch has no switch: its only arm is judged byte for byte."
    assert judge_quality(found(), meta(switch=None)) == [Finding("quality", "not applicable", said)]


def test_equivalent_holds_both_bounds() -> None:
    assert judge_quality(found(), meta()) == [
        Finding("logits error -ub 512", "pass", "-ub 512: NMSE 1.00e-07 against upstream's logits, 1e-06 allowed."),
        Finding("KL divergence", "pass", "KL divergence 5.00e-04 [4.00e-04, 6.00e-04] above the floor over 128 windows of 512, 1e-03 nats allowed."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(9e-4, 1e-3, "pass"), (9e-4, 1.01e-3, "inconclusive"), (1.01e-3, 1.2e-3, "fail"), (None, None, "inconclusive")],
)
def test_the_bound_decides_not_the_mean(low: float | None, high: float | None, word: str) -> None:
    on = {"mean_kld": 9.5e-4, "mean_kld_low": low, "mean_kld_high": high}
    (finding,) = (f for f in judge_quality(found(on), meta()) if f.name == "KL divergence")
    assert finding.word == word
    assert ("(too few windows)" in finding.said) == (low is None)


def test_the_floor_is_taken_off_and_widens_the_limit() -> None:
    on = {"mean_kld": 2.0e-3, "mean_kld_low": 1.4e-3, "mean_kld_high": 1.6e-3}
    (finding,) = (f for f in judge_quality(found(on, {"mean_kld": 5e-4}), meta()) if f.name == "KL divergence")
    assert finding.word == "inconclusive"  # three times 5e-4 lies within the interval
    assert finding.said == (
        "KL divergence 1.50e-03 [1.40e-03, 1.60e-03] above the floor over 128 windows of 512, "
        "3 x the A/A floor of 5.0e-04 allowed."
    )


def test_upstreams_own_difference_is_the_limit_where_it_is_larger() -> None:
    own = logits("base", 1, "different") | {"nmse": 4e-5, "mean_kld": 2e-3}
    on = logits(ON, 512, "different") | {"nmse": 3e-5}
    worse = {"mean_kld": 1.5e-3, "mean_kld_low": 1.4e-3, "mean_kld_high": 1.6e-3}
    assert judge_quality(found(worse, compared=[on, own]), meta()) == [
        Finding("logits error -ub 512", "pass", "-ub 512: NMSE 3.00e-05 against upstream's logits, upstream's own between -ub 1 and -ub 512 is 4.0e-05."),
        Finding("KL divergence", "pass", "KL divergence 1.50e-03 [1.40e-03, 1.60e-03] above the floor over 128 windows of 512, upstream's own between -ub 1 and -ub 512 is 2.0e-03."),
    ]  # fmt: skip
    without = judge_quality(found(worse, compared=[on]), meta())
    assert [f.word for f in without] == ["fail", "fail"]
    assert [f.word for f in judge_quality(found(worse, compared=[on | {"nmse": 5e-5}, own]), meta())] == [
        "fail",
        "pass",
    ]


def test_what_was_not_measured_never_passes() -> None:
    lossy = meta(effect={"class": "lossy"}, gate={"max_kld": 1.0})
    for what in ({"none": True},):
        for declared, words in ((meta(), ["pass", "not measured"]), (lossy, ["not measured"])):
            assert [f.word for f in judge_quality(found(what), declared)] == words
            assert [f.word for f in judge_quality(found(None, what), declared)] == words
    assert [f.word for f in judge_quality(found(compared=[]), meta())] == ["not measured", "pass"]
    unfit = logits(ON, 512, "different") | {"nmse": None, "mean_kld": None}
    assert [f.word for f in judge_quality(found(compared=[unfit]), meta())] == ["fail", "pass"]
    assert judge_quality(found(), meta(effect={"class": "lossy"})) == [
        Finding("budgets", "not measured", "the patch is lossy and declares no budget in [gate] of patch.toml.")
    ]


def test_every_context_is_judged() -> None:
    data = found().model_dump()
    long = [row | {"context": 2048, "windows": 32} for row in data["quality"]]
    long[1] |= {"mean_kld": 2e-3, "mean_kld_low": 1.9e-3, "mean_kld_high": 2.1e-3}
    data["quality"] += long
    judged = judge_quality(RoundResult.model_validate(data), meta())
    assert [f.word for f in judged] == ["pass", "pass", "fail"]
    assert "over 32 windows of 2048" in judged[2].said
    data["quality"].pop()
    assert [f.word for f in judge_quality(RoundResult.model_validate(data), meta())] == ["pass", "pass", "not measured"]


def test_lossy_budgets_are_held_by_their_bounds() -> None:
    budgets = {"max_kld": 1e-2, "max_delta_ln_ppl": 0.004, "min_top1": 0.99}
    lossy = meta(effect={"class": "lossy"}, gate=budgets)
    assert judge_quality(found(), lossy) == [
        Finding("KL divergence", "pass", "KL divergence 5.00e-04 [4.00e-04, 6.00e-04] above the floor over 128 windows of 512, 1.00e-02 budgeted."),
        Finding("perplexity", "pass", "delta ln perplexity +1.00e-03 [-1.00e-03, 3.00e-03] over 128 windows of 512, 4.00e-03 budgeted."),
        Finding("top-1 agreement", "pass", "top-1 agreement 0.9950 [0.9942, 0.9957] over 128 windows of 512, 0.99 demanded."),
    ]  # fmt: skip
    tight = meta(effect={"class": "lossy"}, gate={"max_kld": 3e-4, "max_delta_ln_ppl": 0.002, "min_top1": 0.9956})
    assert [f.word for f in judge_quality(found(), tight)] == ["fail", "inconclusive", "inconclusive"]
    assert [f.word for f in judge_quality(found({"same_top": 0.98}), lossy)] == ["pass", "pass", "fail"]
    assert [f.word for f in judge_quality(found({"ln_ratio_low": 0.005, "ln_ratio_high": 0.006}), lossy)][1] == "fail"


def test_a_budget_that_16_bits_would_blur_is_judged_on_32_bit_logits() -> None:
    floor = {"mean_kld": 4e-4}
    lossy = meta(effect={"class": "lossy"}, gate={"max_kld": 1e-3})
    exact = logits(ON, 1, "different") | {"mean_kld": 8e-4, "mean_kld_low": 7e-4, "mean_kld_high": 9e-4}
    closer = logits(ON, 512, "different") | {"mean_kld": 1e-8}
    assert judge_quality(found(None, floor, [closer, exact]), lossy) == [
        Finding("KL divergence", "pass", "KL divergence 8.00e-04 [7.00e-04, 9.00e-04] of the 32-bit logits at -ub 1, 1.00e-03 budgeted."),
    ]  # fmt: skip
    assert judge_quality(found(None, floor, []), lossy) == [
        Finding("KL divergence", "not measured", "1.0e-03 is budgeted, too little for the floor of 4.0e-04, and no 32-bit logits were compared.")
    ]  # fmt: skip
    words = {
        "identical": judge_quality(found(None, floor, [logits(ON, 1, "identical") | {"mean_kld": 0.0}]), lossy),
        "beyond": judge_quality(found(None, floor, [exact | {"mean_kld_low": 2e-3, "mean_kld_high": 3e-3}]), lossy),
        "unfit": judge_quality(found(None, floor, [exact | {"mean_kld": None}]), lossy),
    }
    assert {key: value[0].word for key, value in words.items()} == {
        "identical": "pass",
        "beyond": "fail",
        "unfit": "fail",
    }
