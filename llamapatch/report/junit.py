"""A gate as JUnit XML, the form that CI systems read: a suite for each job, a test case for each step.

JUnit knows three ways of not passing, and each is used for one thing (docs/decisions/junit.md): ``failure`` for what
was measured and does not hold; ``error`` for what could not be decided, with the type ``not measured`` or
``inconclusive``; ``skipped`` for a step that does not apply to the patch.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from llamapatch.judge.gate_result import GatedPatch, GateResult, Step
from llamapatch.report.gate import WHERE
from llamapatch.report.marks import printable

_ELEMENT = {"fail": "failure", "not measured": "error", "inconclusive": "error", "not applicable": "skipped"}


def gate_junit(result: GateResult) -> str:
    """The whole gate as an XML document."""
    root = Element("testsuites", name="llamapatch gate")
    for job in result.jobs:
        root.append(_suite(job, result))
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("time", f"{sum(step.seconds for job in result.jobs for step in job.steps):.3f}")
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _suite(job: GatedPatch, result: GateResult) -> Element:
    # A job that never ran must not look like one without tests: it is one error.
    steps = job.steps or [
        Step(name="gate", word="not measured", said="the job was never run.", seconds=0, commands=[], evidence=[])
    ]
    kinds = [_ELEMENT.get(step.word) for step in steps]
    suite = Element(
        "testsuite",
        name=printable(f"{job.patch} ({WHERE[job.where]}, {job.backend}, {job.scenario})"),
        tests=str(len(steps)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
        time=f"{sum(step.seconds for step in steps):.3f}",
        # The schema wants a local time without a zone.
        timestamp=(job.measured_at or result.started)[:19],
        hostname=printable(str(job.machine.get("id", "unknown"))),
    )
    facts = {
        "job": job.job,
        "class": job.effect,
        "cached": str(job.cached).lower(),
        "upstream": result.upstream_version,
        "series": result.series_chain,
        **{f"declared {name}": f"{value:g}" for name, value in job.budgets.items()},
    }
    properties = SubElement(suite, "properties")
    for name, value in facts.items():
        SubElement(properties, "property", name=printable(name), value=printable(value))
    for step in steps:
        case = SubElement(
            suite,
            "testcase",
            classname=f"llamapatch.{job.patch}.{job.where}",
            name=step.name,
            time=f"{step.seconds:.3f}",
        )
        kind = _ELEMENT.get(step.word)
        if kind == "skipped":
            SubElement(case, kind, message=printable(step.said))
        elif kind is not None:
            loud = "" if step.word == "fail" else f"{step.word.upper()}: "
            found = SubElement(case, kind, type=step.word, message=printable(loud + step.said))
            found.text = printable("\n".join([step.said, *step.commands, *step.evidence]))
        else:
            SubElement(case, "system-out").text = printable("\n".join([step.said, *step.commands, *step.evidence]))
    return suite
