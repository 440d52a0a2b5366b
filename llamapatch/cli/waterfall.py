"""``llamapatch waterfall``."""

from __future__ import annotations

from llamapatch.cli.effects import make_command

command = make_command(
    "waterfall",
    """Show what each patch of SELECTOR adds to one metric, on top of those before it.

One build, the switches turned on one after the other; the first row is the patched build with all of them off.""",
)
