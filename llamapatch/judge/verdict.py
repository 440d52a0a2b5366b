"""The words a comparison may use, and when.

`no verdict` says that too few blocks were measured to claim anything; `unfit` that the unpatched build differed from
itself, so that the machine, not the patch, decided; `inconclusive` that the interval holds both answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llamapatch.judge.paired import MIN_PAIRS, Estimate, holm, pairs_needed

Word = Literal[
    "faster", "slower", "not slower", "same", "less", "more", "not more", "inconclusive", "no verdict", "unfit", "info"
]
# A change of less than this is nobody's business ("never slower" means a lower bound of at least 0.98).
MARGIN = 0.02
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Verdict:
    """A word, the Holm-adjusted p of Student's test, and how many blocks an inconclusive result would have needed."""

    word: Word
    p: float | None = None
    blocks_needed: int | None = None


def judge(
    estimates: Sequence[Estimate], *, faster_is_more: bool, fit: Sequence[bool] | None = None, looks: int = 1
) -> list[Verdict]:
    """Verdicts for a family of primary metrics, judged together (Holm).

    `faster_is_more`: the ratio is one of speeds (more is better); otherwise of amounts (less is better). `fit` says for
    each whether the unpatched build agreed with itself on that metric. `looks` is how often the data may be judged at
    most (once, and once after each extension): each look gets its share of the 5 %, so that looking again costs no
    false verdicts; the estimates' intervals must be of level `level_of` the same number.
    """
    fits = list(fit) if fit is not None else [True] * len(estimates)
    adjusted = holm([e.p for e in estimates])
    bar = SIGNIFICANT / looks
    return [_one(e, p, ok, faster_is_more, bar) for e, p, ok in zip(estimates, adjusted, fits, strict=True)]


def level_of(looks: int) -> float:
    """The level of intervals that are looked at up to `looks` times."""
    return 1 - SIGNIFICANT / looks


def agrees_with_itself(again: Estimate) -> bool:
    """Whether the A/A arm is compatible with "no difference": it is not when its interval excludes 1 by more than half
    of the margin."""
    if again.low is None or again.high is None or again.n < MIN_PAIRS:
        return True
    outside = again.low > 1 or again.high < 1
    return not (outside and again.flip_p <= SIGNIFICANT and abs(again.ratio - 1) > MARGIN / 2)


def _one(e: Estimate, p: float, fit: bool, faster_is_more: bool, bar: float) -> Verdict:
    if e.n < MIN_PAIRS or e.low is None or e.high is None or e.sd is None or not fit:
        return Verdict("no verdict") if fit else Verdict("unfit", p)
    significant = max(p, e.flip_p) <= bar
    if e.low > 1 and significant:
        return Verdict("faster" if faster_is_more else "more", p)
    if e.high < 1 and significant:
        return Verdict("slower" if faster_is_more else "less", p)
    not_below, not_above = e.low >= 1 - MARGIN, e.high <= 1 + MARGIN
    if not_below and not_above:
        return Verdict("same", p)
    if not_below if faster_is_more else not_above:
        return Verdict("not slower" if faster_is_more else "not more", p)
    return Verdict("inconclusive", p, pairs_needed(e.sd, MARGIN))
