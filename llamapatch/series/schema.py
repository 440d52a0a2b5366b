"""The published JSON schemas of the file formats, ``docs/schemas/``: generated from `llamapatch.series.model`.

``python -m llamapatch.series.schema DIR`` writes them; a test keeps them current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from llamapatch.series.model import Lock, PatchMeta, Resolution, SeriesFile


def schemas() -> dict[str, str]:
    """File name -> text of the schema."""
    models: dict[str, type[BaseModel]] = {
        "series": SeriesFile,
        "patch": PatchMeta,
        "lock": Lock,
        "resolution": Resolution,
    }
    return {
        f"{name}.json": json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(by_alias=True)},
            indent=2,
            sort_keys=True,
        )
        + "\n"
        for name, model in models.items()
    }


def write_schemas(folder: Path) -> None:
    """Write every schema into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
