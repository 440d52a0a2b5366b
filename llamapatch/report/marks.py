"""How a verdict looks: a sign and a tone for every word, the same in the terminal, in Markdown and on the page.

The sign carries the meaning; the tone only repeats it, so that nothing is said by colour alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "bad", "open", "plain"]


@dataclass(frozen=True)
class Mark:
    """One character, and how it may be coloured. ``open`` is for what could not be decided."""

    sign: str
    tone: Tone


_MARKS = {
    "pass": Mark("✓", "good"),
    "fail": Mark("✗", "bad"),
    "not measured": Mark("!", "open"),
    "not applicable": Mark("○", "plain"),
    "faster": Mark("▲", "good"),
    "slower": Mark("▼", "bad"),
    "less": Mark("▼", "good"),
    "more": Mark("▲", "bad"),
    "not slower": Mark("≥", "good"),
    "not more": Mark("≤", "good"),
    "same": Mark("=", "good"),
    "inconclusive": Mark("?", "open"),
    "no verdict": Mark("–", "plain"),
    "unfit": Mark("!", "open"),
    "identical": Mark("✓", "good"),
    "different": Mark("≠", "plain"),
    "not provable": Mark("?", "open"),
}
# What neither a terminal nor XML 1.0 may be given: what a tool printed ends up in a step's sentence.
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PLAIN = Mark("·", "plain")
STYLES: dict[Tone, str] = {"good": "green", "bad": "bold red", "open": "yellow", "plain": ""}


def mark_of(word: str) -> Mark:
    """The mark of a verdict, a step's word or an identity; a dot for whatever decides nothing."""
    return _MARKS.get(word, _PLAIN)


def printable(text: str) -> str:
    """`text` without control characters, each replaced by a sign that shows there was one."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
