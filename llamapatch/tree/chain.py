"""The series applied in full order on the pinned tree: the only place where a diff meets a file.

Every hunk must stand at its stated line on its stated text, so the tree after each patch is a function of the series
alone; ``series.lock`` records it. Everything here happens in memory; the caller stores the objects, or does not.
"""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from llamapatch.errors import ConflictError, MismatchError, UsageProblem
from llamapatch.git import Git
from llamapatch.series.load import DIFF_NAME, Patch, Series
from llamapatch.series.lock import chain_value, meta_hash, overlay_hashes, sha256
from llamapatch.series.model import Lock, LockedFile, LockedHunk, LockedPatch, UpstreamPin
from llamapatch.tree.diff import FileDiff, HunkError, anchor, apply_hunks, canonical_diffs, parse_diff
from llamapatch.tree.objects import ABSENT, IDENTITY, Entry, ObjectPool, TreeState

TRAILER_ID = "Llamapatch-Id"
# The date of the synthetic base commit: any constant will do, as long as it never changes.
BASE_EPOCH = calendar.timegm((2000, 1, 1, 0, 0, 0))


@dataclass(frozen=True)
class FileChange:
    """A file before and after one patch; None where it is absent."""

    path: str
    pre: Entry | None
    post: Entry | None


@dataclass(frozen=True)
class Link:
    """One patch in its place in the series: what it changes, where, and the tree and commit that result."""

    patch: Patch
    diffs: tuple[FileDiff, ...]
    files: tuple[FileChange, ...]
    hunks: tuple[LockedHunk, ...]
    tree: str
    commit: str


@dataclass(frozen=True)
class Chain:
    """The first `links` of the series on the pinned tree. `contents` holds every blob that a patch reads or makes."""

    base_tree: str
    base_commit: str
    links: tuple[Link, ...]
    pool: ObjectPool
    contents: dict[str, bytes]
    base: TreeState


def base_commit(pool: ObjectPool, pin: UpstreamPin) -> str:
    """A root commit of upstream's tree. It is made from the pin alone, so that ids do not depend on how upstream was
    obtained (a shallow clone, a squashed import and a tarball carry the same tree under different commits)."""
    message = f"llama.cpp {pin.version}\n\nLlamapatch-Upstream: {pin.tree}\n"
    return pool.commit(pin.tree, None, author=IDENTITY, epoch=BASE_EPOCH, message=message)


def patch_commit(pool: ObjectPool, patch: Patch, tree: str, parent: str) -> str:
    """The commit of one patch: a function of its metadata, its tree and its parent."""
    meta = patch.meta
    trailers = [f"{TRAILER_ID}: {meta.id}", f"Llamapatch-Phase: {meta.phase}"]
    if meta.requires:
        trailers.append(f"Llamapatch-Requires: {', '.join(meta.requires)}")
    trailers.append(f"Llamapatch-Diff: {sha256(patch.diff)}")
    trailers += [f"Co-authored-by: {author}" for author in meta.authors[1:]]
    message = meta.title + "\n\n" + "\n".join(trailers) + "\n"
    midnight = datetime.datetime.combine(meta.date, datetime.time(), datetime.UTC)
    return pool.commit(tree, parent, author=meta.authors[0], epoch=int(midnight.timestamp()), message=message)


def build_chain(git: Git, series: Series, count: int | None = None) -> Chain:
    """Apply the first `count` patches (all by default) on the pinned tree, whose objects `git` must hold.

    Raises `DiffError` for a diff that is not canonical, `HunkError` for one that does not fit to the byte, and
    `ConflictError` for an overlay file whose place is taken.
    """
    patches = series.patches[:count]
    base = TreeState.read(git, series.pin.tree)
    pool = ObjectPool()
    paths = {d.path for p in patches for d in parse_diff(p.diff, str(p.folder / DIFF_NAME))}
    touched = {entry.oid for path in paths if (entry := base.get(path))}
    contents = git.read_blobs(sorted(touched)) if touched else {}
    root = base_commit(pool, series.pin)
    links = apply_patches(patches, base.copy(), pool, contents=contents, parent=root)
    return Chain(series.pin.tree, root, links, pool, contents, base)


