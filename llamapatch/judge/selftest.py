"""``gate --self-test``: the gate judges fake tools whose faults are known, through its whole path but for the builds.

A gate that never fails is worth as little as one that always does. Unchanged tools must pass, each injected fault must
be caught by the step that is there for it, and what measured nothing must never pass.
"""

from __future__ import annotations

import datetime
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from llamapatch.config import Settings
from llamapatch.errors import EnvironmentProblem
from llamapatch.judge import rules
from llamapatch.judge.comparison import judge_round, undecided
from llamapatch.judge.gate_result import StepWord
from llamapatch.judge.quality import Finding
from llamapatch.judge.result import Comparison, ProblemInfo, TextInfo
from llamapatch.judge.verdict import level_of
from llamapatch.measure.arms import make_arms
from llamapatch.measure.inputs import given_model, given_text
from llamapatch.measure.progress import Progress
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.scenario import Profile, Scenario
from llamapatch.measure.session import Job, RoundPlan, collect
from llamapatch.series.model import PatchMeta

TOOLS = (
    "llama-bench",
    "llama-batched-bench",
    "llama-perplexity",
    "llama-results",
    "llama-quantize",
    "llama-completion",
    "llama-completion",
    "bench-toy",
)
SCENARIO = Scenario(title="fake", prompt=64, generate=16, repetitions=8)
PROFILE = Profile(title="fake", blocks=7, extend=1, windows=8, prompt_bytes=200, scenarios=["fake"])
SWITCH = "LLAMA_LP_TOY"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """What the fake tools do, what the gate must say, and which of its steps must say it."""

    name: str
    expected: StepWord
    step: str
    base: dict[str, Any] = field(default_factory=dict)
    patched: dict[str, Any] = field(default_factory=dict)
    without: str = ""


