"""``python -m llamapatch``."""

from llamapatch.cli.main import entry

entry()
