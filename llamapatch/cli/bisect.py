"""``llamapatch bisect``."""

from __future__ import annotations

from llamapatch.cli.effects import make_command

command = make_command(
    "bisect",
    """Find the first patch of SELECTOR that moves one metric by more than --threshold, by halving the series.

Builds prefixes of the series; assumes that a metric that has moved stays moved. Exit 7 when a probe is undecided.""",
)
