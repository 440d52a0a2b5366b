"""``GIT binary patch``: how a file that is no text stands in a diff.

The format is git's: content deflated, then base85 in lines of at most 52 bytes, each led by its length. What deflate
makes of a content differs between versions of zlib, so what we write uses stored blocks only (RFC 1951, 3.2.4): the
bytes are then a function of the content. What others wrote is read with zlib, deltas included.
"""

from __future__ import annotations

import base64
import struct
import zlib

# Far above anything that belongs into a patch, far below what fills memory.
MAX_BYTES = 64 << 20
_LINE = 52
_BLOCK = 65535
# Letters that stand for lengths 1 to 52.
_LENGTHS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class BinaryError(ValueError):
    """The text is no binary patch, or a damaged one."""


def encode_literal(data: bytes) -> bytes:
    """A ``literal`` block, with the empty line that ends it."""
    packed = deflate_stored(data)
    lines = []
    for at in range(0, len(packed), _LINE):
        piece = packed[at : at + _LINE]
        padded = piece + bytes(-len(piece) % 4)
        lines.append(_LENGTHS[len(piece) - 1 : len(piece)] + base64.b85encode(padded) + b"\n")
    return b"literal %d\n" % len(data) + b"".join(lines) + b"\n"


def deflate_stored(data: bytes) -> bytes:
    """`data` as a zlib stream (RFC 1950) that compresses nothing."""
    blocks = [data[at : at + _BLOCK] for at in range(0, len(data), _BLOCK)] or [b""]
    body = b"".join(
        struct.pack("<BHH", at == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for at, block in enumerate(blocks)
    )
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(data))


def decode_block(head: bytes, lines: list[bytes]) -> tuple[bytes, bool]:
    """The content of one block, and whether it is a delta: `head` is ``literal N`` or ``delta N``, `lines` what follows
    up to the empty line. Raises `BinaryError`."""
    kind, _, number = head.partition(b" ")
    if kind not in (b"literal", b"delta") or not number.isdigit() or len(number) > 10:
        raise BinaryError("expected `literal SIZE` or `delta SIZE`")
    size = int(number)
    if size > MAX_BYTES:
        raise BinaryError(f"{size} bytes are more than the {MAX_BYTES} that a patch may hold")
    packed = b"".join(_decode_line(line) for line in lines)
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(packed, size + 1)
    except zlib.error as error:
        raise BinaryError(f"the data cannot be inflated ({error})") from error
    if len(data) != size or not inflate.eof or inflate.unused_data:
        raise BinaryError(f"the data do not inflate to {size} bytes")
    return data, kind == b"delta"


def apply_delta(base: bytes, delta: bytes) -> bytes:
    """What git's delta makes of `base` (git's pack format); raises `BinaryError`."""
    source, at = _varint(delta, 0)
    target, at = _varint(delta, at)
    if source != len(base):
        raise BinaryError(f"the delta is for a file of {source} bytes, this one has {len(base)}")
    if target > MAX_BYTES:
        raise BinaryError(f"{target} bytes are more than the {MAX_BYTES} that a patch may hold")
    out = bytearray()
    while at < len(delta):
        op = delta[at]
        at += 1
        if op & 0x80:
            fields = []
            for bit in range(7):
                fields.append(delta[at] if op >> bit & 1 and at < len(delta) else 0)
                at += op >> bit & 1
            start = int.from_bytes(bytes(fields[:4]), "little")
            count = int.from_bytes(bytes(fields[4:]), "little") or 0x10000
            if start + count > len(base):
                raise BinaryError("the delta copies from beyond the file")
            out += base[start : start + count]
        elif op:
            out += delta[at : at + op]
            at += op
        else:
            raise BinaryError("the delta holds an unknown instruction")
        if at > len(delta) or len(out) > target:
            raise BinaryError("the delta does not end where it says")
    if len(out) != target:
        raise BinaryError("the delta does not end where it says")
    return bytes(out)


def _decode_line(line: bytes) -> bytes:
    length = _LENGTHS.find(line[:1]) + 1 if line else 0
    try:
        data = base64.b85decode(line[1:])
    except ValueError as error:
        raise BinaryError(f"a line of the data is damaged ({error})") from error
    if not length or len(data) != (length + 3) // 4 * 4:
        raise BinaryError("a line of the data is not as long as it says")
    return data[:length]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 56:
            raise BinaryError("the delta has no size")
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
