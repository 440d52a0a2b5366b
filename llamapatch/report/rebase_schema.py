"""The published JSON schemas of ``rebase --json`` and ``drift --json``.

``python -m llamapatch.report.rebase_schema docs/schemas`` writes them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from llamapatch.tree.merge import Fate
from llamapatch.tree.thread import Status

_TEXT: dict[str, Any] = {"type": "string"}
_TEXT_OR_NULL: dict[str, Any] = {"type": ["string", "null"]}
_FLAG: dict[str, Any] = {"type": "boolean"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_COUNT_OR_NULL: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}
_TREE: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{40}$"}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_WHERE = _object(line=_COUNT, function=_TEXT)
_PLACE = _object(fate={"enum": [f.value for f in Fate]}, why=_TEXT, before=_WHERE, now=_WHERE)
_CONFLICT = _object(
    function=_TEXT,
    line_before=_COUNT,
    line_now=_COUNT,
    before=_list(_TEXT),
    upstream=_list(_TEXT),
    patch=_list(_TEXT),
)
_STATUS: dict[str, Any] = {"enum": [s.value for s in Status]}
_FILE = _object(path=_TEXT, to=_TEXT, status=_STATUS, why=_TEXT, changes=_list(_PLACE), conflicts=_list(_CONFLICT))
_PATCH = _object(
    id=_TEXT,
    status=_STATUS,
    why=_TEXT,
    blockers=_list(_TEXT),
    accepted=_FLAG,
    decided=_FLAG,
    skipped=_FLAG,
    reused=_COUNT,
    hunks=_COUNT,
    tree=_TREE,
    files=_list(_FILE),
)
_ONTO = _object(spec=_TEXT, version=_TEXT, tree=_TREE, behind=_object(commits=_COUNT_OR_NULL, releases=_COUNT_OR_NULL))
_ATTEMPT: dict[str, dict[str, Any]] = {
    "onto": _ONTO,
    "stopped": _TEXT_OR_NULL,
    "leaves": _list(_TEXT),
    "patches": _list(_PATCH),
    "not_tried": _list(_TEXT),
}
_COLLISION = _object(patch=_TEXT_OR_NULL, name=_TEXT, value=_COUNT, other=_TEXT)


def rebase_schemas() -> dict[str, str]:
    """File name -> text of the schema."""
    rebase = _object(
        schema={"const": 1},
        dry_run=_FLAG,
        done=_FLAG,
        files=_list(_TEXT),
        parked=_TEXT_OR_NULL,
        learned=_COUNT,
        unlearned=_list(_TEXT),
        **_ATTEMPT,
    )
    drift = _object(
        schema={"const": 1},
        pin=_object(version=_TEXT, tree=_TREE),
        clean=_FLAG,
        upstreams=_list(_object(clean=_FLAG, collisions=_list(_COLLISION), **_ATTEMPT)),
    )
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        f"{name}.json": json.dumps(head | {"title": title} | schema, indent=2, sort_keys=True) + "\n"
        for name, title, schema in (("rebase", "rebase --json", rebase), ("drift", "drift --json", drift))
    }


if __name__ == "__main__":
    for name, text in rebase_schemas().items():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
