"""Read a GGUF file with every length checked against the file's end.

The `gguf` package's reader trusts the counts it finds: a damaged array length makes it loop for ages over nothing. What
a user hands to `--model` may be cut off, half downloaded or no GGUF at all, so this reader answers each of those with
one `UsageProblem`. It also keeps value types, so that a vocabulary can be copied into another file unchanged.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (little-endian, versions 2 and 3).
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from llamapatch.errors import UsageProblem

_SCALARS = {
    gguf.GGUFValueType.UINT8: "B",
    gguf.GGUFValueType.INT8: "b",
    gguf.GGUFValueType.UINT16: "H",
    gguf.GGUFValueType.INT16: "h",
    gguf.GGUFValueType.UINT32: "I",
    gguf.GGUFValueType.INT32: "i",
    gguf.GGUFValueType.FLOAT32: "f",
    gguf.GGUFValueType.BOOL: "?",
    gguf.GGUFValueType.UINT64: "Q",
    gguf.GGUFValueType.INT64: "q",
    gguf.GGUFValueType.FLOAT64: "d",
}
_MAX_DIMS = 4


@dataclass(frozen=True)
class GgufField:
    """One key's value; `sub_type` is the element type of an array."""

    type: gguf.GGUFValueType
    sub_type: gguf.GGUFValueType | None
    value: Any


@dataclass(frozen=True)
class GgufTensor:
    """One tensor's place: `shape` is (rows, columns), `type_id` ggml's number, `offset` from the file's start.

    `nbytes` is None for a type that the installed `gguf` package does not know.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    nbytes: int | None

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def type_name(self) -> str:
        try:
            return str(gguf.GGMLQuantizationType(self.type_id).name)
        except ValueError:
            return f"type {self.type_id}"


@dataclass(frozen=True)
class GgufFile:
    """A parsed header; weights stay on disk until `array` asks for them."""

    path: Path
    version: int
    size: int
    fields: dict[str, GgufField] = field(repr=False)
    tensors: dict[str, GgufTensor] = field(repr=False)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        found = self.fields.get(key)
        return default if found is None else found.value

    def need(self, key: str) -> Any:
        """The value of `key`; a file without it is refused."""
        if key not in self.fields:
            raise UsageProblem(f"{self.path} has no `{key}`.", "Give a complete model.")
        return self.fields[key].value

    @property
    def n_params(self) -> int:
        return sum(t.n_elements for t in self.tensors.values())

    def array(self, name: str) -> npt.NDArray[np.float32]:
        """The weights of `name` as float32, dequantised where needed."""
        tensor = self.tensors[name]
        try:
            kind = gguf.GGMLQuantizationType(tensor.type_id)
            assert tensor.nbytes is not None
            with self.path.open("rb") as stream:
                stream.seek(tensor.offset)
                raw = np.frombuffer(stream.read(tensor.nbytes), dtype=np.uint8)
            plain = {gguf.GGMLQuantizationType.F32: "<f4", gguf.GGMLQuantizationType.F16: "<f2"}
            if kind in plain:
                return raw.view(plain[kind]).reshape(tensor.shape).astype(np.float32)
            rows = raw.reshape(*tensor.shape[:-1], -1)
            return np.asarray(gguf.quants.dequantize(rows, kind), dtype=np.float32).reshape(tensor.shape)
        except (ValueError, NotImplementedError) as error:
            raise UsageProblem(
                f"{self.path}: tensor {name} is stored as {tensor.type_name}, which cannot be read here.",
                "Give an F16, F32 or commonly quantised file.",
            ) from error


def read_gguf(path: Path) -> GgufFile:
    """Parse the header of `path`; `UsageProblem` when it is missing, cut off or no GGUF."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            if size < 24:
                raise _DamagedError("it is too short")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(path, data, size)
    except _DamagedError as error:
        raise UsageProblem(
            f"{path} is no usable GGUF file: {_plain(str(error))}.",
            "Give a GGUF model, or download or convert it again.",
        ) from error
    except FileNotFoundError as error:
        raise UsageProblem(f"there is no file {path}.", "Give the path of a GGUF model.") from error
    except IsADirectoryError as error:
        raise UsageProblem(f"{path} is a folder.", "Give the path of a GGUF model.") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """What a GGUF is, for people and for `--json`: hash, architecture, sizes, tensor types."""
    model = read_gguf(path)
    arch = _plain(str(model.get("general.architecture", "")))
    tokens = model.get("tokenizer.ggml.tokens")
    types: dict[str, int] = {}
    for tensor in model.tensors.values():
        types[tensor.type_name] = types.get(tensor.type_name, 0) + 1
    shape = {
        "n_ctx": "context_length",
        "n_embd": "embedding_length",
        "n_layer": "block_count",
        "n_head": "attention.head_count",
        "n_head_kv": "attention.head_count_kv",
        "n_ff": "feed_forward_length",
        "n_expert": "expert_count",
        "n_expert_used": "expert_used_count",
    }
    found = {short: model.get(f"{arch}.{key}") for short, key in shape.items()}
    return {
        "path": str(path),
        "sha256": sha256_of(path),
        "bytes": model.size,
        "gguf_version": model.version,
        "name": _plain(str(model.get("general.name", ""))) or None,
        "architecture": arch or None,
        "file_type": _file_type(model.get("general.file_type")),
        "n_params": model.n_params,
        "n_vocab": len(tokens) if isinstance(tokens, list) else 0,
        "tokenizer": model.get("tokenizer.ggml.model"),
        "tensors": len(model.tensors),
        "tensor_types": dict(sorted(types.items())),
        "shape": {k: v for k, v in found.items() if v is not None},
    }