def apply_patches(
    patches: Sequence[Patch], state: TreeState, pool: ObjectPool, *, contents: dict[str, bytes], parent: str
) -> tuple[Link, ...]:
    """Apply `patches` to `state`, which becomes the result; `contents` must hold the files that they change, and gets
    those that they make. Errors as for `build_chain`."""
    diffs = [parse_diff(p.diff, str(p.folder / DIFF_NAME)) for p in patches]
    _refuse_edited_overlays(patches, diffs)
    links: list[Link] = []
    for patch, files in zip(patches, diffs, strict=True):
        link = _apply(patch, files, state, pool, contents=contents, parent=parent)
        links.append(link)
        parent = link.commit
    return tuple(links)


def make_lock(chain: Chain, series: Series) -> Lock:
    """``series.lock`` for a chain of the whole series."""
    locked: list[LockedPatch] = []
    previous = series.pin.tree
    for link in chain.links:
        diff, overlay, meta = sha256(link.patch.diff), overlay_hashes(link.patch), meta_hash(link.patch.meta)
        previous = chain_value(previous, diff, overlay, meta)
        locked.append(
            LockedPatch(
                id=link.patch.id,
                diff=diff,
                overlay=overlay,
                meta=meta,
                files=[_locked_file(change) for change in link.files],
                hunks=list(link.hunks),
                tree=link.tree,
                commit=link.commit,
                chain=previous,
            )
        )
    return Lock(schema=1, upstream_tree=chain.base_tree, base_commit=chain.base_commit, patches=locked)


def check_against_lock(chain: Chain, series: Series) -> None:
    """Compare the links of `chain` with ``series.lock``, fact by fact; raises `MismatchError` with both values."""
    lock = series.lock
    if lock is None:
        raise UsageProblem(f"{series.home / 'patches' / 'series.lock'} does not exist.", "Run `llamapatch lock`.")
    if (lock.upstream_tree, lock.base_commit) != (chain.base_tree, chain.base_commit):
        raise _differs("the upstream pin", "tree", lock.upstream_tree, chain.base_tree)
    for number, link in enumerate(chain.links):
        name = f"patch `{link.patch.id}`"
        if number >= len(lock.patches) or lock.patches[number].id != link.patch.id:
            there = lock.patches[number].id if number < len(lock.patches) else "nothing"
            raise _differs(f"place {number + 1} of the series", "patch", there, link.patch.id)
        locked = lock.patches[number]
        facts: list[tuple[str, str, str]] = [
            ("change.patch", locked.diff, sha256(link.patch.diff)),
            ("patch.toml", locked.meta, meta_hash(link.patch.meta)),
        ]
        ours = overlay_hashes(link.patch)
        for path in sorted(ours.keys() | locked.overlay.keys()):
            facts.append((f"overlay {path}", locked.overlay.get(path, "nothing"), ours.get(path, "nothing")))
        pairs = zip(locked.files, map(_locked_file, link.files), strict=False)
        for theirs, mine in pairs:
            facts.append((f"{theirs.path} before", theirs.pre, mine.pre))
            facts.append((f"{theirs.path} after", theirs.post, mine.post))
        facts += [("tree", locked.tree, link.tree), ("commit", locked.commit, link.commit)]
        for what, expected, found in facts:
            if expected != found:
                raise _differs(name, what, expected, found)


def canonical_forms(git: Git, chain: Chain) -> dict[str, bytes]:
    """Patch id -> the bytes that its change.patch should have, for each patch that has another spelling; the trees must
    be stored in `git`."""
    before = [chain.base_tree, *(link.tree for link in chain.links)]
    links = [(link, old) for link, old in zip(chain.links, before, strict=False) if link.diffs]
    made = canonical_diffs(git, [(old, link.tree, {d.path for d in link.diffs}) for link, old in links])
    return {
        link.patch.id: written for (link, _), written in zip(links, made, strict=True) if written != link.patch.diff
    }


def first_difference(ours: bytes, theirs: bytes) -> int:
    """The number of the first line, from 1, in which two texts differ."""
    pairs = zip(ours.split(b"\n"), theirs.split(b"\n"), strict=False)
    return next((i for i, (a, b) in enumerate(pairs, 1) if a != b), ours.count(b"\n") + 1)


