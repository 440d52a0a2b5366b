"""What a gate says: each patch, each step of the ladder, and the evidence for it (``docs/schemas/gate.json``)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from llamapatch.errors import ExitCode
from llamapatch.judge.result import Finite, Part

# In this order; a patch stops at the first step that fails before "off-identity".
STEPS = (
    "lint",
    "apply",
    "compile",
    "compile-cuda",
    "kernel tests",
    "upstream tests",
    "off-identity",
    "quality",
    "speed",
    "memory",
)
StepWord = Literal["pass", "fail", "inconclusive", "not measured", "not applicable"]


class Step(Part):
    """One rung. `said` is one sentence with the figure that decided; `evidence` are files below the job's folder;
    `commands` are what a person types to see the same."""

    name: str
    word: StepWord
    said: str
    seconds: Finite
    commands: list[str]
    evidence: list[str]


class GatedPatch(Part):
    """One job of the plan, done: a patch on top of what it requires (``closure``) or in the whole `series`.

    `job` is the content hash that names it; `applied` what its tree held; `comparison` the id of the comparison whose
    figures were judged, if one ran; `cached` says that the stored result of the same hash was used, from `measured_at`.
    """

    job: str
    patch: str
    title: str
    phase: str
    effect: str
    paper: str
    budgets: dict[str, Finite]
    where: Literal["closure", "series"]
    applied: list[str]
    backend: str
    scenario: str
    word: StepWord
    steps: list[Step]
    comparison: str | None
    cached: bool
    measured_at: str
    machine: dict[str, Any]


class GateResult(Part):
    """A whole gate. `exit_code` is the worst of the jobs: 6 failed, 8 not measured, 7 inconclusive, in this order."""

    schema_version: Literal[1] = Field(1, alias="schema")
    tool: str
    id: str
    started: str
    seconds: Finite
    command: str
    profile: str
    upstream_version: str
    upstream_tree: str
    series_chain: str
    machine: dict[str, Any]
    jobs: list[GatedPatch]
    raw: str
    exit_code: Literal[0, 6, 7, 8]

    def data(self) -> dict[str, Any]:
        """As plain JSON data, keys as published."""
        return self.model_dump(mode="json", by_alias=True)


class PatchEffect(Part):
    """The marginal effect of one patch on one metric: a ratio with its 95 % interval over `blocks` blocks. `before` and
    `after` name the two states that were compared."""

    patch: str
    before: str
    after: str
    ratio: Finite
    low: Finite | None
    high: Finite | None
    blocks: int
    word: str


class EffectsResult(Part):
    """``ablate`` (each patch taken out of the whole alone), ``waterfall`` (each added on top of those before it) or
    ``bisect`` (`found` is the first patch that moves the metric by more than `threshold`)."""

    schema_version: Literal[1] = Field(1, alias="schema")
    kind: Literal["ablate", "waterfall", "bisect"]
    tool: str
    id: str
    started: str
    seconds: Finite
    command: str
    metric: str
    unit: str
    model: str
    upstream_version: str
    series_chain: str
    machine: dict[str, Any]
    effects: list[PatchEffect]
    found: str | None
    threshold: Finite | None
    raw: str
    exit_code: Literal[0, 7, 8]

    def data(self) -> dict[str, Any]:
        """As plain JSON data, keys as published."""
        return self.model_dump(mode="json", by_alias=True)


def worst(words: list[StepWord]) -> StepWord:
    """The word of a whole: failed before not measured before inconclusive before passed."""
    ladder: tuple[StepWord, ...] = ("fail", "not measured", "inconclusive", "pass")
    return next((word for word in ladder if word in words), "not applicable")


def exit_code_of(word: StepWord) -> Literal[0, 6, 7, 8]:
    """The exit code that a word stands for."""
    codes: dict[StepWord, Literal[0, 6, 7, 8]] = {
        "fail": ExitCode.GATE_FAILED.value,
        "not measured": ExitCode.NOT_MEASURED.value,
        "inconclusive": ExitCode.INCONCLUSIVE.value,
    }
    return codes.get(word, 0)
