"""In which order the arms run: each block in a random order and then in its reverse.

A block's two halves see opposite positions, so a drift that is linear over the block (a warming processor, a filling
cache) cancels within it; the random order keeps a fixed neighbour from always paying for the one before. The seed is
recorded, so a run can be repeated step by step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


def interleave(arms: Sequence[str], blocks: int, seed: int) -> list[tuple[int, str]]:
    """``(block, arm)`` for each process, in running order: every arm twice in every block."""
    order = random.Random(seed)  # noqa: S311
    schedule: list[tuple[int, str]] = []
    for block in range(blocks):
        half = list(arms)
        order.shuffle(half)
        schedule += [(block, arm) for arm in (*half, *reversed(half))]
    return schedule