def check_canonical(git: Git, chain: Chain) -> None:
    """Raise `UsageProblem` unless every change.patch has the bytes of its canonical form."""
    forms = canonical_forms(git, chain)
    for link in chain.links:
        if link.patch.id in forms:
            line = first_difference(link.patch.diff, forms[link.patch.id])
            raise UsageProblem(
                f"{link.patch.folder / DIFF_NAME}, line {line}: this change has another canonical form.",
                "Run `llamapatch check --fix`, so that one change has one spelling.",
            )


def _apply(
    patch: Patch,
    diffs: Sequence[FileDiff],
    state: TreeState,
    pool: ObjectPool,
    *,
    contents: dict[str, bytes],
    parent: str,
) -> Link:
    name = str(patch.folder / DIFF_NAME)
    changes: dict[str, FileChange] = {}
    hunks: dict[int, list[LockedHunk]] = {}
    # Deletions first: a file may take the place of a folder, or a link that of a file.
    for number, diff in sorted(enumerate(diffs), key=lambda item: not item[1].deleted):
        pre = state.get(diff.path)
        if diff.added and pre is not None:
            raise HunkError(f"{name}: {diff.path} is added, but the tree has it already.", "Make the patch again.")
        if not diff.added and pre is None:
            raise HunkError(f"{name}: {diff.path} is not in the tree.", "Make the patch again.")
        if pre is not None and diff.old_mode not in ("", pre.mode):
            raise HunkError(f"{name}: {diff.path} has mode {pre.mode}, not {diff.old_mode}.", "Make the patch again.")
        old = contents[pre.oid] if pre is not None else b""
        new = apply_hunks(old, diff, name)
        anchors = (anchor(old, hunk) for hunk in diff.hunks)
        hunks[number] = [LockedHunk(path=diff.path, line=line, function=function) for line, function in anchors]
        post: Entry | None = None
        if diff.deleted:
            if new:
                raise HunkError(f"{name}: {diff.path} is deleted, but lines remain.", "Make the patch again.")
            state.remove(diff.path)
        else:
            post = Entry(diff.new_mode or (pre.mode if pre else "100644"), pool.add("blob", new))
            contents[post.oid] = new
            state.set(diff.path, post)
        first = changes.get(diff.path)
        changes[diff.path] = FileChange(diff.path, first.pre if first else pre, post)
    for path, data in sorted(patch.overlay.items()):
        if state.get(path) is not None:
            raise ConflictError(
                f"{patch.folder / 'patch.toml'}: overlay target `{path}` already exists in the tree.",
                "Choose a path of its own (`to`); an overlay never replaces upstream's file.",
            )
        # Always 100644: a wheel does not keep the executable bit, and ids must not depend on how we were installed.
        placed = Entry("100644", pool.add("blob", data))
        contents[placed.oid] = data
        state.set(path, placed)
        changes[path] = FileChange(path, None, placed)
    tree = state.write(pool)
    ordered = tuple(sorted(changes.values(), key=lambda c: c.path.encode()))
    placed_hunks = tuple(hunk for number in range(len(diffs)) for hunk in hunks[number])
    return Link(patch, tuple(diffs), ordered, placed_hunks, tree, patch_commit(pool, patch, tree, parent))


def _refuse_edited_overlays(patches: Sequence[Patch], diffs: Sequence[Sequence[FileDiff]]) -> None:
    owner = {path: p.id for p in patches for path in p.overlay}
    for patch, files in zip(patches, diffs, strict=True):
        for diff in files:
            if diff.path in owner:
                raise UsageProblem(
                    f"{patch.folder / DIFF_NAME} edits `{diff.path}`, an overlay file of `{owner[diff.path]}`.",
                    "Edit its source in ggml_kernels/ instead.",
                )


def _locked_file(change: FileChange) -> LockedFile:
    pre, post = change.pre, change.post
    mode = (post or pre or Entry("100644", ABSENT)).mode
    return LockedFile(path=change.path, mode=mode, pre=pre.oid if pre else ABSENT, post=post.oid if post else ABSENT)


def _differs(whose: str, what: str, expected: str, found: str) -> MismatchError:
    return MismatchError(
        f"{whose}: {what} is not what series.lock says: expected {expected}, found {found}.",
        "If you changed the series, run `llamapatch lock`; if not, its files were damaged.",
    )
