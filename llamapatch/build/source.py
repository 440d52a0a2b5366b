"""The folder CMake is told to take as the source: a farm of links to a worktree's top-level entries.

Three problems, one small folder (see docs/decisions/link-farm.md):

* CMake reads presets only from the source folder, and the worktree must stay clean;
* compilers see ``../tree/ggml/...`` in every variant's build, so ccache answers for the second variant what it
  compiled for the first;
* the farm has no ``.git``, so upstream's configure step neither depends on an index nor asks git anything.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from llamapatch.errors import DirtyError, UsageProblem

PRESETS = "CMakePresets.json"
# Ours replaces upstream's presets; the rest is not source.
_NOT_LINKED = frozenset({".git", PRESETS, "CMakeUserPresets.json"})
_NOT_SOURCE = frozenset({".git", "__pycache__"})


def link_source(farm: Path, source: Path) -> None:
    """Make `farm` hold one link for each top-level entry of `source`, and nothing else but our presets.

    Raises `UsageProblem` when `source` is no source tree, `DirtyError` when a real file stands where a link should.
    """
    if not (source / "CMakeLists.txt").is_file():
        raise UsageProblem(f"{source} is no llama.cpp tree: it has no CMakeLists.txt.", "Run `llamapatch status`.")
    farm.mkdir(parents=True, exist_ok=True)
    wanted = {e.name: os.path.relpath(e, farm) for e in source.iterdir() if e.name not in _NOT_LINKED}
    have = {}
    for entry in farm.iterdir():
        if entry.is_symlink():
            have[entry.name] = os.fspath(entry.readlink())
        elif entry.name != PRESETS:
            # Editors that save by renaming put a file in place of a link; it may be the only copy of someone's work.
            raise DirtyError(
                f"{entry} is no link into {source}, so its content is not part of the tree.",
                f"Move it to {source / entry.name} (or delete it) and try again.",
            )
    for name, target in have.items():
        if wanted.get(name) != target:
            (farm / name).unlink()
    for name, target in wanted.items():
        if have.get(name) != target:
            (farm / name).symlink_to(target)


def file_list_hash(source: Path) -> str:
    """A hash of the paths, not the contents, of every file below `source`.

    Upstream's build globs its sources without ``CONFIGURE_DEPENDS``; when this hash changes, CMake must look again.
    """
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(f for f in folders if f not in _NOT_SOURCE)
        where = os.path.relpath(folder, source)
        for name in sorted(files):
            digest.update(os.fsencode(f"{where}/{name}") + b"\0")
    return digest.hexdigest()
