"""What ``rebase --json`` and ``drift --json`` print is what docs/schemas/ publishes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from llamapatch.report.rebase_schema import rebase_schemas
from tests.project import Project, git
from tests.rebase.toy import release

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"


def test_published_schemas_are_current() -> None:
    for name, text in rebase_schemas().items():
        assert (FOLDER / name).read_text() == text, "run: python -m llamapatch.report.rebase_schema docs/schemas"


def test_outputs_follow_them(sampler: Project) -> None:
    git(sampler.upstream, "tag", "v0.5.0")
    release(
        sampler,
        "v0.6.0",
        replace={"src/sampling.cpp": ("// line 30\n", "// line thirty\n")},
        edit={"src/old.cpp": "int old_thing() { return 1; }\n"},
    )
    for words, name in (
        (["rebase", "--onto", "v0.6.0", "--dry-run", "--keep-going"], "rebase"),
        (["rebase", "--onto", "v0.6.0"], "rebase"),
        (["rebase", "--skip"], "rebase"),
        (["rebase", "--skip"], "rebase"),
        (["drift", "--onto", "v0.5.0", "--onto", "v0.6.0"], "drift"),
    ):
        result = sampler.run(*words, "--json")
        assert result.out, result.err
        jsonschema.validate(json.loads(result.out), json.loads((FOLDER / f"{name}.json").read_text()))
