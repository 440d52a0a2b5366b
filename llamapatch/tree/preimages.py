"""``patches/preimages.bundle``: upstream's own version of every file that the series touches, beside the lock.

With it the series can be merged onto any other tree without the pinned one: the old tag may be gone, the clone
shallow, upstream a tarball. It is an ordinary git bundle (``git fetch patches/preimages.bundle``) of one commit, whose
tree holds just those files. Its bytes are a function of their contents alone: the pack is written here, uncompressed
and without deltas, because compressed bytes differ between releases of zlib; git and the wheel compress it themselves.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass

from llamapatch.errors import MismatchError
from llamapatch.series.load import Series
from llamapatch.tree.chain import BASE_EPOCH, Chain, Link, apply_patches
from llamapatch.tree.objects import ABSENT, IDENTITY, PACK_TYPE, Entry, Kind, ObjectPool, TreeState, pack_header

BUNDLE_NAME = "preimages.bundle"
REF = "refs/llamapatch/preimages"
_HEAD = re.compile(rb"# v2 git bundle\n([0-9a-f]{40}) " + REF.encode() + rb"\n\n")
_BLOCK = 0xFFFF
_REMEDY = "Run `llamapatch lock` to write it anew, or restore the file."


@dataclass(frozen=True)
class PreImages:
    """What a bundle holds: the files of upstream's tree that the series touches, and their contents by id."""

    upstream_tree: str
    state: TreeState
    contents: dict[str, bytes]


def make_bundle(chain: Chain) -> bytes:
    """The bundle of a chain of the whole series."""
    pool = ObjectPool()
    state = TreeState.empty()
    for path in sorted({f.path for link in chain.links for f in link.files}):
        entry = chain.base.get(path)
        if entry is not None:
            state.set(path, entry)
            pool.add("blob", chain.contents[entry.oid])
    message = f"Pre-images of llama.cpp\n\nLlamapatch-Upstream: {chain.base_tree}\n"
    commit = pool.commit(state.write(pool), None, author=IDENTITY, epoch=BASE_EPOCH, message=message)
    body = b"PACK" + struct.pack(">II", 2, len(pool.objects))
    for oid in sorted(pool.objects):
        kind, data = pool.objects[oid]
        body += pack_header(kind, len(data)) + _stored(data)
    pack = body + hashlib.sha1(body, usedforsecurity=False).digest()
    return b"# v2 git bundle\n" + f"{commit} {REF}\n\n".encode() + pack


def read_bundle(data: bytes, name: str = BUNDLE_NAME) -> PreImages:
    """What `make_bundle` wrote; raises `MismatchError` for anything else, a single changed bit included."""
    head = _HEAD.match(data)
    pack = data[head.end() :] if head else b""
    if head is None or hashlib.sha1(pack[:-20], usedforsecurity=False).digest() != pack[-20:]:
        raise MismatchError(f"{name} is damaged, or is no bundle of pre-images.", _REMEDY)
    try:
        objects = _unpack(pack)
        tip = objects.get(head[1].decode(), ("blob", b""))
        found = re.fullmatch(
            rb"tree ([0-9a-f]{40})\n(?:.*\n)*?\n(?:.*\n)*?Llamapatch-Upstream: ([0-9a-f]{40})\n", tip[1]
        )
        if found is None:
            raise ValueError("no commit")
        state = TreeState.empty()
        _fill(state, objects, found[1].decode(), "")
        contents = {oid: content for oid, (kind, content) in objects.items() if kind == "blob"}
        if any(entry.oid not in contents for entry in state.files().values()):
            raise ValueError("a blob is missing")
        return PreImages(found[2].decode(), state, contents)
    except (ValueError, KeyError, IndexError, struct.error, zlib.error) as error:
        raise MismatchError(f"{name} is damaged ({error}).", _REMEDY) from error


def links_from(images: PreImages, series: Series) -> tuple[tuple[Link, ...], dict[str, bytes]]:
    """The links of the whole series, and every content that a patch reads or makes, from the pre-images alone. The
    trees and commits of these links are of the touched files only.

    Raises `MismatchError` when the bundle is not of the pinned tree, or not of what the lock says of each file.
    """
    if images.upstream_tree != series.pin.tree:
        raise MismatchError(
            f"{BUNDLE_NAME} was made for tree {images.upstream_tree}, the series is pinned to {series.pin.tree}.",
            _REMEDY,
        )
    for path, (patch_id, expected) in _locked_pre_images(series).items():
        entry = images.state.get(path)
        if (entry.oid if entry else ABSENT) != expected:
            raise MismatchError(
                f"{BUNDLE_NAME}: {path}, which `{patch_id}` changes, is {entry.oid if entry else 'not in it'}; "
                f"series.lock says {expected}.",
                _REMEDY,
            )
    contents = dict(images.contents)
    links = apply_patches(series.patches, images.state.copy(), ObjectPool(), contents=contents, parent=ABSENT)
    return links, contents


def _locked_pre_images(series: Series) -> dict[str, tuple[str, str]]:
    """Path -> (the first patch that touches it, the blob it finds there)."""
    found: dict[str, tuple[str, str]] = {}
    for locked in series.lock.patches if series.lock else ():
        for file in locked.files:
            found.setdefault(file.path, (locked.id, file.pre))
    return found


def _stored(data: bytes) -> bytes:
    """A zlib stream that does not compress: RFC 1950 around stored blocks of RFC 1951."""
    out = [b"\x78\x01"]
    for at in range(0, max(len(data), 1), _BLOCK):
        block = data[at : at + _BLOCK]
        last = at + _BLOCK >= len(data)
        out += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join([*out, struct.pack(">I", zlib.adler32(data))])


def _unpack(pack: bytes) -> dict[str, tuple[Kind, bytes]]:
    signature, version, count = struct.unpack(">4sII", pack[:12])
    if (signature, version) != (b"PACK", 2):
        raise ValueError("no pack")
    names = {number: kind for kind, number in PACK_TYPE.items()}
    pool = ObjectPool()
    at = 12
    for _ in range(count):
        byte = pack[at]
        kind, size, shift = names[byte >> 4 & 7], byte & 15, 4
        while byte & 0x80:
            at += 1
            byte = pack[at]
            size, shift = size | (byte & 0x7F) << shift, shift + 7
        stream = zlib.decompressobj()
        content = stream.decompress(pack[at + 1 : -20], size + 1)
        if len(content) != size or not stream.eof:
            raise ValueError("an object has another size than it says")
        at = len(pack) - 20 - len(stream.unused_data)
        pool.add(kind, content)
    if at != len(pack) - 20:
        raise ValueError("something follows the last object")
    return pool.objects


def _fill(state: TreeState, objects: dict[str, tuple[Kind, bytes]], tree: str, folder: str) -> None:
    kind, data = objects[tree]
    if kind != "tree":
        raise ValueError("no tree")
    while data:
        head, data = data.split(b"\0", 1)
        oid, data = data[:20].hex(), data[20:]
        mode, name = head.split(b" ", 1)
        path = folder + name.decode("utf-8", "surrogateescape")
        if mode == b"40000":
            _fill(state, objects, oid, path + "/")
        else:
            state.set(path, Entry(mode.decode(), oid))