CASES = (
    Case("unchanged against itself", "pass", ""),
    Case("unchanged, a second time", "pass", "", base={"seed": "b"}, patched={"seed": "b"}),
    Case("unchanged, a third time", "pass", "", base={"seed": "c"}, patched={"seed": "c"}),
    Case("5 % slower when on", "fail", "speed", patched={"speed_on": 0.95}),
    Case("5 % slower when off", "fail", "speed", patched={"speed": 0.95}),
    Case("logits off by 1e-2 when off", "fail", "off-identity", patched={"shift": 1e-2}),
    Case("logits off by 1e-2 when on", "fail", "quality", patched={"shift_on": 1e-2}),
    Case("no rows", "not measured", "speed", patched={"fault": {"llama-bench": "no rows"}}),
    Case("a NaN among the samples", "not measured", "speed", patched={"fault": {"llama-bench": "nan"}}),
    Case("logits that are not finite", "not measured", "off-identity", patched={"fault": {"llama-results": "nan"}}),
    Case("status 0 with an error text", "not measured", "speed", patched={"fault": {"llama-bench": "error text"}}),
    Case("too few windows", "not measured", "quality", patched={"fault": {"llama-perplexity": "too few windows"}}),
    Case("an arm without its tool", "not measured", "speed", without="llama-bench"),
    Case("a switch that reaches nothing", "not measured", "speed", patched={"handled": 0}),
    Case(
        "a base that does not repeat itself",
        "not measured",
        "off-identity",
        base={"fault": {"llama-results": "not reproducible"}},
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What the gate said of a case: the word of the whole and of each step."""

    case: Case
    word: StepWord
    steps: dict[str, Finding]

    @property
    def right(self) -> bool:
        """Whether the gate said what it had to, in the step that is there for it."""
        if self.word != self.case.expected:
            return False
        return not self.case.step or self.steps[self.case.step].word == self.case.expected

    def data(self) -> dict[str, Any]:
        """As JSON data."""
        steps = {name: {"word": finding.word, "said": finding.said} for name, finding in self.steps.items()}
        case = self.case
        return {"case": case.name, "expected": case.expected, "word": self.word, "right": self.right, "steps": steps}


def self_test(settings: Settings, report: Report, cases: tuple[Case, ...] = CASES) -> list[Outcome]:
    """Judge every case in a temporary folder."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="llamapatch-self-test-") as place:
        for number, case in enumerate(cases):
            report(f"self-test {number + 1} of {len(cases)}: {case.name}")
            outcomes.append(_judge(settings.home / "ci", case, Path(place) / str(number)))
    return outcomes


def _judge(ci: Path, case: Case, place: Path) -> Outcome:
    base = install_tools(ci, place / "base", **case.base)
    behaviour = {"patched": True, "handled": 5, "commit": "def"} | case.patched
    patched = install_tools(ci, place / "patched", **behaviour)
    if case.without:
        (patched / case.without).unlink()
    text = place / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog.\n" * 700, encoding="utf-8")
    job = Job(
        arms=make_arms(base, "v0", patched, "v0+lp.1", {SWITCH: "on"}),
        rounds=(RoundPlan(given_model(write_toy_model(place / "toy.gguf")), ("toy",), {"fake": SCENARIO}),),
        kernels=(),
        text=given_text(text),
        profile=PROFILE,
        threads=1,
        seed=20260304,
        switched=("toy",),
        logits_cache=place / "logits",
    )
    meta = toy_meta()
    try:
        found = _comparison(job, RunFolder.create(place / "runs"))
    except EnvironmentProblem as error:
        missing = Finding("comparison", "not measured", error.message)
        return Outcome(case, "not measured", dict.fromkeys(rules.MEASURED, missing))
    steps = rules.measured(found, meta)
    return Outcome(case, rules.applicable([finding.word for finding in steps.values()]), steps)


def _comparison(job: Job, folder: RunFolder) -> Comparison:
    looks = 1 + job.profile.extend
    found = collect(job, folder, Progress(), lambda round_: undecided(round_, looks))
    return Comparison(
        schema=1,
        tool="self-test",
        id=folder.name,
        started="",
        seconds=0,
        command="",
        profile="quick",
        blocks=job.profile.blocks,
        level=level_of(looks),
        seed=job.seed,
        threads=1,
        upstream_version="v0",
        upstream_tree="0" * 40,
        series_chain="",
        selected=["toy"],
        asked=["toy"],
        pulled_in=[],
        arms=[],
        text=TextInfo(name="toy", sha256=job.text.sha256, bytes=job.text.bytes),
        machine={},
        contended_share=None,
        energy=False,
        rounds=[judge_round(round_, looks) for round_ in found.rounds],
        kernels=[],
        activity=[],
        problems=[ProblemInfo(where=p.where, what=p.what) for p in found.problems],
        raw=str(folder.path),
        exit_code=8 if found.problems else 0,
    )


def toy_meta() -> PatchMeta:
    """The declaration that the fake tools are held to."""
    return PatchMeta.model_validate(
        {
            "schema": 1,
            "id": "toy",
            "title": "Toy",
            "phase": "phase1",
            "authors": ["A <a@localhost>"],
            "date": datetime.date(2026, 1, 2),
            "upstream": {"status": "never", "reason": "a self-test"},
            "effect": {"class": "equivalent"},
            "switch": {"env": SWITCH},
        }
    )


def install_tools(ci: Path, folder: Path, **behaviour: Any) -> Path:
    """A folder of fake tools that do as `behaviour` says (``ci/selftest/fake_tools.py``)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviour.json").write_text(json.dumps(behaviour), encoding="utf-8")
    script = (ci / "selftest" / "fake_tools.py").read_text(encoding="utf-8")
    text = script.replace("#!/usr/bin/env python3", f"#!{sys.executable}", 1)
    for tool in TOOLS:
        (folder / tool).write_text(text, encoding="utf-8")
        (folder / tool).chmod(0o755)
    return folder


def write_toy_model(path: Path) -> Path:
    """A GGUF with a vocabulary of 64 tokens and one tensor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("toy model")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(64)])
    writer.add_tensor("output.weight", np.ones((64, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
