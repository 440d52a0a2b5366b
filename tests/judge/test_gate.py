"""The gate's plan, its stored results, and the verdict over what came back from other machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamapatch.cli.main import main
from llamapatch.config import load_settings
from llamapatch.judge import gate as module
from llamapatch.judge.gate import GateOptions, line_of, read_result, run_job
from llamapatch.judge.gate_result import GatedPatch, Step, StepWord
from llamapatch.judge.jobs import GateJob, plan_jobs
from llamapatch.judge.ladder import Done
from llamapatch.series.load import load_series
from tests.measure.test_cli import project

__all__ = ["project"]


def jobs(*selectors: str, profile: str = "quick") -> list[GateJob]:
    settings = load_settings()
    return plan_jobs(settings, load_series(settings), selectors, profile=profile, backend="cpu")


def gated(job: GateJob, word: StepWord = "pass", at: str = "2026-11-25T10:00:00+00:00") -> GatedPatch:
    step = Step(name="speed", word=word, said="said.", seconds=1, commands=["c"], evidence=[])
    return module._missing(job).model_copy(update={"word": word, "steps": [step], "measured_at": at})


class FakeLadder:
    """Climbs in no time and counts."""

    climbed: list[str] = []  # noqa: RUF012
    word: StepWord = "pass"

    def __init__(self, settings: object, series: object, job: GateJob, folder: Path, report: object) -> None:
        self.job, self.folder = job, folder

    def climb(self) -> Done:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.climbed.append(self.job.patch)
        return Done(gated(self.job, self.word), None)


@pytest.fixture
def ladder(monkeypatch: pytest.MonkeyPatch) -> type[FakeLadder]:
    FakeLadder.climbed, FakeLadder.word = [], "pass"
    monkeypatch.setattr(module, "Ladder", FakeLadder)
    return FakeLadder


def test_a_patch_is_gated_on_its_closure_and_in_the_series(project: Path) -> None:
    found = [(job.patch, job.where, job.applied, job.on) for job in jobs()]
    both = ("foundation", "toy")
    assert found == [
        ("foundation", "closure", ("foundation",), ("foundation",)),
        ("foundation", "series", both, ("foundation",)),
        ("toy", "closure", both, both),  # the closure is the whole series: one job
    ]
    assert [job.patch for job in jobs("toy")] == ["toy"]


def test_the_hash_covers_what_decides_the_result_and_nothing_else(project: Path) -> None:
    before = {(job.patch, job.where): job.hash for job in jobs()}
    readme = project / "patches/phase1/toy/README.md"
    readme.write_text("# other words\n")
    (project / "ggml_kernels/toy/README.md").write_text("# other words\n")
    assert {(job.patch, job.where): job.hash for job in jobs()} == before
    (project / "ggml_kernels/toy/test-toy.cpp").write_text("// a new test\n")
    after = {(job.patch, job.where): job.hash for job in jobs()}
    assert {key for key in before if before[key] != after[key]} == {("toy", "closure")}
    (project / "ggml_kernels/foundation/foundation.h").write_text("#pragma once\n// changed\n")
    last = {(job.patch, job.where): job.hash for job in jobs()}
    assert {key for key in before if last[key] != after[key]} == set(before)
    assert jobs("toy", profile="full")[0].hash != jobs("toy")[0].hash


def test_a_stored_result_counts_for_its_own_bytes_only(project: Path, ladder: type[FakeLadder]) -> None:
    settings, options = load_settings(), GateOptions(results=project / "ci/results", write=True)

    def run() -> Done:
        return run_job(settings, load_series(settings), jobs("toy")[0], options, lambda _: None)

    first, again = run(), run()
    assert (first.gated.cached, again.gated.cached, ladder.climbed) == (False, True, ["toy"])
    committed = project / "ci/results/toy.closure.cpu.quick.json"
    stored = read_result(committed)
    assert stored is not None and stored.gated == first.gated
    # Without its own store, as in a fresh clone, the committed result serves.
    for path in (project / ".llamapatch/gates").rglob("result.json"):
        path.unlink()
    assert run().gated.cached and ladder.climbed == ["toy"]
    (project / "ggml_kernels/toy/toy.h").write_text("#pragma once\n// changed\n")
    assert not run().gated.cached and ladder.climbed == ["toy", "toy"]
    committed.write_text("{")
    assert read_result(committed) is None


def test_what_failed_is_not_committed(project: Path, ladder: type[FakeLadder]) -> None:
    ladder.word = "fail"
    settings, options = load_settings(), GateOptions(results=project / "ci/results", write=True)
    run_job(settings, load_series(settings), jobs("toy")[0], options, lambda _: None)
    assert not (project / "ci/results").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("pass", "pass", "pass"), 0),
        (("pass", "inconclusive", "pass"), 7),
        (("inconclusive", "not measured", "pass"), 8),
        (("inconclusive", "not measured", "fail"), 6),
    ],
)
def test_results_of_other_machines_are_judged_together(
    project: Path, capsys: pytest.CaptureFixture[str], words: tuple[StepWord, ...], code: int
) -> None:
    place = project / "collected"
    place.mkdir()
    for number, (job, word) in enumerate(zip(jobs(), words, strict=True)):
        (place / f"{number}.jsonl").write_text(line_of(Done(gated(job, word), None)))
    assert main(["gate", "--collect", str(place), "--json", "--junit", "j.xml", "--markdown", "m.md"]) == code
    data = json.loads(capsys.readouterr().out)
    assert [job["word"] for job in data["jobs"]] == list(words) and data["exit_code"] == code
    assert "<testsuite" in Path("j.xml").read_text() and "toy" in Path("m.md").read_text()


def test_what_did_not_come_back_was_not_measured(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = project / "collected"
    place.mkdir()
    (first, *_) = jobs()
    # Lines may be appended to one file; the newest of one job counts.
    lines = [gated(first, "fail", "2026-11-25T09:00:00+00:00"), gated(first, "pass", "2026-11-25T11:00:00+00:00")]
    (place / "all.jsonl").write_text("".join(line_of(Done(line, None)) for line in lines))
    assert main(["gate", "--collect", str(place), "--json"]) == 8
    assert [job["word"] for job in json.loads(capsys.readouterr().out)["jobs"]] == [
        "pass",
        "not measured",
        "not measured",
    ]


def test_results_of_other_bytes_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = project / "collected"
    place.mkdir()
    (place / "a.jsonl").write_text(line_of(Done(gated(jobs("toy", profile="full")[0]), None)))
    assert main(["gate", "--collect", str(place)]) == 2
    assert "is not in this plan. It was measured on other bytes" in capsys.readouterr().err
    (place / "a.jsonl").write_text("{}\n")
    assert main(["gate", "--collect", str(place)]) == 2
    assert "a.jsonl, line 1 is no result of a gate job" in capsys.readouterr().err
    assert main(["gate", "--collect", str(project / "nowhere")]) == 2


def test_plan_and_job(project: Path, ladder: type[FakeLadder], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "toy", "--plan", "--json"]) == 0
    (planned,) = json.loads(capsys.readouterr().out)["jobs"]
    assert main(["gate", "toy", "--job", planned["job"][:12], "-o", "out"]) == 0
    capsys.readouterr()
    line = Path("out", f"{planned['job']}.jsonl").read_text()
    assert GatedPatch.model_validate_json(line).patch == "toy" and ladder.climbed == ["toy"]
    for bad in ("abc", "0" * 12):
        assert main(["gate", "toy", "--job", bad]) == 2
        assert f"no job is named `{bad}`" in capsys.readouterr().err
    assert main(["gate", "--plan", "--self-test"]) == 2
    assert "exclude each other" in capsys.readouterr().err
