"""Marginal effects in the terminal and as Markdown."""

from __future__ import annotations

import pytest
from rich.console import Console

from llamapatch.report.effects import effects_headline, effects_markdown, kind_of, print_effects, times
from tests.report.samples import effect, effects


def test_headlines() -> None:
    assert effects_headline(effects()) == "tg128 of toy Q2_0 (tokens/s, more is better): 1.50x after 3 patches."
    assert effects_headline(effects("ablate", unit="MiB")) == (
        "tg128 of toy Q2_0 (MiB, less is better): one matters most, 2.00x [1.80, 2.20], n=7."
    )
    assert effects_headline(effects("bisect", found="two", threshold=0.03)) == (
        "tg128 of toy Q2_0 (tokens/s, more is better): two is the first patch that moves it by more than 3 %: "
        "0.50x [0.45, 0.55], n=7."
    )
    assert effects_headline(effects("bisect", threshold=0.03)).endswith("no patch moves it by more than 3 %.")
    assert effects_headline(effects(effects=[])).endswith("nothing was measured.")


def test_units_and_digits() -> None:
    assert [kind_of(unit) for unit in ("tokens/s", "MAC/ns", "s", "MiB", "J/token", "ms")] == [
        "speed", "speed", "amount", "amount", "amount", "amount"]  # fmt: skip
    assert [times(value) for value in (0.9876, 1.5, 45.6)] == ["0.988x", "1.50x", "45.6x"]


def test_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    wide = Console(highlight=False, width=140)
    print_effects(effects(), wide, wide)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "tg128 of toy Q2_0 (tokens/s, more is better): 1.50x after 3 patches."
    rows = {line.split()[0]: line for line in lines if "n=7" in line}
    assert "2.00x [1.80, 2.20], n=7" in rows["one"] and f"{'|' + '█' * 12}" in rows["one"]
    assert "0.50x [0.45, 0.55], n=7" in rows["two"] and f"{'█' * 12}|" in rows["two"] and "1.000x" in rows["two"]
    assert "1.50x, n=7" in rows["three"] and f"{'|' + '█' * 7} " in rows["three"]
    assert lines[-1] == "raw data: .llamapatch/runs/waterfall-1"


def test_markdown() -> None:
    assert (
        effects_markdown(effects("ablate", effects=[effect("one", 2.0)]))
        == """\
## llamapatch ablate: tg128 on v0.5.0

tg128 of toy Q2_0 (tokens/s, more is better): one matters most, 2.00x [1.80, 2.20], n=7.

### What each patch gives the whole: the series with it against the series without it

| patch | effect | verdict | from | to |
| --- | ---: | ---: | ---: | ---: |
| one | 2.00x [1.80, 2.20], n=7 | faster | without one | with one |

tg128, toy Q2_0: times the value before, with the interval over paired blocks.

<details><summary>Where these figures come from</summary>

- llama.cpp v0.5.0, series chain cccccccccccc
- machine m1: a processor, 2 cores
- run ablate-1 of 2026-11-25T11:00:00+00:00, 60 s
- command: llamapatch ablate
- raw data: .llamapatch/runs/waterfall-1

</details>
"""
    )
