"""The drivers against upstream's real tools: set LLAMAPATCH_BIN to the bin folder of an unpatched build."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamapatch.judge.comparison import judge_round
from llamapatch.measure.arms import AGAIN, BASE, OFF, make_arms
from llamapatch.measure.inputs import given_model, given_text, quantised_model
from llamapatch.measure.progress import Progress
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.scenario import Profile, Scenario
from llamapatch.measure.session import Job, RoundPlan, collect
from llamapatch.models.reference import reference_model

# Read at import: each test runs in an environment without LLAMAPATCH_*.
TOOLS = os.environ.get("LLAMAPATCH_BIN", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TOOLS, reason="LLAMAPATCH_BIN names no build"),
]


@pytest.mark.parametrize("type_name", ["F16", "Q2_0"])
def test_a_build_compared_with_itself_is_identical(tmp_path: Path, type_name: str) -> None:
    """The gate's first self-test: base against base, through the whole path but for the builds."""
    tools = Path(TOOLS)
    folder = RunFolder.create(tmp_path / "runs")
    arms = make_arms(tools, "v0", tools, "v0", {})
    model = quantised_model(folder, arms[0], given_model(reference_model()), type_name, tmp_path / "models")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(path.read_text() for path in sorted(Path(__file__).parents[2].glob("llamapatch/*/*.py"))))
    scenarios = {
        "plain": Scenario(title="plain", prompt=64, generate=8),
        "deep": Scenario(title="deep", generate=4, depth=64, cache="q8_0"),
        "batched": Scenario(title="batched", prompt=32, generate=4, sequences=(1, 4)),
    }
    profile = Profile(title="real", blocks=1, windows=2, prompt_bytes=300, scenarios=list(scenarios))
    job = Job(
        arms=arms,
        rounds=(RoundPlan(model, (), scenarios),),
        kernels=(),
        text=given_text(text),
        profile=profile,
        threads=1,
        seed=1,
        switched=(),
        logits_cache=tmp_path / "logits",
    )
    found = collect(job, folder, Progress())
    # The only complaint may be that this "patched" build has no counters.
    assert all("wrote no statistics" in problem.what for problem in found.problems), found.problems
    result = judge_round(found.rounds[0])
    arms = [logits for logits in result.logits if logits.arm != BASE]
    assert {logits.verdict for logits in arms} == {"identical"} and len(arms) == 4
    # Upstream's own two paths differ, which is what an equivalent patch is held against.
    (own,) = (logits for logits in result.logits if logits.arm == BASE)
    assert own.ubatch == 1 and own.verdict == "different" and 0 < (own.nmse or 0) < 1e-2
    quality = {entry.arm: entry for entry in result.quality}
    assert quality[OFF].perplexity == quality[AGAIN].perplexity > 1
    assert abs(quality[OFF].mean_kld) < 1e-5 and quality[OFF].windows == 2
    assert {ratio.metric for ratio in result.speed} == {
        "pp64",
        "tg8",
        "tg4 @64 q8_0",
        "pp32 x1",
        "tg4 x1",
        "pp32 x4",
        "tg4 x4",
    }
    assert {word for memory in result.memory for word in memory.buffers} >= {"model", "KV", "compute"}
