"""Sizes of the buffers that llama.cpp allocates, as its own log names them (``-lv 4`` and above)."""

from __future__ import annotations

import re

# e.g. "load_tensors:   CPU_Mapped model buffer size =     9.51 MiB", "llama_kv_cache:   CPU KV buffer size = 1.50 MiB"
_LINE = re.compile(r":\s+(\S+)\s+(model|KV|compute|output|RS)\s+buffer size\s+=\s+([0-9.]+) MiB")
KINDS = ("model", "KV", "compute", "output", "RS")


def buffer_sizes(log: str) -> dict[str, dict[str, float]]:
    """MiB by kind ("model", "KV", "compute", ...) and buffer type ("CPU", "CUDA0", "AMX").

    A buffer that is reported again (a context re-reserved) counts with its last size; the same type's model buffers
    are summed, since a split model reports one for each file.
    """
    sizes: dict[str, dict[str, float]] = {}
    for where, kind, mib in _LINE.findall(log):
        of_kind = sizes.setdefault(kind, {})
        of_kind[where] = float(mib) + (of_kind.get(where, 0.0) if kind == "model" else 0.0)
    return sizes
