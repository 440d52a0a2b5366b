"""``llamapatch ablate``."""

from __future__ import annotations

from llamapatch.cli.effects import make_command

command = make_command(
    "ablate",
    """Show what each patch of SELECTOR gives the whole: all switches on, against all but its own.""",
)
