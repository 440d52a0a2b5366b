from __future__ import annotations

import contextlib
import struct
import tempfile
import time
from functools import lru_cache
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamapatch.errors import UsageProblem
from llamapatch.models.gguf_file import describe, read_gguf


def write_toy(path: Path) -> Path:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("toy")
    writer.add_block_count(3)
    writer.add_float32("toy.float", 0.5)
    writer.add_bool("toy.bool", True)
    writer.add_array("toy.numbers", [1, 2, 3])
    writer.add_token_list(["a", "é", "c"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    matrix = np.arange(64 * 32, dtype=np.float32).reshape(64, 32) / 100
    writer.add_tensor("f32", matrix)
    writer.add_tensor("f16", matrix.astype(np.float16))
    writer.add_tensor(
        "q8_0", gguf.quants.quantize(matrix, gguf.GGMLQuantizationType.Q8_0), raw_dtype=gguf.GGMLQuantizationType.Q8_0
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@lru_cache(maxsize=1)
def toy_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_toy(Path(folder) / "toy.gguf").read_bytes()


def test_everything_is_read_back(tmp_path: Path) -> None:
    file = read_gguf(write_toy(tmp_path / "toy.gguf"))
    assert file.version == 3
    assert file.get("general.name") == "toy"
    assert file.need("llama.block_count") == 3
    assert (file.get("toy.float"), file.get("toy.bool"), file.get("toy.numbers")) == (0.5, True, [1, 2, 3])
    assert file.get("tokenizer.ggml.tokens") == ["a", "é", "c"]
    assert file.get("absent", 7) == 7
    assert [(t.name, t.shape, t.type_name) for t in file.tensors.values()] == [
        ("f32", (64, 32), "F32"),
        ("f16", (64, 32), "F16"),
        ("q8_0", (64, 32), "Q8_0"),
    ]
    matrix = np.arange(64 * 32, dtype=np.float32).reshape(64, 32) / 100
    assert np.array_equal(file.array("f32"), matrix)
    assert np.array_equal(file.array("f16"), matrix.astype(np.float16).astype(np.float32))
    assert np.abs(file.array("q8_0") - matrix).max() < 0.1
    with pytest.raises(UsageProblem, match=r"has no `llama\.context_length`"):
        file.need("llama.context_length")


def test_describe(tmp_path: Path) -> None:
    facts = describe(write_toy(tmp_path / "toy.gguf"))
    assert facts["architecture"] == "llama"
    assert facts["file_type"] == "F16"
    assert facts["n_params"] == 3 * 64 * 32
    assert facts["tensor_types"] == {"F16": 1, "F32": 1, "Q8_0": 1}
    assert facts["shape"] == {"n_layer": 3}
    assert facts["n_vocab"] == 3


def header(n_tensors: int, n_fields: int, body: bytes, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_fields) + body


def array_field(key: bytes, item_type: int, count: int) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, item_type, count)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "too short"),
        (b"GGUF", "too short"),
        (b"#include <stdio.h>\nint main() {}\n", "starts with"),
        (header(0, 0, b"", version=1), "version is 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (header(0, 1 << 40, b""), "counts"),
        (header(1 << 40, 0, b""), "counts"),
        (header(0, 1, struct.pack("<Q", 1 << 50) + bytes(32)), "string reaches past"),
        (header(0, 1, array_field(b"k", 0, 1 << 60)), "array `k` reaches past"),
        (header(0, 1, array_field(b"k", 9, 1) + bytes(32)), "array of arrays"),
        (header(0, 1, array_field(b"k", 77, 1) + bytes(32)), "unknown value type 77"),
        (header(0, 1, array_field(b"\xff\xfe", 77, 1) + bytes(32)), "unknown value type 77"),
    ],
)
def test_damage_is_named_at_once(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    started = time.monotonic()
    with pytest.raises(UsageProblem, match="no usable GGUF") as caught:
        read_gguf(path)
    assert says in str(caught.value)
    str(caught.value).encode()
    assert time.monotonic() - started < 1


def test_no_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="there is no file"):
        read_gguf(tmp_path / "nothing.gguf")
    with pytest.raises(UsageProblem, match="is a folder"):
        read_gguf(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = toy_bytes()
    path = tmp_path / "cut.gguf"
    # The last tensor's padding may be missing; anything before it may not.
    for length in [*range(0, 900), *range(900, len(data) - 32, 97)]:
        path.write_bytes(data[:length])
        with pytest.raises(UsageProblem):
            read_gguf(path)


@settings(max_examples=300, deadline=2000)
@given(st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage_is_a_usage_problem_or_harmless(hits: list[tuple[int, int]]) -> None:
    data = bytearray(toy_bytes())
    for at, value in hits:
        data[at % len(data)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hit.gguf"
        path.write_bytes(bytes(data))
        with contextlib.suppress(UsageProblem):
            repr(describe(path)).encode()
