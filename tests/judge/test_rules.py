"""What the gate's rules find in a comparison: word and sentence, rule by rule."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llamapatch.judge import rules
from llamapatch.judge.quality import Finding
from llamapatch.judge.result import Comparison
from llamapatch.judge.selftest import toy_meta
from llamapatch.series.model import PatchMeta
from tests.report.conftest import comparison, ratio


def meta(**more: Any) -> PatchMeta:
    data = toy_meta().model_dump(by_alias=True) | more
    return PatchMeta.model_validate(data)


def with_speed(*ratios: dict[str, Any], **more: Any) -> Comparison:
    data = comparison(**more).data()
    data["rounds"][0]["speed"] = list(ratios)
    return Comparison.model_validate(data)


def sound() -> Comparison:
    """One whose quality is known with an interval."""
    data = comparison().data()
    for row in data["rounds"][0]["quality"]:
        row.update(mean_kld_low=0.0004, mean_kld_high=0.0006)
    return Comparison.model_validate(data)


def said(finding: Finding) -> tuple[str, str]:
    return finding.word, finding.said


def test_a_sound_comparison_passes_every_rule() -> None:
    found = {name: said(finding) for name, finding in rules.measured(sound(), meta()).items()}
    assert found == {
        "off-identity": (
            "pass",
            "toy Q2_0: -ub 512: the logits of the off arm are upstream's in every byte (200 x 4096 logits), "
            "-ub 1: the logits of the off arm are upstream's in every byte (200 x 4096 logits).",
        ),
        "quality": (
            "pass",
            "toy Q2_0: -ub 512: NMSE 1.00e-07 against upstream's logits, 1e-06 allowed, "
            "KL divergence 5.00e-04 [4.00e-04, 6.00e-04] above the floor over 16 windows of 512, 1e-03 nats allowed.",
        ),
        "speed": ("inconclusive", "inconclusive: pp512 off 1.000x [0.960, 1.040]."),
        "memory": ("inconclusive", "peak memory toy Q2_0, on: 1.000x [0.960, 1.040], at most 1.02x allowed."),
    }


def test_the_worst_finding_of_all_models_decides() -> None:
    data = comparison().data()
    data["rounds"][0]["logits"][1]["verdict"] = "different"
    other = copy.deepcopy(data["rounds"][0])
    other["model"]["type"] = "F16"
    other["logits"][1]["verdict"] = "identical"
    shape = copy.deepcopy(other) | {"trained": False, "quality": [], "logits": []}
    data["rounds"] += [other, shape]
    assert said(rules.off_identity(Comparison.model_validate(data), meta())) == (
        "fail",
        "toy Q2_0: -ub 1: the logits of the off arm differ from upstream's by an NMSE of 1.00e-07 (200 x 4096 logits).",
    )
    assert rules.off_identity(Comparison.model_validate(data | {"rounds": [other, shape]}), meta()).word == "pass"
    # Random weights owe no identity, but a comparison of nothing else proves none.
    assert said(rules.off_identity(Comparison.model_validate(data | {"rounds": [shape]}), meta())) == (
        "not measured",
        "no logits were compared.",
    )
    other["logits"] = []
    assert rules.off_identity(Comparison.model_validate(data | {"rounds": [other]}), meta()).word == "not measured"
    assert said(rules.quality(Comparison.model_validate(data), meta(effect={"class": "lossy"}))) == (
        "not measured",
        "toy Q2_0: the patch is lossy and declares no budget in [gate] of patch.toml; "
        "toy F16: the patch is lossy and declares no budget in [gate] of patch.toml.",
    )


@pytest.mark.parametrize(
    ("low", "high", "word", "expected"),
    [
        (0.985, 1.01, "same", "pass"),
        (0.99, 0.999, "slower", "pass"),  # significant, and within what is allowed
        (0.93, 0.97, "slower", "fail"),
        (0.90, 0.99, "slower", "fail"),
        (0.97, 1.03, "inconclusive", "inconclusive"),
        (None, None, "no verdict", "inconclusive"),
        (0.99, 1.01, "unfit", "not measured"),
    ],
)
def test_never_slower_is_a_lower_bound(low: float | None, high: float | None, word: str, expected: str) -> None:
    middle = 1.0 if low is None or high is None else (low * high) ** 0.5
    sound = ratio("tg128", "off", 1.0, low=0.99, high=1.01, word="same")
    found = with_speed(ratio("pp512", "on", middle, low=low, high=high, word=word), sound)
    assert rules.speed(found, meta()).word == expected


def test_a_slower_patch_is_named_with_its_figure() -> None:
    found = with_speed(
        ratio("pp512", "on", 0.95, low=0.93, high=0.97, word="slower"),
        ratio("tg128", "on", 1.0, low=0.99, high=1.01, word="same"),
    )
    assert said(rules.speed(found, meta())) == ("fail", "slower by more than 2%: pp512 on 0.950x [0.930, 0.970].")
    assert rules.speed(found, meta(gate={"max_slowdown": 0.1})).word == "pass"
    assert said(rules.speed(with_speed(), meta())) == ("not measured", "no speed was measured.")


def test_a_claim_is_tested_on_the_lower_bound() -> None:
    sound = ratio("pp512", "on", 2.0, low=1.9, high=2.1)

    def claimed(least: float, **more: Any) -> tuple[str, str]:
        claim = {"metric": "pp512", "min": least} | more
        return said(rules.speed(with_speed(sound, profile="quick"), meta(gate={"claim": [claim]})))

    assert claimed(1.8) == (
        "pass",
        "none of 1 metrics slower by 2%: pp512 on 2.000x [1.900, 2.100]; pp512 2.000x [1.900, 2.100], claimed 1.8x.",
    )
    assert claimed(2.0)[0] == "inconclusive" and claimed(2.2)[0] == "fail"
    assert claimed(1.8, model="Q2_0")[0] == "pass"
    assert claimed(1.8, model="Q4_0")[0] == claimed(1.8, metric="pp9")[0] == "not measured"
    # What a quick run cannot measure is no failure of the patch, and no proof either.
    assert claimed(2.2, profile="full")[0] == "pass"
    kernels = meta(gate={"claim": [{"metric": "kernels", "min": 2.5}]})
    assert rules.speed(with_speed(sound), kernels).word == "pass"  # 3.0x [2.88, 3.12]
    assert rules.speed(with_speed(sound), meta(gate={"claim": [{"metric": "kernels", "min": 3.5}]})).word == "fail"


def test_memory_may_grow_a_little() -> None:
    def with_memory(value: float, low: float, high: float) -> Comparison:
        data = comparison().data()
        data["rounds"][0]["cost"] = [ratio("peak memory", "on", value, low=low, high=high, kind="amount", word="more")]
        return Comparison.model_validate(data)

    assert rules.memory(with_memory(1.01, 1.005, 1.015), meta()).word == "pass"
    assert said(rules.memory(with_memory(1.1, 1.09, 1.11), meta())) == (
        "fail",
        "peak memory toy Q2_0, on: 1.100x [1.090, 1.110], at most 1.02x allowed.",
    )
    assert rules.memory(with_memory(1.02, 1.01, 1.03), meta()).word == "inconclusive"


def test_nothing_passes_beside_what_was_not_measured() -> None:
    data = comparison().data()
    data["problems"], data["exit_code"] = [{"where": "speed", "what": "no rows"}], 8
    found = rules.measured(Comparison.model_validate(data), meta())
    assert {finding.word for finding in found.values()} == {"not measured"}
    assert all(finding.said.endswith("But speed: no rows") for finding in found.values())
    assert rules.applicable(["not applicable", "not applicable"]) == "not measured"
    assert rules.applicable(["pass", "not applicable"]) == "pass"
    assert rules.applicable(["pass", "inconclusive", "not measured", "fail"]) == "fail"
