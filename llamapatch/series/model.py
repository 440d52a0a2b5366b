"""The shape of ``series.toml``, ``patch.toml`` and ``series.lock``: strict, unknown keys are errors."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

PatchId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
PhaseId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)]
GitId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def check_tree_path(path: str) -> str:
    """`path` itself; `ValueError` for one that is not relative or that leads out."""
    if path.startswith("/") or "\\" in path or "\0" in path or any(p in ("", ".", "..") for p in path.split("/")):
        raise ValueError("must be a relative path with forward slashes that does not climb out")
    return path


# A path inside a tree.
TreePath = Annotated[str, AfterValidator(check_tree_path)]
NonEmpty = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class Strict(BaseModel):
    """Base: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Strict):
    """One place upstream may come from, tried in the order of the file.

    ``git``: `url` and `ref`. ``npm``: `package` and the git bundle's path in it (`member`). ``pypi``: `package` and the
    folder in its source archive (`member`). ``tarball``: `url`, or a path, of a source archive.
    """

    kind: Literal["git", "npm", "pypi", "tarball"]
    url: str = ""
    ref: str = ""
    package: str = ""
    member: str = ""


class UpstreamPin(Strict):
    """What the series applies to. The tree id is the identity; the version is its name."""

    version: NonEmpty
    tree: GitId
    url: str
    source: list[Source] = Field(min_length=1)


class Phase(Strict):
    """A named stretch of the series; `patches` in the order of application."""

    id: PhaseId
    title: NonEmpty
    patches: list[PatchId] = []


class SeriesFile(Strict):
    """``patches/series.toml``."""

    schema_version: Literal[1] = Field(alias="schema")
    upstream: UpstreamPin
    phase: list[Phase] = Field(min_length=1)


class Forwarding(Strict):
    """Where the change stands with upstream, and why."""

    status: Literal["not-forwarded", "forwarded", "rejected", "merged", "never"]
    reason: NonEmpty
    url: str = ""


class Effect(Strict):
    """What the patch may do to results when switched on.

    ``identical``: logits byte-equal to the unpatched build. ``equivalent``: the same mathematics, other rounding.
    ``lossy``: within the budgets of ``[gate]``.
    """

    effect_class: Literal["identical", "equivalent", "lossy"] = Field(alias="class")
    backends: list[Literal["cpu", "cuda"]] = ["cpu"]


class Switch(Strict):
    """How the patch is turned on at run time; off by default. `flag` is a command-line flag of upstream's tools."""

    env: Annotated[str, StringConstraints(pattern=r"^LLAMA_LP_[A-Z0-9_]+$")]
    values: list[Literal["off", "on", "verify"]] = ["off", "on"]
    flag: str = ""


class Overlay(Strict):
    """A file that lives in ``ggml_kernels/`` (`source`) and is placed at `to` in the same commit."""

    source: TreePath = Field(alias="from")
    to: TreePath


class KernelBench(Strict):
    """A benchmark of the kernels' own build, for what upstream's tools never reach.

    `target` is the CMake target in ``ggml_kernels/``; it prints one JSON object per line (see docs). `quick_args`
    replace `args` in a quick profile.
    """

    target: NonEmpty
    args: list[str] = []
    quick_args: list[str] | None = None


class Claim(Strict):
    """A speed-up that the patch promises: the interval's lower bound of `metric` (a name of a compare report such as
    ``pp512`` or ``tg128 @4096 q8_0``, or ``kernels`` for the geometric mean of its own benchmark) on model `model` is
    at least `min`. `profile` names the least profile that measures it."""

    metric: NonEmpty
    min: Annotated[float, Field(gt=0)]
    model: str = ""
    profile: NonEmpty = "quick"


class Gate(Strict):
    """Budgets and claims, checked by ``gate``.

    `model_type` is the quantisation of the reference model that reaches the patch (``F16`` when any does). Speed may
    fall by `max_slowdown` at most and memory grow by `max_memory_growth` (0.02: 2 %). `upstream_tests` are upstream's
    own test programs that the patch touches, with their arguments; they must pass with its switch off and on.
    """

    model_type: str = "F16"
    kernel_bench: KernelBench | None = None
    upstream_tests: list[NonEmpty] = []
    claim: list[Claim] = []
    max_slowdown: Annotated[float, Field(ge=0, lt=1)] = 0.02
    max_memory_growth: Annotated[float, Field(ge=0)] = 0.02
    max_kld: float | None = None
    max_delta_ln_ppl: float | None = None
    min_top1: float | None = None


class PatchMeta(Strict):
    """``patches/phaseN/<id>/patch.toml``."""

    schema_version: Literal[1] = Field(alias="schema")
    id: PatchId
    title: NonEmpty
    phase: PhaseId
    authors: list[NonEmpty] = Field(min_length=1)
    date: datetime.date
    paper: str = ""
    requires: list[PatchId] = []
    conflicts: list[PatchId] = []
    upstream: Forwarding
    effect: Effect
    switch: Switch | None = None
    overlay: list[Overlay] = []
    registry: dict[str, int] = {}
    cuda_units: list[TreePath] = []
    gate: Gate = Gate()


class LockedFile(Strict):
    """A file before and after one patch; a blob of forty zeros means it is absent."""

    path: str
    mode: str
    pre: GitId
    post: GitId


class LockedHunk(Strict):
    """Where a hunk stands: the enclosing function's line in the pre-image."""

    path: str
    line: int
    function: str


class LockedPatch(Strict):
    """The generated facts of one patch: hashes in, expected tree and commit out."""

    id: PatchId
    diff: Sha256
    overlay: dict[str, Sha256]
    meta: Sha256
    files: list[LockedFile]
    hunks: list[LockedHunk]
    tree: GitId
    commit: GitId
    chain: Sha256


class Lock(Strict):
    """``patches/series.lock``. `chain` of the last patch is the series' identity."""

    schema_version: Literal[1] = Field(alias="schema")
    upstream_tree: GitId
    base_commit: GitId
    patches: list[LockedPatch]


class Resolution(Strict):
    """One file of ``resolutions/``: what a person made of a conflict.

    `before`, `upstream` and `patch` are the lines in conflict, each with its line ending; `resolved` is what they
    became; `path` and `function` say where, for a reader.
    """

    schema_version: Literal[1] = Field(alias="schema")
    path: str
    function: str
    before: list[str]
    upstream: list[str]
    patch: list[str]
    resolved: list[str]
