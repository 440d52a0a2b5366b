"""A gate's result in the terminal, as Markdown and as JUnit XML."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from rich.console import Console

import llamapatch
from llamapatch.report.gate import gate_markdown, print_gate, verdict
from llamapatch.report.junit import gate_junit
from tests.report import samples

SCHEMAS = Path(llamapatch.__file__).parents[1] / "docs" / "schemas"


def test_results_fit_their_published_schemas() -> None:
    for name, result in (("gate", samples.everything()), ("effects", samples.effects())):
        schema = json.loads((SCHEMAS / f"{name}.json").read_text())
        data = result.data()
        jsonschema.validate(data, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data | {"surprise": 1}, schema)


def test_the_verdict_of_jobs() -> None:
    assert verdict(samples.everything().jobs) == "fail: 1 failed, 2 not measured, 1 inconclusive, 1 passed"
    assert verdict(samples.gate([samples.GOOD]).jobs) == "pass: 1 passed"
    assert verdict([]) == "nothing was asked"


def test_markdown_says_the_verdict_first() -> None:
    text = gate_markdown(samples.gate([samples.GOOD, samples.BAD]))
    assert text.startswith(
        """\
## ✗ llamapatch gate: fail: 1 failed, 1 passed

llama.cpp v0.5.0, series `cccccccccccc`, profile quick, a processor.

| | patch | where | class | because |
| --- | --- | --- | --- | --- |
| ✓ pass (stored) | `good` | on top of what it requires | lossy | speed: pp128 2.10x, at least 2.00x; 1.8x claimed. |
| ✗ fail | `bad` | on top of what it requires | lossy | quality: KL divergence 2e-2 \\| &lt;0.001 budgeted>. |

<details><summary>✓ good on top of what it requires: every step</summary>
"""
    )
    assert (
        """\
| step | | what was found | seconds |
| --- | --- | --- | ---: |
| lint | ✓ pass | no remarks. | 1.2 |
| compile-cuda | ○ not applicable | no CUDA file is touched. | 1.2 |
| quality | ✗ fail | KL divergence 2e-2 \\| &lt;0.001 budgeted>. | 1.2 |

```sh
llamapatch compile-cuda
llamapatch quality
```

</details>
"""
        in text
    )
    assert text.endswith("- command: `llamapatch gate`\n\n</details>\n")
    assert text.count("<details>") == text.count("</details>") == 3


def test_markdown_fits_a_comment() -> None:
    many = [samples.job(f"p{i}", "pass", [samples.step("lint", "pass", "x" * 2000)]) for i in range(40)]
    text = gate_markdown(samples.gate([*many, samples.BAD]))
    assert 12_000 < len(text) <= 60_000
    assert "✗ bad on top of what it requires: every step" in text and "p0 on top of what it requires: every" not in text
    assert "The steps of 40 jobs are left out" in text
    assert len(gate_markdown(samples.gate([*many, samples.BAD]), limit=500)) <= 500


def test_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_gate(samples.everything(), Console(highlight=False))
    assert (
        capsys.readouterr().out
        == """\
✓ good, on top of what it requires, cpu, quick: pass (stored result of 2026-11-25T10:00:00+00:00)
  ✓ lint           no remarks.
  ✓ speed          pp128 2.10x, at least 2.00x; 1.8x claimed.
✗ bad, on top of what it requires, cpu, quick: fail
  ✓ lint           no remarks.
  ○ compile-cuda   not applicable: no CUDA file is touched.
  ✗ quality        KL divergence 2e-2 | <0.001 budgeted>.
      again: llamapatch quality
      evidence: quality.log
? open, in the whole series, cpu, quick: inconclusive
  ✓ lint           no remarks.
  ? speed          inconclusive: about 40 blocks needed.
      again: llamapatch speed
      evidence: speed.log
! deaf, on top of what it requires, cpu, quick: not measured
  ✓ lint           no remarks.
  ! speed          not measured: zero rows�[0m.
      again: llamapatch speed
      evidence: speed.log
! never, on top of what it requires, cpu, quick: not measured
  it was never run.
evidence: .llamapatch/gates
✗ gate fail: 1 failed, 2 not measured, 1 inconclusive, 1 passed
"""
    )


def test_junit_is_read_by_another_parser() -> None:
    found = JUnitXml.fromstring(gate_junit(samples.everything()).encode())
    assert (found.tests, found.failures, found.errors, found.skipped) == (10, 1, 3, 1)
    suites = {suite.name.split()[0]: suite for suite in found}
    assert list(suites) == ["good", "bad", "open", "deaf", "never"]
    cases = {name: {case.name: case for case in suite} for name, suite in suites.items()}

    def outcome(patch: str, step: str) -> list[tuple[type, str, str]]:
        return [(type(r), r.type or "", r.message) for r in cases[patch][step].result]

    assert outcome("good", "speed") == []
    assert outcome("bad", "quality") == [(Failure, "fail", "KL divergence 2e-2 | <0.001 budgeted>.")]
    assert outcome("bad", "compile-cuda") == [(Skipped, "", "no CUDA file is touched.")]
    assert outcome("open", "speed") == [(Error, "inconclusive", "INCONCLUSIVE: about 40 blocks needed.")]
    assert outcome("deaf", "speed") == [(Error, "not measured", "NOT MEASURED: zero rows\N{REPLACEMENT CHARACTER}[0m.")]
    assert outcome("never", "gate") == [(Error, "not measured", "NOT MEASURED: the job was never run.")]
    assert cases["bad"]["quality"].classname == "llamapatch.bad.closure" and cases["bad"]["quality"].time == 1.25


def test_junit_has_the_common_shape() -> None:
    """The elements and attributes that CI systems agree on (the union of the Ant and Jenkins schemas), counted right."""
    allowed = {
        "testsuites": ({"name", "tests", "failures", "errors", "skipped", "time"}, {"testsuite"}),
        "testsuite": (
            {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"},
            {"properties", "testcase"},
        ),
        "properties": (set(), {"property"}),
        "property": ({"name", "value"}, set()),
        "testcase": ({"classname", "name", "time"}, {"failure", "error", "skipped", "system-out"}),
        "failure": ({"type", "message"}, set()),
        "error": ({"type", "message"}, set()),
        "skipped": ({"message"}, set()),
        "system-out": (set(), set()),
    }
    root = ElementTree.fromstring(gate_junit(samples.everything()).encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = allowed[element.tag]
        assert set(element.keys()) <= attributes, element.tag
        assert {child.tag for child in element} <= children, element.tag
    for whole in (root, *root):
        assert int(whole.get("tests", "")) == len(list(whole.iter("testcase")))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(whole.get(attribute, "")) == len(list(whole.iter(tag)))
        assert float(whole.get("time", "")) == pytest.approx(
            sum(float(c.get("time", "")) for c in whole.iter("testcase"))
        )
    assert all(len(suite.get("timestamp", "")) == 19 for suite in root)
