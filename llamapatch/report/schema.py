"""The published JSON schemas of results: ``python -m llamapatch.report.schema docs/schemas`` writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from llamapatch.judge.gate_result import EffectsResult, GateResult
from llamapatch.judge.result import Comparison, Part


def schema_texts() -> dict[str, str]:
    """File name -> text of the schema, as the file holds it."""
    models: dict[str, type[Part]] = {"compare": Comparison, "gate": GateResult, "effects": EffectsResult}
    return {
        f"{name}.json": json.dumps(_schema(name, model), indent=2, sort_keys=True) + "\n"
        for name, model in models.items()
    }


def _schema(name: str, model: type[Part]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"llamapatch-{name}-1", **schema}


if __name__ == "__main__":
    for file, text in schema_texts().items():
        (Path(sys.argv[1]) / file).write_text(text, encoding="utf-8")
