"""Stands in for every build backend while pip downloads a source archive (see ``upstream/sources/pypi.py``).

Python imports this module at start-up when its folder is on ``PYTHONPATH``. In the children that pip starts to ask a
backend something, the backend's name is in the environment; a module of that name which only copies names and
versions from ``PKG-INFO`` is put where the import will look first.
"""

from __future__ import annotations

import os
import re
import sys
import types
from pathlib import Path
from typing import Any


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    """Write the three fields that pip compares with what it asked for; return the folder's name."""
    head = Path("PKG-INFO").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    found = dict(re.findall(r"^(Metadata-Version|Name|Version): *(.+)$", head, re.MULTILINE))
    stem = re.sub(r"[-_.]+", "_", found["Name"])
    folder = Path(metadata_directory) / f"{stem}-{found['Version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("".join(f"{k}: {v}\n" for k, v in found.items()) + "\n", encoding="utf-8")
    return folder.name


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Nothing is needed to build nothing."""
    return []


def _install(backend: str) -> None:
    module_name, _, attributes = backend.partition(":")
    stub: Any = types.ModuleType(module_name)
    stub.get_requires_for_build_wheel = get_requires_for_build_wheel
    stub.prepare_metadata_for_build_wheel = prepare_metadata_for_build_wheel
    for part in filter(None, attributes.split(".")):
        setattr(stub, part, stub)
    sys.modules[module_name] = stub


# The second is the name that the protocol's first implementation used.
for _variable in ("_PYPROJECT_HOOKS_BUILD_BACKEND", "PEP517_BUILD_BACKEND"):
    if os.environ.get(_variable):
        _install(os.environ[_variable])
