"""Whole comparisons on fake builds: what is reported, and what refuses to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamapatch.judge.comparison import activities, judge_kernels, judge_round
from llamapatch.measure.arms import AGAIN, BASE, OFF, ON, make_arms
from llamapatch.measure.inputs import TextFile, given_model
from llamapatch.measure.machine import Load as Reading
from llamapatch.measure.machine import between, describe_machine, free_cores, read_joules
from llamapatch.measure.progress import Progress, clock
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.scenario import Profile, Scenario
from llamapatch.measure.schedule import interleave
from llamapatch.measure.session import Job, KernelPlan, Measurements, RoundPlan, Undecided, collect
from tests.measure.conftest import MakeBuild

SCENARIOS = {"short": Scenario(title="short", prompt=64, generate=16)}
PROFILE = Profile(title="toy", blocks=7, windows=8, prompt_bytes=200, scenarios=["short"])


def run_job(
    make_build: MakeBuild,
    model: Path,
    text: TextFile,
    folder: RunFolder,
    *,
    base: dict[str, Any] | None = None,
    patched: dict[str, Any] | None = None,
    kernel: bool = False,
    said: list[str] | None = None,
    scenarios: dict[str, Scenario] | None = None,
    profile: Profile = PROFILE,
    undecided: Undecided | None = None,
    peers: dict[str, Path] | None = None,
) -> Measurements:
    sound = {"patched": True, "handled": 5, "speed_on": 2.0, "commit": "def"}
    build = make_build("patched", **(sound | (patched or {})))
    arms = make_arms(make_build("base", **(base or {})), "v0", build, "v0+lp.1", {"LLAMA_LP_TOY": "on"}, peers=peers)
    job = Job(
        arms=arms,
        rounds=(RoundPlan(given_model(model), ("toy",), scenarios or SCENARIOS),),
        kernels=(KernelPlan("toy", build / "bench-toy", ("--fast",)),) if kernel else (),
        text=text,
        profile=profile,
        threads=1,
        seed=1,
        switched=("toy",),
        logits_cache=folder.path / "logits",
    )
    return collect(job, folder, Progress(said.append if said is not None else None), undecided)


def test_a_sound_comparison(make_build: MakeBuild, model: Path, text: TextFile, folder: RunFolder) -> None:
    said: list[str] = []
    found = run_job(make_build, model, text, folder, kernel=True, patched={"shift_on": 0.01}, said=said)
    assert found.problems == []
    result = judge_round(found.rounds[0])
    speed = {(r.metric, r.arm): r for r in result.speed}
    assert {metric for metric, _ in speed} == {"pp64", "tg16"}
    for metric in ("pp64", "tg16"):
        on = speed[metric, ON]
        assert on.word == "faster" and on.ratio == pytest.approx(2.0, rel=0.02) and on.blocks == 7
        assert on.low is not None and on.high is not None and on.low < on.ratio < on.high
        assert speed[metric, OFF].word in ("same", "not slower", "inconclusive")
        assert speed[metric, AGAIN].word == "info"
        assert on.value == pytest.approx(2 * on.base, rel=0.05)
    quality = {q.arm: q for q in result.quality}
    assert quality[AGAIN].floor and not quality[ON].floor
    assert quality[ON].ln_ratio == pytest.approx(0.01) and quality[OFF].ln_ratio == 0
    assert {(x.arm, x.ubatch): x.verdict for x in result.logits}[OFF, 1] == "identical"
    assert {(x.arm, x.ubatch): x.verdict for x in result.logits}[ON, 512] == "different"
    assert {m.arm: m.buffers["model"] for m in result.memory} == {BASE: 1.5, OFF: 1.5, ON: 1.5}
    assert {r.metric for r in result.cost} >= {"CPU time", "peak memory"}
    kernel = judge_kernels(found.kernels[0])
    assert kernel is not None
    overall = next(r for r in kernel.overall if r.arm == ON)
    assert overall.word == "faster" and overall.ratio == pytest.approx(3, rel=0.05)
    assert all(r.word == "info" for r in kernel.cases) and len(kernel.cases) == 2 * 3
    counted = {(a.patch, a.where): a.handled for a in activities(found)}
    # 1 divergence, 2 logits, 14 speed processes; 14 kernel processes; five calls each.
    assert counted == {("toy", "toy model as given"): 5 * 17, ("toy", "kernel benchmark of toy"): 5 * 14}
    assert any("left]" in line for line in said) and "short, block 7 of 7" in " ".join(said)
    assert len(list((folder.path / "out").glob("*.out"))) == len(folder.runs)


@pytest.mark.parametrize(
    ("patched", "where"),
    [
        ({"fault": {"llama-bench": "no rows"}}, "speed"),
        ({"fault": {"llama-perplexity": "too few windows"}}, "quality"),
        ({"fault": {"llama-results": "nan"}}, "logits"),
    ],
)
def test_one_part_failing_leaves_the_others(
    make_build: MakeBuild, model: Path, text: TextFile, folder: RunFolder, patched: dict[str, Any], where: str
) -> None:
    found = run_job(make_build, model, text, folder, patched=patched)
    assert [problem.where.split(",")[0] for problem in found.problems] == [where]
    result = judge_round(found.rounds[0])
    assert bool(result.speed) == (where != "speed")
    assert len(result.quality) == (1 if where == "quality" else 3)  # the floor was still measured
    assert bool(result.logits) == (where != "logits")


def test_an_on_arm_that_handled_nothing_has_measured_nothing(
    make_build: MakeBuild, model: Path, text: TextFile, folder: RunFolder
) -> None:
    found = run_job(make_build, model, text, folder, patched={"handled": 0})
    assert [p.where for p in found.problems] == ["patch toy"]
    assert "nothing of it was measured" in found.problems[0].what and "shape (51)" in found.problems[0].what


def test_a_patched_build_without_counters_is_doubted(
    make_build: MakeBuild, model: Path, text: TextFile, folder: RunFolder
) -> None:
    found = run_job(make_build, model, text, folder, patched={"patched": False})
    assert "wrote no statistics" in found.problems[0].what
    assert "no process of the on arm registered it" in found.problems[1].what


def test_a_switch_that_does_not_hold_is_reported(
    make_build: MakeBuild, model: Path, text: TextFile, folder: RunFolder
) -> None:
    found = run_job(make_build, model, text, folder, patched={"handled_off": 3})
    assert any("its switch does not hold" in p.what for p in found.problems)


def test_blocks_run_forwards_and_backwards() -> None:
    schedule = interleave(["a", "b", "c", "d"], 3, 5)
    assert len(schedule) == 24 and schedule == interleave(["a", "b", "c", "d"], 3, 5)
    for block in range(3):
        names = [name for at, name in schedule if at == block]
        assert names == names[::-1] and sorted(names[:4]) == ["a", "b", "c", "d"]
    assert len({tuple(interleave("abcd", 1, seed)) for seed in range(50)}) > 10


def test_the_machine_is_described_and_contention_is_what_others_used(tmp_path: Path) -> None:
    facts = describe_machine()
    assert json.loads(json.dumps(facts)) == facts and facts["cores"] >= 1 and len(facts["id"]) == 12
    before, after = Reading(100.0, 1.0, 5.0, 0.1), Reading(104.0, 1.2, 9.0, 0.1)
    window = between(before, after, seconds=2.0, child_cpu=3.0)
    assert window.other_cores == pytest.approx(0.5) and window.steal_cores == pytest.approx(0.1)
    assert window.joules == pytest.approx(4.0) and window.contended
    assert not between(before, after, seconds=2.0, child_cpu=3.9).contended
    assert between(Reading(None, None, None, None), after, seconds=2.0, child_cpu=0.0).other_cores is None
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("2500000\n")
    (tmp_path / "intel-rapl:0:0").mkdir()
    assert 1 <= free_cores(0.05) <= facts["cores"]
    assert read_joules(tmp_path) == 2.5 and read_joules(tmp_path / "none") is None


def test_clock() -> None:
    assert [clock(s) for s in (4.6, 95, 3700)] == ["5s", "1m35s", "1h01m"]
