"""waterfall, ablate and bisect on fake builds whose effects are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llamapatch.cli.main import main
from llamapatch.config import load_settings
from llamapatch.errors import NotMeasured, UsageProblem
from llamapatch.judge import effects as module
from llamapatch.judge.effects import Kind, Wanted, effects
from llamapatch.judge.gate_result import EffectsResult
from llamapatch.judge.selftest import install_tools
from llamapatch.measure.arms import Arm
from llamapatch.measure.prepare import Request
from tests.measure.test_cli import project

__all__ = ["project"]

Measure = Callable[..., EffectsResult]


@pytest.fixture
def measure(project: Path) -> Measure:
    """Run one verb on builds in which `toy` makes everything twice as fast and moves ln perplexity by 0.01."""
    ci = Path(__file__).parents[2] / "ci"
    base = install_tools(ci, project / "base", noise=0.002)
    sound = {"patched": True, "handled": 5, "speed_on": 2.0, "shift_on": 0.01, "commit": "def", "noise": 0.002}

    def run(
        kind: Kind, metric: str = "tg16", type_name: str = "", threshold: float = 0.03, **fault: object
    ) -> EffectsResult:
        patched = install_tools(ci, project / "patched", **(sound | fault))
        request = Request(
            selectors=("all",), profile="quick", model=project / "toy.gguf", text=project / "text.txt", threads=1, seed=3,
            bin_base=base, bin_patched=patched,
        )  # fmt: skip
        return effects(load_settings(), kind, request, Wanted(metric, type_name, threshold), lambda _: None, "a test")

    return run


def rows(found: EffectsResult) -> list[tuple[str, str, str, float, str]]:
    return [(e.patch, e.before, e.after, round(e.ratio, 1), e.word) for e in found.effects]


def test_a_waterfall_multiplies_up_to_the_whole(measure: Measure) -> None:
    found = measure("waterfall")
    assert rows(found) == [
        ("(all off)", "unpatched", "all off", 1.0, "same"),
        ("toy", "all off", "+ toy", 2.0, "faster"),
    ]
    assert all(e.blocks == 7 and e.low is not None and e.high is not None for e in found.effects)
    assert (found.unit, found.exit_code, found.found, found.threshold) == ("tokens/s", 0, None, None)
    assert json.loads((Path(found.raw) / "effects.json").read_text()) == found.data()


def test_ablation_takes_each_patch_out_of_the_whole(measure: Measure) -> None:
    assert rows(measure("ablate", "pp64")) == [("toy", "all but toy", "all on", 2.0, "faster")]


@pytest.mark.parametrize("metric", ["CPU time", "peak memory"])
def test_costs(measure: Measure, metric: str) -> None:
    (row,) = measure("ablate", metric).effects
    assert 0.5 < row.ratio < 2 and row.blocks == 7


def test_perplexity_is_paired_by_window(measure: Measure) -> None:
    first, second = measure("waterfall", "perplexity").effects
    assert first.ratio == 1 and first.word == "same"
    assert second.ratio == pytest.approx(1.01005, abs=1e-4) and second.word == "more" and second.blocks == 8


def prefixes(monkeypatch: pytest.MonkeyPatch, project: Path, speeds: list[float]) -> None:
    """Prefix k of the series runs at `speeds` [k - 1] times the base."""
    ci = Path(__file__).parents[2] / "ci"

    def prefix(settings: object, plan: object, count: int, name: str, report: object) -> Arm:
        tools = install_tools(ci, project / f"prefix-{count}", speed=speeds[count - 1], noise=0.002)
        return Arm(name, tools, f"prefix {count}")

    monkeypatch.setattr(module, "_prefix", prefix)


def test_bisection_finds_the_first_patch_that_moves_the_metric(
    measure: Measure, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    prefixes(monkeypatch, project, [1.0, 0.9])
    found = measure("bisect")
    assert (found.found, found.exit_code, found.threshold) == ("toy", 0, 0.03)
    assert [row[:4] for row in rows(found)] == [
        ("toy", "base", "up to toy", 0.9),
        ("foundation", "base", "up to foundation", 1.0),
    ]
    prefixes(monkeypatch, project, [1.2, 1.2])
    assert measure("bisect").found == "foundation"


def test_bisection_says_when_nothing_moved_and_when_it_cannot_know(
    measure: Measure, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    prefixes(monkeypatch, project, [1.0, 1.0])
    found = measure("bisect")
    assert (found.found, found.exit_code, len(found.effects)) == (None, 0, 1)
    prefixes(monkeypatch, project, [1.0, 0.97])  # the interval holds the threshold
    found = measure("bisect")
    assert (found.found, found.exit_code) == (None, 7)


def test_what_cannot_be_measured_is_refused(measure: Measure) -> None:
    with pytest.raises(UsageProblem, match="no metric `tg999`.*Known: pp64, tg16, CPU time, peak memory, perplexity"):
        measure("ablate", "tg999")
    with pytest.raises(UsageProblem, match="no model of type `Q9`"):
        measure("ablate", type_name="Q9")
    with pytest.raises(NotMeasured, match="printed no result"):
        measure("waterfall", fault={"llama-bench": "no rows"})


@pytest.mark.parametrize("verb", ["waterfall", "ablate", "bisect"])
def test_the_verbs(
    verb: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "all", "--metric", "tg16", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["selected"] == ["foundation", "toy"]
    assert main([verb, "all"]) == 2
    assert "--metric" in capsys.readouterr().err
    found = EffectsResult(
        kind=verb, tool="t", id="r", started="2026-01-01", seconds=1, command="c", metric="tg16", unit="tokens/s",
        model="m", upstream_version="v", series_chain="c" * 64, machine={"id": "x"}, effects=[], found=None,
        threshold=None, raw="raw", exit_code=7,
    )  # type: ignore[call-arg, arg-type]  # fmt: skip
    seen: list[object] = []
    monkeypatch.setattr("llamapatch.cli.effects.effects", lambda *words: seen.extend(words) or found)
    assert main([verb, "toy", "--metric", "tg16", "--blocks", "9", "--markdown", "out.md", "--json"]) == 7
    assert json.loads(capsys.readouterr().out) == found.data()
    assert seen[1] == verb and isinstance(seen[2], Request) and seen[2].blocks == 9
    assert f"## llamapatch {verb}: tg16 on v" in Path("out.md").read_text()
