"""``llamapatch graph``: what is declared, what the patches show, in four forms."""

from __future__ import annotations

import json

import pytest

from tests.project import Project


@pytest.fixture
def woven(project: Project) -> Project:
    """Needs of every kind: declared and shown, undeclared (lines and include), declared but not shown, implied."""
    project.patch("root", "phase0", overlay={"lp/base.h": "#pragma once\n"})
    project.patch("first", replace={"src/sampling.cpp": ("// line 10\n", "// line 10\nfirst();\n")}, requires=("root",))
    project.patch(
        "second",
        replace={"src/sampling.cpp": ("first();\n", "first();\nsecond();\n")},
        edit={"src/uses.cpp": '#include "base.h"\n'},
    )
    project.patch(
        "third",
        "phase2",
        replace={"src/sampling.cpp": ("second();\n", "second(3);\n"), "README.md": ("# llama.cpp", "# ours")},
        requires=("second", "first"),
    )
    project.patch("alone", "phase2", replace={"src/sampling.cpp": ("// line 30\n", "// thirty\n")}, requires=("first",))
    assert project.run("lock").code == 0
    return project


def test_text(woven: Project) -> None:
    result = woven.run("graph")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "root\n"
        "first\n"
        "  needs root  (declared only)  nothing in the text shows it\n"
        "second\n"
        "  needs root  (include: src/uses.cpp includes lp/base.h)  UNDECLARED\n"
        "  needs first  (lines: src/sampling.cpp)  UNDECLARED\n"
        "third\n"
        "  needs first  (declared only)  nothing in the text shows it\n"
        "  needs second  (lines: src/sampling.cpp)\n"
        "alone\n"
        "  needs first  (declared only)  nothing in the text shows it\n"
    )


def test_dot(woven: Project) -> None:
    assert woven.run("graph", "--dot").out == (
        "digraph series {\n"
        "    rankdir = BT;\n"
        '    node [shape = box, fontname = "sans-serif"];\n'
        '    subgraph cluster_0 { label = "phase0"; "root"; }\n'
        '    subgraph cluster_1 { label = "phase1"; "first"; "second"; }\n'
        '    subgraph cluster_2 { label = "phase2"; "third"; "alone"; }\n'
        '    "first" -> "root" [style = dashed];\n'
        '    "second" -> "root" [color = red, label = undeclared];\n'
        '    "second" -> "first" [color = red, label = undeclared];\n'
        '    "third" -> "first" [style = dashed];\n'
        '    "third" -> "second";\n'
        '    "alone" -> "first" [style = dashed];\n'
        "}\n"
    )


def test_mermaid(woven: Project) -> None:
    assert woven.run("graph", "--mermaid").out == (
        "graph BT\n"
        "    subgraph phase0\n        root[root]\n    end\n"
        "    subgraph phase1\n        first[first]\n        second[second]\n    end\n"
        "    subgraph phase2\n        third[third]\n        alone[alone]\n    end\n"
        "    first -.-> root\n"
        "    second -->|undeclared| root\n"
        "    second -->|undeclared| first\n"
        "    third -.-> first\n"
        "    third --> second\n"
        "    alone -.-> first\n"
    )


def test_json(woven: Project) -> None:
    found = json.loads(woven.run("graph", "--json").out)
    assert found["patches"][0] == {"id": "root", "phase": "phase0"}
    assert found["edges"][1] == {
        "patch": "second",
        "needs": "root",
        "shown": ["include"],
        "why": "src/uses.cpp includes lp/base.h",
        "declared": False,
        "verdict": "undeclared",
    }


def test_a_need_behind_another_is_not_repeated(project: Project) -> None:
    """Three patches on one line, and a file that one adds, one edits, one deletes."""
    project.patch("a", replace={"src/common.h": ("#pragma once\n", "#pragma once // a\n")}, edit={"src/x.cpp": "1\n"})
    project.patch("b", replace={"src/common.h": ("// a\n", "// a b\n")}, edit={"src/x.cpp": "2\n"})
    project.patch("c", replace={"src/common.h": ("// a b\n", "// a b c\n")}, edit={"src/x.cpp": None})
    assert project.run("lock").code == 0
    edges = json.loads(project.run("graph", "--json").out)["edges"]
    assert [(e["patch"], e["needs"], e["shown"]) for e in edges] == [("b", "a", ["lines"]), ("c", "b", ["lines"])]


def test_neighbours_are_no_need(sampler: Project) -> None:
    """Two patches of one file that merge in either order."""
    edges = {(e["patch"], e["needs"]): e["verdict"] for e in json.loads(sampler.run("graph", "--json").out)["edges"]}
    assert edges == {
        ("sampler", "foundation"): "unseen",
        ("warps", "foundation"): "unseen",
        ("warps-more", "warps"): "ok",
    }


def test_a_circle_is_refused_with_its_path(sampler: Project) -> None:
    meta = sampler.folder("warps") / "patch.toml"
    meta.write_text(meta.read_text().replace('requires = ["foundation"]', 'requires = ["warps-more"]'))
    result = sampler.run("graph")
    assert (result.code, result.out) == (2, "")
    assert "the patches require each other in a circle: warps -> warps-more -> warps" in result.err
