"""Files that let a CI system run the gates: a GitHub Actions workflow and a plain shell script with the same steps."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2

from llamapatch import __version__
from llamapatch.config import Settings, packaged_home
from llamapatch.errors import UsageProblem
from llamapatch.files import write_atomically

Form = Literal["github", "shell"]
# Form -> (template, where it goes below the repository's root, mode).
_FORMS: dict[Form, tuple[str, str, int]] = {
    "github": ("github.yml.j2", ".github/workflows/llamapatch.yml", 0o644),
    "shell": ("gate.sh.j2", "ci/llamapatch-ci.sh", 0o755),
}


@dataclass(frozen=True)
class CiFile:
    """A file that was, or would be, written; `known` says that it was there with the same content."""

    path: Path
    text: str
    known: bool


def write_ci_file(
    settings: Settings, form: Form, folder: Path, *, profile: str, force: bool = False, dry_run: bool = False
) -> CiFile:
    """Render `form` into its place below `folder`, the root of a repository.

    Raises `UsageProblem` when another file is already there and `force` is not given.
    """
    template, place, mode = _FORMS[form]
    path = folder / place
    text = render(settings, template, profile)
    known = path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text
    if path.exists() and not known and not force:
        raise UsageProblem(f"{path} exists and differs.", "Look at it, then add --force to overwrite it.")
    if not dry_run and not known:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode(), mode)
    return CiFile(path, text, known)


def render(settings: Settings, template: str, profile: str) -> str:
    """A template of ``templates/ci`` as text; the project's own is taken before the one of the package."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([settings.templates / "ci", packaged_home() / "templates" / "ci"]),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - shell and YAML; all values are ours
        keep_trailing_newline=True,
        trim_blocks=True,
        # GitHub's own expressions are written {{ }}.
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
    )
    values = {"version": f"llamapatch {__version__}", "profile": profile, "install": _install(settings)}
    return environment.get_template(template).render(values)


def matrix(plan: Any) -> list[dict[str, str]]:
    """The jobs of ``gate --plan --json`` that are not yet known, one entry for each patch: its id, and its job hashes
    with spaces between. Raises `UsageProblem` for anything else."""
    try:
        entries: dict[str, list[str]] = {}
        for job in plan["jobs"]:
            if not job.get("cached", False):
                entries.setdefault(str(job["patch"]), []).append(str(job["job"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageProblem(
            "this is no plan of a gate.", "Give what `llamapatch gate --plan --json` printed."
        ) from error
    return [{"patch": patch, "jobs": " ".join(hashes)} for patch, hashes in entries.items()]


def read_plan(text: str, name: str) -> Any:
    """Parse a plan; raises `UsageProblem` for what is no JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageProblem(
            f"{name} is no JSON: {error}.", "Give what `llamapatch gate --plan --json` printed."
        ) from error


def _install(settings: Settings) -> str:
    """A checkout of llamapatch itself is what its CI installs; any other project takes the release it was made with."""
    project = settings.root / "pyproject.toml"
    if project.is_file():
        try:
            if tomllib.loads(project.read_text(encoding="utf-8")).get("project", {}).get("name") == "llamapatch":
                return "pip install --quiet ."
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            pass  # not ours to complain about
    return f"pip install --quiet llamapatch=={__version__}"
