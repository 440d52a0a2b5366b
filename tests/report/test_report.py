"""What people and programs read: tables, Markdown, JSON and its published schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

import llamapatch
from llamapatch.judge.result import Comparison, Ratio
from llamapatch.report.live import Live
from llamapatch.report.markdown import to_markdown
from llamapatch.report.schema import schema_texts
from llamapatch.report.tables import all_tables, figures, headlines, spoken, subject, verdict_words
from llamapatch.report.terminal import print_comparison
from tests.report.conftest import comparison, ratio

SCHEMA = Path(llamapatch.__file__).parents[1] / "docs" / "schemas" / "compare.json"


def test_the_published_schema_is_current_and_the_output_fits_it(result: Comparison) -> None:
    for name, text in schema_texts().items():
        assert (SCHEMA.parent / name).read_text() == text, "run: python -m llamapatch.report.schema docs/schemas"
    schema = json.loads(SCHEMA.read_text())
    data = result.data()
    assert set(data) == set(schema["properties"]) and data["schema"] == 1
    assert Comparison.model_validate(json.loads(json.dumps(data, allow_nan=False))) == result
    with pytest.raises(ValidationError):
        Comparison.model_validate(data | {"surprise": 1})
    data["rounds"][0]["speed"][0]["ratio"] = float("nan")
    with pytest.raises(ValidationError):
        Comparison.model_validate(data)


def test_the_output_fits_the_schema_for_other_validators(result: Comparison) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(result.data(), json.loads(SCHEMA.read_text()))


def test_a_speed_is_a_ratio_with_its_interval_and_blocks() -> None:
    def say(value: float, **more: float | None) -> str:
        return spoken(Ratio.model_validate(ratio("pp512", "on", value, **more)))

    assert say(1.02, low=0.98, high=1.06) == "1.020x [0.980, 1.060], n=7"
    assert say(5.2) == "5.20x [4.99, 5.41], n=7"
    assert say(30.0, low=None, high=None) == "30.0x, n=7"


def test_verdicts_in_words() -> None:
    def words(word: str) -> str:
        shown = Ratio.model_validate(ratio("pp512", "on", 1.0, word=word, blocks_needed=40))
        return verdict_words(shown)

    assert words("no verdict") == "fewer than 7 blocks: no verdict"
    assert words("inconclusive") == "inconclusive: about 40 blocks needed"
    assert words("same") == "same within 2 %" and words("faster") == "faster" and words("info") == ""


def test_headlines(result: Comparison) -> None:
    assert headlines(result) == [
        "toy Q2_0, patched, switches on: pp512 5.20x [4.99, 5.41], n=7 (faster).",
        "toy Q2_0, patched, switches on: perplexity 9.3500, KL divergence 0.000500, same top token 99.50 %.",
        "toy Q2_0, patched, switches off: logits bit-identical to upstream (-ub 512 and -ub 1).",
        "toy, own kernel benchmark: 3.00x [2.88, 3.12], n=7 over 1 cases (faster).",
    ]


def test_one_difference_is_a_difference(result: Comparison) -> None:
    data = result.data()
    data["rounds"][0]["logits"][1]["verdict"] = "different"
    assert any("NOT identical" in line for line in headlines(Comparison.model_validate(data)))


def test_a_model_that_reaches_no_patch_is_named(result: Comparison) -> None:
    data = result.data()
    data["activity"][0]["where"] = "elsewhere"
    assert headlines(Comparison.model_validate(data))[0].startswith("toy Q2_0: no patch was reached here")


def test_tables_and_terminal(result: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    titles = [table.title for table in all_tables(result)]
    assert len(titles) == 6 and titles[0] == "Speed (toy, Q2_0)"
    print_comparison(result, Console(highlight=False))
    shown = capsys.readouterr().out
    for text in ("5.20x [4.99, 5.41], n=7", "not measurable here", "1,234,567", "shape: 2", "raw data: runs/run-1"):
        assert text in shown
    assert "-0.000000" not in shown
    assert any(
        "1.000x [0.960, 1.040], n=7" in line and "5.20x [4.99, 5.41], n=7" in line for line in shown.splitlines()
    )
    assert "contention: 50 %" in shown


def test_problems_are_shown_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    found = comparison(
        problems=[{"where": "speed", "what": "no rows"}], exit_code=8, rounds=[], kernels=[], activity=[]
    )
    print_comparison(found, Console(highlight=False))
    assert "not measured: speed: no rows" in capsys.readouterr().out
    assert "**Not measured**" in to_markdown(found) and "speed: no rows" in to_markdown(found)


def test_markdown(result: Comparison) -> None:
    text = to_markdown(result)
    assert text.endswith("</details>\n") and "held-out \\| files" in text
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.replace("\\|", "").count("|") for row in rows}) <= 1, block


def test_a_patch_that_stayed_switched_off_is_not_in_question() -> None:
    assert subject(comparison(asked=["foundation", "other", "toy"])) == ["toy"]
    assert subject(comparison(asked=["toy-two", "toy"])) == ["toy"]
    assert subject(comparison(asked=["foundation"])) == ["foundation"]


def test_figures_carry_where_they_come_from(result: Comparison) -> None:
    frame = figures(result)
    assert len(frame) == 6
    on = frame[(frame["metric"] == "pp512") & (frame["arm"] == "on")].iloc[0]
    assert on["build"] == "v0.5.0+lp.b" and on["base_build"] == "v0.5.0" and on["measured_on"] == "1" * 64
    assert on["machine"] == "m1" and on["text"] == "3" * 64 and on["ratio"] == 5.2


def test_progress_in_a_log_is_sparse(capsys: pytest.CaptureFixture[str]) -> None:
    with Live(Console(stderr=True)) as live:
        for i in range(100):
            live.report(f"step {i} [ 10 %]")
    assert capsys.readouterr().err.splitlines() == ["step 0 [ 10 %]"]
