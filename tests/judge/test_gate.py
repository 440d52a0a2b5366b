"""What a gate finds in a comparison, violation by violation."""

from __future__ import annotations

from typing import Any

import pytest

from llamapatch.judge.gate import content_of, violations
from llamapatch.judge.result import Comparison
from llamapatch.series.model import Lock, PatchMeta
from tests.report.conftest import comparison

META: dict[str, Any] = {
    "schema": 1,
    "id": "toy",
    "title": "Toy",
    "phase": "phase1",
    "authors": ["A <a@example.org>"],
    "date": "2026-01-02",
    "requires": ["foundation"],
    "upstream": {"status": "never", "reason": "a test"},
    "effect": {"class": "equivalent"},
    "switch": {"env": "LLAMA_LP_TOY"},
}


def meta(**more: Any) -> PatchMeta:
    return PatchMeta.model_validate(META | more)


def changed(found: Comparison, arm: str, **quality: Any) -> Comparison:
    """`found` with other figures of quality for one arm."""
    data = found.data()
    data["problems"], data["exit_code"] = [], 0
    for row in data["rounds"][0]["quality"]:
        if row["arm"] == arm:
            row.update(quality)
    return Comparison.model_validate(data)


def sound() -> Comparison:
    return changed(comparison(), "on")


def test_a_sound_comparison_breaks_nothing() -> None:
    assert violations(sound(), meta()) == []


def test_the_off_arm_must_be_upstream_to_the_byte() -> None:
    data = sound().data()
    data["rounds"][0]["logits"][1]["verdict"] = "different"
    assert violations(Comparison.model_validate(data), meta()) == ["Q2_0, -ub 1: logits of the off arm are different."]
    data["rounds"][0]["logits"] = []
    assert violations(Comparison.model_validate(data), meta()) == ["Q2_0: the logits of the off arm were not compared."]


def test_identical_binds_the_on_arm_too() -> None:
    assert violations(sound(), meta(effect={"class": "identical"})) == [
        "Q2_0, -ub 512: logits of the on arm are different."
    ]


def test_equivalent_has_no_room_above_the_floor() -> None:
    assert violations(changed(comparison(), "on", mean_kld=2e-3), meta()) == [
        "Q2_0: KL divergence 2.00e-03 above the floor, 1e-03 allowed."
    ]


@pytest.mark.parametrize(
    ("budget", "figures", "text"),
    [
        ({"max_kld": 0.01}, {"mean_kld": 0.02}, "KL divergence 2.00e-02 above the floor, 1.00e-02 budgeted."),
        ({"max_delta_ln_ppl": 0.01}, {"ln_ratio": 0.03}, "delta ln perplexity 3.00e-02, 1.00e-02 budgeted."),
        ({"min_top1": 0.99}, {"same_top": 0.95}, "top-1 agreement 0.9500, 0.99 demanded."),
    ],
)
def test_lossy_is_held_to_its_budgets(budget: dict[str, float], figures: dict[str, float], text: str) -> None:
    lossy = meta(effect={"class": "lossy"}, gate=budget)
    assert violations(changed(comparison(), "on", mean_kld=0.005), lossy) == []
    assert violations(changed(comparison(), "on", **({"mean_kld": 0.005} | figures)), lossy) == [f"Q2_0: {text}"]


def test_a_claimed_speedup_is_tested_on_the_lower_bound() -> None:
    data = sound().data()
    for kernel in data["kernels"]:
        kernel["patch"] = "toy"
        for ratio in kernel["overall"]:
            ratio.update(arm="on", ratio=5.0, low=4.5, high=5.5)
    found = Comparison.model_validate(data)
    assert found.kernels
    assert violations(found, meta(gate={"min_speedup": 4.0})) == []
    assert violations(found, meta(gate={"min_speedup": 4.8})) == [
        "4.8x is claimed; measured 5.00x, at least 4.50x."
    ] * len(found.kernels[0].overall)


def test_problems_are_violations() -> None:
    data = sound().data()
    data["problems"], data["exit_code"] = [{"where": "speed", "what": "no rows"}], 8
    assert violations(Comparison.model_validate(data), meta()) == ["speed: no rows"]


def test_a_result_belongs_to_the_patch_and_what_it_requires() -> None:
    def lock(toy: str, below: str) -> Lock:
        patches = [
            {
                "id": name, "diff": digest * 64, "overlay": {}, "meta": "0" * 64, "files": [], "hunks": [],
                "tree": "1" * 40, "commit": "2" * 40, "chain": "3" * 64,
            }
            for name, digest in (("foundation", below), ("toy", toy))
        ]  # fmt: skip
        return Lock.model_validate(
            {"schema": 1, "upstream_tree": "f" * 40, "base_commit": "e" * 40, "patches": patches}
        )

    first = content_of(lock("a", "b"), meta())
    assert first == content_of(lock("a", "b"), meta())
    assert len({first, content_of(lock("c", "b"), meta()), content_of(lock("a", "c"), meta())}) == 3
