"""Is the series in order? Every patch written again and compared to the byte; lint, lock and pre-images.

Without `fix` nothing is written but objects. With it, a ``change.patch`` in any other spelling (git's own ``index``
lines, text after the second ``@@``, files in another order) is rewritten, and the lock with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from llamapatch.config import Settings
from llamapatch.errors import ConflictError, MismatchError
from llamapatch.files import read_or_none
from llamapatch.series.load import DIFF_NAME, Patch, Series, load_series
from llamapatch.series.lock import lock_chain, series_chain
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import build_chain, canonical_forms, first_difference
from llamapatch.tree.diff import canonical_diff, parse_diff, split_lines
from llamapatch.tree.exchange.fit import changes_of
from llamapatch.tree.exchange.foreign import ForeignError, read_files
from llamapatch.tree.exchange.incoming import Incoming
from llamapatch.tree.objects import Entry, ObjectPool, TreeState
from llamapatch.tree.relock import generated_files
from llamapatch.tree.store import Report, Store, open_store, writing
from llamapatch.tree.thread import put_all
from llamapatch.tree.write import write_series


@dataclass(frozen=True)
class Checked:
    """A series in order: `chain` names it; `fixed` are the files that were, or with `dry_run` would be, written."""

    chain: str
    patches: int
    fixed: tuple[str, ...]


def check(
    settings: Settings, series: Series, *, fix: bool = False, dry_run: bool = False, report: Report | None = None
) -> Checked:
    """Check everything that git, the lock and the pre-images can say about the files of the series.

    Raises `MismatchError` that names every file that is not what it should be (unless `fix`), and what `build_chain`
    raises for a patch that does not fit.
    """
    with writing(settings):
        store = open_store(settings, series, report)
        if fix:
            return _fix(settings, series, store, dry_run)
        chain = build_chain(store.git, series)
        chain.pool.store(store.git)
        forms = canonical_forms(store.git, chain)
        wrong = [
            f"{patch.folder / DIFF_NAME}, line {first_difference(patch.diff, forms[patch.id])}: not the canonical form"
            for patch in series.patches
            if patch.id in forms
        ]
        if not wrong:
            for name, data in generated_files(store, series).items():
                if read_or_none(settings.home / name) != data:
                    wrong.append(f"{settings.home / name}: not what the series makes")
    if wrong:
        raise MismatchError(
            "; ".join(wrong) + ".",
            "Run `llamapatch check --fix`." if forms else "Run `llamapatch lock` and commit the file.",
        )
    return Checked(lock_chain(series.lock) if series.lock else series_chain(series), len(series.patches), ())


def _fix(settings: Settings, series: Series, store: Store, dry_run: bool) -> Checked:
    state = TreeState.read(store.git, series.pin.tree)
    blobs = Blobs(store.git, ObjectPool())
    files: dict[str, bytes | None] = {}
    for patch in series.patches:
        written = _rewritten(patch, state, blobs, store)
        if written != patch.diff:
            files[(patch.folder / DIFF_NAME).relative_to(settings.home).as_posix()] = written
        for path, data in patch.overlay.items():
            state.set(path, Entry("100644", blobs.add(data)))
    changed = load_series(settings, files)
    generated = generated_files(store, changed)
    files |= {name: data for name, data in generated.items() if read_or_none(settings.home / name) != data}
    if files and not dry_run:
        write_series(settings, files, "check --fix", read=series.read)
    return Checked(series_chain(changed), len(series.patches), tuple(files))


def _rewritten(patch: Patch, state: TreeState, blobs: Blobs, store: Store) -> bytes:
    """The canonical form of a change.patch in any spelling; `state` moves on by it."""
    name = str(patch.folder / DIFF_NAME)
    lines = split_lines(patch.diff)
    files, end = read_files(lines, 0, name)
    if end < len(lines):
        parse_diff(patch.diff, name)  # which says what is wrong
        raise ForeignError(f"{name}, line {end + 1}: this is no part of a diff.", "Take it out.")
    before = state.write(blobs.pool)
    changes = changes_of(Incoming(name, files=tuple(files), strip=1), state, blobs)
    for change in changes:
        if state.get(change.path) != change.pre:
            raise ConflictError(f"{name}: {change.path} was made for another tree.", "Import it: it is merged then.")
    put_all(state, changes)
    after = state.write(blobs.pool)
    blobs.pool.store(store.git)
    return canonical_diff(store.git, before, after)
