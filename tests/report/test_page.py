"""The HTML page: what it holds, that it stands alone, and the verb that writes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from llamapatch.errors import ExitCode, UsageProblem
from llamapatch.report.history import rows_of_comparison
from llamapatch.report.load import Results, load
from llamapatch.report.page import render_page
from llamapatch.report.plots import Axis, axis_over, interval_on
from tests.project import Project
from tests.report import samples
from tests.report.conftest import comparison, page_of


class Shape(HTMLParser):
    """Collects what the tests ask about; complains about tags that do not close."""

    VOID = frozenset({"meta", "link", "br", "col", "line", "rect", "circle", "path"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def test_the_page_stands_alone_and_is_well_formed() -> None:
    page = page_of(comparison(), samples.everything(), samples.effects(), samples.effects("ablate"))
    tags = Shape(page).tags
    for _, attributes in tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("#", "data:,")), f"{name}={value}"
        assert "style" not in attributes and not any(name.startswith("on") for name in attributes)
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids)), "an id is used twice"
    links = {(attributes.get("href") or "")[1:] for tag, attributes in tags if tag == "a"}
    assert links <= set(ids), "a link leads nowhere"


def test_every_drawing_and_table_is_described() -> None:
    page = page_of(comparison(), samples.everything(), samples.effects())
    tags = Shape(page).tags
    ids = {attributes.get("id") for _, attributes in tags}
    for tag, attributes in tags:
        if tag == "svg" and attributes.get("role") == "img":
            assert set((attributes["aria-labelledby"] or "").split()) <= ids
        if tag == "th":
            assert attributes.get("scope") in ("col", "row", "rowgroup")
    assert len(re.findall(r"<table[ >]", page)) == len(re.findall("<caption>", page)) > 8


def test_the_page_says_what_was_found() -> None:
    page = re.sub(r"\s+", " ", page_of(comparison(), samples.everything(), samples.effects()))
    for said in (
        "Gate fail: 1 failed, 2 not measured, 1 inconclusive, 1 passed",
        "5.20x (4.99 to 5.41)",
        "pp512, patched, switches on: 5.20x the unpatched build, interval 4.99 to 5.41",
        "tg128 of toy Q2_0 (tokens/s, more is better): 1.50x after 3 patches.",
        "KL divergence 0.000500",
        "logits bit-identical",
        "not measurable here",
        "KL divergence 2e-2 | &lt;0.001 budgeted&gt;.",
        "<code>quality.log</code>",
        "llamapatch compare toy",
        "runs/run-1",
        "avx2",
        "16.0 GiB",
        "What good does",
        "max_kld 0.001",
    ):
        assert said in page, said


def test_nothing_that_was_measured_becomes_markup() -> None:
    evil = "<script>alert(1)</script>"
    page = page_of(
        comparison(command=evil, problems=[{"where": evil, "what": evil}], exit_code=8, asked=[evil]),
        samples.gate([samples.job("bad", "fail", [samples.step("lint", "fail", evil)], title=evil)]),
    )
    assert evil not in page and page.count("<script>") == 1 and "&lt;script&gt;" in page


def test_a_comparison_that_measured_nothing_still_makes_a_page() -> None:
    page = page_of(
        comparison(rounds=[], kernels=[], activity=[], problems=[{"where": "speed", "what": "no rows"}], exit_code=8)
    )
    Shape(page)
    assert "no rows" in page and "No A/A arm was measured." in page and "Not measured." in page


def test_without_effects_the_patches_are_shown_by_themselves() -> None:
    assert "Each patch by itself, against the unpatched build" in page_of(comparison())
    assert "Each patch by itself" not in page_of(comparison(), samples.effects())
    assert "Effect of each patch" not in page_of(comparison(asked=["a", "b"]))


def test_the_history_is_that_of_the_patches_on_the_page() -> None:
    rows = [replace(row, run=run) for run in ("r1", "r2") for row in rows_of_comparison(comparison())]
    page = page_of(comparison(), history=rows)
    assert "toy: pp512, toy Q2_0 over runs" in page and "2 runs from 2026-11-23" in page
    others = [replace(row, patch="other") for row in rows]
    assert "No history yet" in page_of(comparison(), history=others)
    assert "One run of each figure so far" in page_of(comparison(), history=rows[: len(rows) // 2])


def test_an_axis_holds_what_matters() -> None:
    axis = axis_over([(1.0, 0.99, 1.01), (10.0, 0.001, 1e6)])
    assert axis.low > 0.25 and 10 < axis.high < 40
    placed = interval_on(axis, 10.0, 0.001, 1e6)
    assert placed.cut_low and placed.cut_high and placed.low == axis.at(axis.low) and placed.high == axis.at(axis.high)
    assert not interval_on(axis, 1.0, 0.99, 1.01).cut_low
    for low, high in ((0.97, 1.03), (0.9, 1.1), (0.5, 2.0), (0.9, 30.0), (0.01, 1000.0)):
        ticks = Axis(low, high).ticks()
        assert 3 <= len(ticks) <= 9 and any(text == "1×" for _, text in ticks)
        places = [x for x, _ in ticks]
        assert all(right - left >= 12 for left, right in pairwise(places))
    assert Axis(0.5, 2.0).at(1.0) == 50.0


def test_results_are_found_by_what_they_are(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    here = project.settings()
    with pytest.raises(UsageProblem, match="nothing has been measured below"):
        load(here, [])
    runs, gates = project.state / "runs", project.state / "gates"
    old, new = comparison(id="old"), comparison(id="new")
    for file, data in (
        (runs / "old/comparison.json", old.data()),
        (runs / "new/comparison.json", new.data()),
        (runs / "w/effects.json", samples.effects().data()),
        (gates / "x/result.json", {"schema": 1, "gate": samples.OPEN, "comparison": comparison(id="gated").data()}),
    ):
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(data))
    found = load(here, [])
    assert set(found.comparisons) == {"new", "gated"} and [job.patch for job in found.jobs.values()] == ["open"]
    assert set(found.effects) == {"waterfall-1"}
    assert set(load(here, ["old", str(runs / "w")]).comparisons) == {"old"}
    (runs / "empty").mkdir()
    bad = project.root / "bad.json"
    for word, text, said in (
        ("nowhere", "", "nowhere is neither a file, nor a folder, nor a run below"),
        ("empty", "", "holds no result: the run was interrupted"),
        (str(bad), "{", "is no JSON"),
        (str(bad), "{}", "holds no comparison, gate or effects"),
        (str(bad), json.dumps(old.data() | {"extra": 1}), "does not fit the schema of its kind at `extra`"),
    ):
        bad.write_text(text)
        with pytest.raises(UsageProblem, match=re.escape(said)):
            load(here, [word])


def test_the_verb(project: Project) -> None:
    run = project.state / "runs" / "run-1"
    run.mkdir(parents=True)
    (run / "comparison.json").write_text(json.dumps(comparison().data()))
    page = project.root / "report.html"
    assert project.run("report", "--dry-run").out.startswith("would write report.html (") and not page.exists()
    done = project.run("report")
    size = page.stat().st_size
    assert (done.code, done.out) == (0, f"wrote report.html ({size:,} bytes): 1 comparison\n")
    assert json.loads(project.run("report", "run-1", "--json").out) == {
        "schema": 1, "file": "report.html", "bytes": size, "comparisons": ["run-1"], "jobs": [], "effects": [],
        "dry_run": False,
    }  # fmt: skip
    page.write_text("my notes")
    done = project.run("report")
    assert done.code == ExitCode.USAGE and "report.html exists and is no report of llamapatch." in done.err
    assert page.read_text() == "my notes"
    assert project.run("report", "--force").code == 0 and page.stat().st_size == size
    assert "there is no folder" in project.run("report", "-o", "no/where.html").err


def test_a_project_may_have_a_page_of_its_own(tmp_path: Path) -> None:
    results = Results()
    results.add(comparison())
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page.html.j2").write_text("{{ now }}: {{ comparisons[0].title }}")
    assert render_page(results, metas={}, history=[], templates=tmp_path, now="today") == "today: toy\n"