def _plain(text: str) -> str:
    """Text that any stream can print: broken UTF-8, kept by `_Cursor.text`, becomes replacement characters."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _DamagedError(Exception):
    """The bytes are not what the format promises."""


@dataclass
class _Cursor:
    data: mmap.mmap
    size: int
    at: int = 0

    def unpack(self, code: str, count: int = 1) -> tuple[Any, ...]:
        layout = f"<{count}{code}"
        end = self.at + struct.calcsize(f"<{code}") * count
        if end > self.size:
            raise _DamagedError("it ends in the middle of its header")
        values = struct.unpack(layout, self.data[self.at : end])
        self.at = end
        return values

    def number(self, code: str) -> int:
        return int(self.unpack(code)[0])

    def text(self) -> str:
        length = self.number("Q")
        if length > self.size - self.at:
            raise _DamagedError("a string reaches past its end")
        raw = self.data[self.at : self.at + length]
        self.at += length
        # Vocabularies of older converters hold broken UTF-8; upstream reads them as bytes, so they must not stop us.
        return raw.decode("utf-8", "surrogateescape")


def _parse(path: Path, data: mmap.mmap, size: int) -> GgufFile:
    if data[:4] != b"GGUF":
        raise _DamagedError(f"it starts with {bytes(data[:4])!r} where `GGUF` belongs")
    cursor = _Cursor(data, size, 4)
    version = cursor.number("I")
    if version not in (2, 3):
        swapped = version & 0xFFFF == 0 and version != 0
        raise _DamagedError("it is big-endian" if swapped else f"its version is {version}; 2 and 3 are known")
    n_tensors, n_fields = cursor.number("Q"), cursor.number("Q")
    # The smallest field takes 13 bytes, the smallest tensor entry 24: larger counts are damage, not patience.
    if n_fields > size // 13 or n_tensors > size // 24:
        raise _DamagedError("its counts are larger than the file")
    fields: dict[str, GgufField] = {}
    for _ in range(n_fields):
        key = cursor.text()
        fields[key] = _field(cursor, key)
    infos = [_tensor_info(cursor) for _ in range(n_tensors)]
    alignment = fields["general.alignment"].value if "general.alignment" in fields else gguf.GGUF_DEFAULT_ALIGNMENT
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _DamagedError(f"its alignment {alignment!r} is no power of two")
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, shape, type_id, offset in infos:
        nbytes = _byte_size(name, shape, type_id)
        if start + offset + (nbytes or 0) > size:
            raise _DamagedError(f"tensor {name} reaches past its end (cut off?)")
        tensors[name] = GgufTensor(name, shape, type_id, start + offset, nbytes)
    return GgufFile(path, version, size, fields, tensors)


def _field(cursor: _Cursor, key: str) -> GgufField:
    kind = _value_type(cursor, key)
    if kind != gguf.GGUFValueType.ARRAY:
        return GgufField(kind, None, _scalar(cursor, kind))
    sub = _value_type(cursor, key)
    count = cursor.number("Q")
    if count > cursor.size - cursor.at:
        raise _DamagedError(f"the array `{key}` reaches past its end")
    if sub == gguf.GGUFValueType.STRING:
        return GgufField(kind, sub, [cursor.text() for _ in range(count)])
    if sub == gguf.GGUFValueType.ARRAY:
        raise _DamagedError(f"`{key}` is an array of arrays, which upstream does not read either")
    return GgufField(kind, sub, list(cursor.unpack(_SCALARS[sub], count)))


def _scalar(cursor: _Cursor, kind: gguf.GGUFValueType) -> Any:
    return cursor.text() if kind == gguf.GGUFValueType.STRING else cursor.unpack(_SCALARS[kind])[0]


def _value_type(cursor: _Cursor, key: str) -> gguf.GGUFValueType:
    number = cursor.number("I")
    try:
        return gguf.GGUFValueType(number)
    except ValueError as error:
        raise _DamagedError(f"`{key}` has the unknown value type {number}") from error


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.text()
    n_dims = cursor.number("I")
    if n_dims > _MAX_DIMS:
        raise _DamagedError(f"tensor {name} has {n_dims} dimensions")
    dims = cursor.unpack("Q", n_dims)
    return name, tuple(reversed(dims)), cursor.number("I"), cursor.number("Q")


def _byte_size(name: str, shape: tuple[int, ...], type_id: int) -> int | None:
    try:
        block, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(type_id)]
    except (ValueError, KeyError):
        return None
    if shape and shape[-1] % block:
        raise _DamagedError(f"tensor {name} has rows of {shape[-1]}, no multiple of its block of {block}")
    return math.prod(shape) // block * nbytes


def _file_type(number: int | None) -> str | None:
    if number is None:
        return None
    try:
        return str(gguf.LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_"))
    except ValueError:
        return f"type {number}"
