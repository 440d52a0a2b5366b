"""What a comparison says: the data behind every table, and the published JSON (``docs/schemas/compare.json``)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llamapatch.judge.verdict import Word

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Part(BaseModel):
    """Base: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmInfo(Part):
    """One arm: the series state its build names, and the switches it was run with."""

    name: str
    label: str
    commit: str
    switches: dict[str, str]


class ModelInfo(Part):
    """The model a round ran on."""

    name: str
    type: str
    sha256: str
    bytes: int
    source_sha256: str


class TextInfo(Part):
    """The text that was evaluated."""

    name: str
    sha256: str
    bytes: int


class Ratio(Part):
    """An arm against the unpatched build. For speeds more is better, for amounts (CPU time, memory, energy) less.

    `low` and `high` bound the interval over `blocks` paired blocks; `p` is Student's, Holm-adjusted over the metrics
    judged together, `flip_p` the sign-flip p of this one alone; `robust` is the Hodges-Lehmann ratio. `base` and
    `value` are the medians behind the ratio in `unit`, and `typical` is the ratio of the processes' median instead of
    fastest repetitions: information.
    """

    metric: str
    arm: str
    kind: Literal["speed", "amount"]
    ratio: Finite
    low: Finite | None
    high: Finite | None
    blocks: int
    p: Finite | None
    flip_p: Finite | None = None
    robust: Finite
    typical: Finite | None = None
    word: Word
    blocks_needed: int | None
    base: Finite
    value: Finite
    unit: str


class Quality(Part):
    """An arm's text quality against the unpatched build on the same tokens.

    `ln_ratio` is the mean difference of ln perplexity. Its 95 % interval, and that of KL divergence (nats), hold the
    difference from the floor, by a block bootstrap over windows; `same_top` from 0 to 1. `floor` marks the unpatched
    build against itself.
    """

    arm: str
    floor: bool
    perplexity: Finite
    ln_ratio: Finite
    ln_ratio_low: Finite | None
    ln_ratio_high: Finite | None
    mean_kld: Finite
    mean_kld_low: Finite | None
    mean_kld_high: Finite | None
    p999_kld: Finite
    max_kld: Finite
    same_top: Finite
    windows: int
    context: int


class LogitsResult(Part):
    """One arm's logits against the unpatched build's, as bytes and in 32-bit precision.

    `mean_kld` has a 95 % interval by a block bootstrap over positions. The arm ``base`` is the unpatched build at this
    micro-batch size against itself at the first one: what upstream's own paths differ by.
    """

    arm: str
    ubatch: int
    verdict: Literal["identical", "different", "not provable"]
    positions: int
    vocabulary: int
    nmse: Finite | None
    mean_kld: Finite | None
    mean_kld_low: Finite | None = None
    mean_kld_high: Finite | None = None
    max_abs: Finite | None
    same_top: Finite
    sha256: str


class GreedyResult(Part):
    """One arm's greedy continuations of held-out prompts against the unpatched build's.

    `agreed` are, for each prompt, the tokens before the first difference, of `tokens`; `equal` the share of prompts
    without one, 0 to 1, `mean_agreed` the mean of `agreed`. The arm ``base-again`` is the floor.
    """

    arm: str
    tokens: int
    equal: Finite
    mean_agreed: Finite
    agreed: list[int]


class PatchActivity(Part):
    """What a patch counted in the ``on`` arm."""

    patch: str
    where: str
    handled: int
    differs: int
    fallback: dict[str, int]


class Memory(Part):
    """An arm's memory in MiB: peak resident set, peak on the GPUs, and the buffers llama.cpp reports by kind (None: not
    reported)."""

    arm: str
    peak_rss: Finite | None
    peak_gpu: Finite | None = None
    buffers: dict[str, Finite]


class RoundResult(Part):
    """All figures of one model."""

    model: ModelInfo
    patches: list[str]
    scenarios: dict[str, str]
    trained: bool
    quality: list[Quality]
    logits: list[LogitsResult]
    greedy: list[GreedyResult] = []
    speed: list[Ratio]
    cost: list[Ratio]
    memory: list[Memory]
    cpu_seconds_per_token: dict[str, Finite]
    joules_per_token: dict[str, dict[str, Finite]] = {}


class KernelResult(Part):
    """A patch's own benchmark: the geometric mean over its cases (judged), and each case (information)."""

    patch: str
    target: str
    args: list[str]
    overall: list[Ratio]
    cases: list[Ratio]


class ProblemInfo(Part):
    """A part that measured nothing, and why."""

    where: str
    what: str


class Comparison(Part):
    """The whole result. `level` is that of all intervals of ratios (0.975 when the blocks could be extended once: each
    look at the data has its share of the 5 %). `exit_code` is 0, or 8 when `problems` is not empty."""

    schema_version: Literal[1] = Field(1, alias="schema")
    tool: str
    id: str
    started: str
    seconds: Finite
    command: str
    profile: str
    blocks: int
    level: Finite
    seed: int
    threads: int
    upstream_version: str
    upstream_tree: str
    series_chain: str
    selected: list[str]
    asked: list[str]
    pulled_in: list[str]
    arms: list[ArmInfo]
    text: TextInfo
    machine: dict[str, Any]
    contended_share: Finite | None
    energy: bool
    rounds: list[RoundResult]
    kernels: list[KernelResult]
    activity: list[PatchActivity]
    problems: list[ProblemInfo]
    raw: str
    exit_code: Literal[0, 8]

    def data(self) -> dict[str, Any]:
        """As plain JSON data, keys as published."""
        return self.model_dump(mode="json", by_alias=True)
