"""The part of an export that lets ``import`` restore a patch to the byte: its ``patch.toml`` and ``README.md``.

It stands between the line ``---`` and the diff, where git am, quilt and patch look at nothing. Each line begins with
``| ``, so that no reader can take it for the start of a diff::

    ---
    llamapatch import reads the lines that begin with a bar.
    |== patch.toml
    | schema = 1
    ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_INTRODUCTION = b"llamapatch import reads the lines that begin with a bar.\n"
_HEAD = b"|== "
_NO_NEWLINE = b"|-- no newline at the end\n"
NAMES = ("patch.toml", "README.md")


def write_carried(files: Mapping[str, bytes]) -> bytes:
    """The block for `files`, by name; carriage returns stay as they are."""
    out = [_INTRODUCTION]
    for name, data in files.items():
        out.append(_HEAD + name.encode() + b"\n")
        lines = data.split(b"\n")
        out += [b"| " + line + b"\n" if line else b"|\n" for line in lines[:-1]]
        if lines[-1]:
            out += [b"| " + lines[-1] + b"\n", _NO_NEWLINE]
    return b"".join(out)


def read_carried(lines: Sequence[bytes]) -> dict[str, bytes]:
    """What a block among `lines` carries; empty when there is none. Names that we never write are ignored."""
    if _INTRODUCTION not in lines:
        return {}
    found: dict[str, bytes] = {}
    name = ""
    for line in lines[lines.index(_INTRODUCTION) + 1 :]:
        if line.startswith(_HEAD):
            name = line[len(_HEAD) :].strip().decode("utf-8", "replace")
            found[name] = b""
        elif line == _NO_NEWLINE and name:
            found[name] = found[name].removesuffix(b"\n")
        elif line.startswith(b"|") and name:
            found[name] += line[2:] if line.startswith(b"| ") else line[1:]
        else:
            break
    return {name: data for name, data in found.items() if name in NAMES}
