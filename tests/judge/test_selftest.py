"""The gate's self-test is itself right: every case ends as it must, and a gate that cannot fail would be seen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from llamapatch.cli.main import main
from llamapatch.config import load_settings
from llamapatch.judge.selftest import CASES, self_test


def test_the_gate_judges_known_faults_rightly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "--self-test", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["right"] and [case["case"] for case in data["cases"]] == [case.name for case in CASES]
    words = {case["case"]: case["word"] for case in data["cases"]}
    assert words["5 % slower when on"] == "fail" and words["unchanged against itself"] == "pass"


def test_a_gate_that_judges_wrongly_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = replace(CASES[3], expected="pass")
    (outcome,) = self_test(load_settings(), lambda _: None, (wrong,))
    assert not outcome.right and outcome.word == "fail"
    monkeypatch.setattr("llamapatch.cli.gate.self_test", lambda *_: [outcome])
    assert main(["gate", "--self-test"]) == 6
    said = capsys.readouterr().out
    assert "WRONG  5 % slower when on" in said and "speed: fail, slower by more than 2%" in said
