"""What is measured, as people declare it: ``ci/scenarios.toml``.

A *scenario* is what one process does: llama-bench with a prompt, a generation and a depth of the cache, or
llama-batched-bench with several sequences. A *profile* is a list of scenarios with a number of blocks; ``--quick`` and
``--full`` name two of them.
"""

from __future__ import annotations

import os
import tomllib
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from llamapatch.config import Settings, packaged_home
from llamapatch.errors import UsageProblem
from llamapatch.series.model import NonEmpty, Strict

SCENARIOS_NAME = "scenarios.toml"
REFERENCE = "reference"

Count = Annotated[int, Field(ge=1)]


class Scenario(Strict):
    """What one process of every arm does, and so one sample.

    `model` is ``reference`` (in each selected patch's own type), ``stress`` (its twin with outliers, alike), or a shape
    of `llamapatch model synth` in type `type`. `prompt` tokens are read at once and `generate` tokens one by one, both
    after `depth` tokens that are already in a cache of type `cache`. With `sequences` the tool is llama-batched-bench,
    which repeats nothing; else `repetitions` of llama-bench, whose first does not count. `primary` metrics are judged,
    together; the others are information. `seconds` is what a process takes on two idle cores, for estimates only.
    """

    title: NonEmpty
    model: NonEmpty = REFERENCE
    type: str = ""
    prompt: Annotated[int, Field(ge=0)] = 0
    generate: Annotated[int, Field(ge=0)] = 0
    depth: Annotated[int, Field(ge=0)] = 0
    cache: Literal["f16", "bf16", "f32", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"] = "f16"
    sequences: tuple[Count, ...] = ()
    repetitions: Annotated[int, Field(ge=2)] = 4
    primary: bool = True
    blocks: Count | None = None
    seconds: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _does_something(self) -> Scenario:
        if not self.prompt and not self.generate:
            raise ValueError("neither prompt nor generate is given: nothing would be measured")
        if self.sequences and not (self.prompt and self.generate and not self.depth):
            raise ValueError("a scenario with sequences needs prompt and generate, and has no depth")
        if (self.model in (REFERENCE, "stress")) == bool(self.type):
            raise ValueError("a synthetic shape needs a type; the reference model has each patch's own")
        return self

    @property
    def tests(self) -> tuple[str, ...]:
        """The names of its metrics, as reports show them."""
        where = (f" @{self.depth}" if self.depth else "") + (f" {self.cache}" if self.cache != "f16" else "")
        if self.sequences:
            return tuple(
                f"{part} x{n}{where}" for n in self.sequences for part in (f"pp{self.prompt}", f"tg{self.generate}")
            )
        parts = [f"pp{self.prompt}"] * bool(self.prompt) + [f"tg{self.generate}"] * bool(self.generate)
        return tuple(part + where for part in parts)

    def tokens(self, test: str) -> int:
        """Tokens behind one sample of a test, all sequences together."""
        words = test.split()
        each = self.prompt if words[0].startswith("pp") else self.generate
        return each * (int(words[1][1:]) if self.sequences else 1)

    @property
    def tokens_per_process(self) -> int:
        """Tokens a process evaluates in all, warm-up (a prompt and one token) included."""
        if self.sequences:
            return sum(self.tokens(test) for test in self.tests)
        # The cache is filled once for each test and restored for its other repetitions.
        filled = self.depth * len(self.tests)
        return (self.repetitions + bool(self.prompt)) * self.prompt + self.repetitions * self.generate + 1 + filled


class Profile(Strict):
    """A named amount of work. `context` and `windows` (0: the whole text) are for perplexity, `long_contexts` are
    measured besides, `prompt_bytes` of text go into the identity of logits, `greedy_prompts` are continued greedily.
    `threads` is ``all`` cores or those that are ``free``; `extend` how often the blocks may be repeated, decided
    beforehand, while a primary metric is inconclusive."""

    title: NonEmpty
    blocks: Count
    extend: Annotated[int, Field(ge=0, le=3)] = 0
    context: Annotated[int, Field(ge=16)] = 512
    windows: Annotated[int, Field(ge=0)] = 0
    long_contexts: tuple[Count, ...] = ()
    prompt_bytes: Annotated[int, Field(ge=64)] = 600
    greedy_prompts: Annotated[int, Field(ge=0)] = 0
    greedy_tokens: Count = 32
    threads: Literal["all", "free"] = "all"
    quick_kernels: bool = False
    scenarios: list[NonEmpty] = Field(min_length=1)


class ScenarioFile(Strict):
    """``ci/scenarios.toml``."""

    schema_version: Literal[1] = Field(alias="schema")
    profile: dict[NonEmpty, Profile]
    scenario: dict[NonEmpty, Scenario]

    @model_validator(mode="after")
    def _names_are_known(self) -> ScenarioFile:
        for name, profile in self.profile.items():
            unknown = [s for s in profile.scenarios if s not in self.scenario]
            if unknown:
                raise ValueError(f"profile {name} names the unknown scenario {unknown[0]}")
        return self

    def pick(self, profile: str) -> tuple[Profile, dict[str, Scenario]]:
        """A profile and its scenarios by name; `UsageProblem` for an unknown one."""
        if profile not in self.profile:
            raise UsageProblem(f"there is no profile `{profile}`.", f"Known: {', '.join(self.profile)}.")
        chosen = self.profile[profile]
        return chosen, {name: self.scenario[name] for name in chosen.scenarios}


def load_scenarios(settings: Settings) -> ScenarioFile:
    """The project's ``ci/scenarios.toml``, else the one that travels with llamapatch; `UsageProblem` names the file and
    key at fault."""
    path = settings.home / "ci" / SCENARIOS_NAME
    if not path.is_file():
        path = packaged_home() / "ci" / SCENARIOS_NAME
    try:
        return ScenarioFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path} is not valid TOML: {error}.", "Mend that line.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageProblem(f"{path}: `{where}`: {first['msg']}.", "docs/reference.md says what it may hold.") from error


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
