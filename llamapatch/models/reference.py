"""The reference model that travels with the package, and its card.

``reference/model.json`` holds every fact about it and is written by `release` from a training run and from
measurements; ``reference/README.md`` is rendered from it. No number in either is typed by hand.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import jinja2
from pydantic import BaseModel, ConfigDict, ValidationError

from llamapatch.errors import EnvironmentProblem, InternalError, MismatchError
from llamapatch.models.gguf_file import sha256_of
from llamapatch.series.model import GitId, Sha256

FOLDER = Path(__file__).resolve().parent / "reference"
MODEL_NAME = "llamapatch-ref-f16.gguf"
CARD_NAME = "model.json"
README_NAME = "README.md"
TEMPLATE_NAME = "model-card.md.j2"
MAX_BYTES = 16 << 20
_TABLE_ROWS = 14


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(_Facts):
    """What the run was told and how far it came. `plan` are the fields of `train.Plan`."""

    plan: dict[str, int | float]
    step: int
    steps: int
    tokens: int
    train_files: int
    train_tokens: int
    warm_start_sha256: Sha256 | None
    warm_start_tokens: int | None
    note: str


class LossLine(_Facts):
    """One line of ``loss.jsonl``; `ppl_1024` over the first 24 held-out windows."""

    step: int
    tokens: int
    window: int
    train_loss: float
    ppl_1024: float
    tokens_per_second: int


class Perplexity(_Facts):
    """One context length over the whole evaluation text, by upstream's llama-perplexity and by torch."""

    n_ctx: int
    windows: int
    upstream: float
    upstream_error: float
    torch: float


class Evaluation(_Facts):
    """The held-out text and the figures on it."""

    upstream_version: str
    upstream_tree: GitId
    files: int
    text_sha256: Sha256
    text_bytes: int
    tokens: int
    scores: list[Perplexity]


class Sample(_Facts):
    """Greedy text after the middle of each held-out file: `prompts` of them, `tokens` tokens each.

    A text loops from the first token of a phrase that repeats to its end, at least three times. `onset` is the median
    number of tokens before that (`tokens` where it never loops), `never` counts the texts that never loop; `prompt` and
    `text` are one of median onset.
    """

    prompts: int
    tokens: int
    onset: float
    never: int
    prompt: str
    text: str


class Card(_Facts):
    """Everything known about the shipped file."""

    schema_version: Literal[1]
    name: str
    date: str
    sha256: Sha256
    bytes: int
    n_params: int
    shape: dict[str, int | float]
    tokenizer_sha256: Sha256
    training: Training
    loss: list[LossLine]
    evaluation: Evaluation
    sample: Sample


@lru_cache(maxsize=1)
def reference_model() -> Path:
    """The packaged F16 GGUF, proven by the card's SHA-256.

    Raises `EnvironmentProblem` when the installation lacks it and `MismatchError` when its bytes are not the card's.
    """
    return checked_model(FOLDER)


def checked_model(folder: Path) -> Path:
    """The model of `folder`, checked against the card beside it."""
    path = folder / MODEL_NAME
    expected = card(folder).sha256
    if not path.is_file():
        raise EnvironmentProblem(f"the reference model {path} is missing.", "Install llamapatch again.")
    found = sha256_of(path)
    if found != expected:
        raise MismatchError(
            f"the reference model {path} has sha256 {found}; its card says {expected}.", "Install llamapatch again."
        )
    return path


def card(folder: Path = FOLDER) -> Card:
    """The facts of ``model.json``."""
    path = folder / CARD_NAME
    try:
        return Card.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EnvironmentProblem(f"{path} is missing.", "Install llamapatch again.") from error
    except ValidationError as error:
        raise InternalError(f"{path} is no model card: {error.errors()[0]['msg']}.") from error


def render_card(facts: Card, templates: Path) -> str:
    """The model card as Markdown, from ``templates/model-card.md.j2``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
    )
    return environment.get_template(TEMPLATE_NAME).render(card=facts, rows=_spread(facts.loss))


def _spread(lines: list[LossLine]) -> list[LossLine]:
    """About `_TABLE_ROWS` lines, evenly spread, the first and the last among them."""
    if len(lines) <= _TABLE_ROWS:
        return lines
    last = len(lines) - 1
    wanted = sorted({round(i * last / (_TABLE_ROWS - 1)) for i in range(_TABLE_ROWS)})
    return [lines[i] for i in wanted]
