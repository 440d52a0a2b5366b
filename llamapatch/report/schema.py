"""The published JSON schema of a comparison: ``python -m llamapatch.report.schema > docs/schemas/compare.json``."""

from __future__ import annotations

import json
import sys

from llamapatch.judge.result import json_schema


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
