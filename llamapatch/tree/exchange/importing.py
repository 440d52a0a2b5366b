"""Make patches of the series out of what a source holds: fitted onto the pinned tree, all of them or none.

Every patch is carried onto the tree at its place in the series; patches that stand behind it are re-threaded. The new
series is then read, linted and locked in memory before anything is written.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tomlkit
from pydantic import ValidationError
from tomlkit.exceptions import TOMLKitError

from llamapatch.config import Settings
from llamapatch.errors import ConflictError, InternalError, LlamapatchError, UsageProblem
from llamapatch.series.load import DIFF_NAME, META_NAME, README_NAME, SERIES_NAME, Series, load_series
from llamapatch.series.model import Forwarding, Overlay, PatchMeta, check_tree_path
from llamapatch.series.order import insert_id
from llamapatch.series.template import NewPatch, id_from, render_patch, today
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import FileChange, build_chain, check_against_lock
from llamapatch.tree.diff import diff_trees, format_diff
from llamapatch.tree.exchange.fit import changes_of
from llamapatch.tree.exchange.fork import Fork
from llamapatch.tree.exchange.incoming import Incoming, NotTaken
from llamapatch.tree.graph import infer
from llamapatch.tree.objects import TreeState
from llamapatch.tree.relock import generated_files
from llamapatch.tree.store import Report, Store, open_store, writing
from llamapatch.tree.thread import STOPS, Change, PatchOutcome, Status, change_of, put_all, rethread
from llamapatch.tree.write import write_series

# Whose work an import is when its source does not say.
_NOBODY = "unknown <unknown@localhost>"


@dataclass(frozen=True)
class Wishes:
    """How the user wants it. `phase` may be new when `phase_title` names it; `overlay` are pairs (glob, folder of
    ``ggml_kernels/``); `accept` are ids whose relocation is agreed to."""

    phase: str = ""
    phase_title: str = ""
    before: str = ""
    after: str = ""
    id: str = ""
    title: str = ""
    reason: str = ""
    effect: str = "lossy"
    requires: tuple[str, ...] = ()
    overlay: tuple[tuple[str, str], ...] = ()
    keep_going: bool = False
    accept: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Row:
    """What became of one item of the source, or of a patch that stood behind an imported one.

    `status` is one of `Status`, ``skipped`` or ``re-threaded``; `id` is empty for what became no patch.
    """

    origin: str
    id: str
    status: str
    why: str
    taken: bool


@dataclass(frozen=True)
class Import:
    """What an import does: a row for each item, the ids that it adds, the files to write, and how the result of a fork
    compares with its branch. There are no files when something did not fit and the user did not ask to go on."""

    rows: tuple[Row, ...]
    ids: tuple[str, ...]
    files: Mapping[str, bytes | None]
    conflict: bool
    note: str = ""


@dataclass
class _Item:
    """An incoming patch, and what became of it."""

    incoming: Incoming
    id: str
    phase: str
    meta: PatchMeta | None
    change: Change | None = None
    outcome: PatchOutcome | None = None
    status: str = ""
    why: str = ""

    @property
    def taken(self) -> bool:
        """Whether it becomes a patch."""
        return self.outcome is not None and self.outcome.carried and self.outcome.before != self.outcome.after


def plan_import(settings: Settings, series: Series, store: Store, fork: Fork, wishes: Wishes) -> Import:
    """Everything but the writing. Raises `UsageProblem` for wishes that cannot be granted."""
    return _Importer(settings, series, store, wishes).run(fork)


def import_patches(
    settings: Settings,
    series: Series,
    fork: Fork,
    wishes: Wishes,
    *,
    dry_run: bool = False,
    report: Report | None = None,
) -> Import:
    """`plan_import`, and write what it plans, all or nothing."""
    with writing(settings):
        found = plan_import(settings, series, open_store(settings, series, report), fork, wishes)
        if found.files and not dry_run:
            write_series(settings, found.files, f"import {' '.join(found.ids)}", read=series.read)
    return found


class _Importer:
    def __init__(self, settings: Settings, series: Series, store: Store, wishes: Wishes) -> None:
        self.settings, self.series, self.store, self.wishes = settings, series, store, wishes
        self.chain = build_chain(store.git, series)
        check_against_lock(self.chain, series)
        self.blobs = Blobs(store.git, self.chain.pool, self.chain.contents)
        self.text = (settings.patches / SERIES_NAME).read_bytes().decode("utf-8")
        # Patches of the series that stand behind an imported one: id -> what became of them.
        self.moved: dict[str, PatchOutcome] = {}

    def run(self, fork: Fork) -> Import:
        entries: list[_Item | NotTaken] = [
            entry if isinstance(entry, NotTaken) else _Item(entry, "", "", _meta_of(entry)) for entry in fork.found
        ]
        items = [entry for entry in entries if isinstance(entry, _Item)]
        self._name(items, entries)
        state = self._thread(items)
        note = ""
        if fork.net is not None and all(item.taken or item.status not in STOPS for item in items):
            note, rest = self._compare(fork.net, items, state)
            if rest is not None:
                items.append(rest)
                entries.append(rest)
        rows = [self._row(entry) for entry in entries]
        for patch_id, outcome in self.moved.items():
            lost = not outcome.carried or outcome.before == outcome.after
            if lost or outcome.status is not Status.EXACT:
                status, why = (str(outcome.status), outcome.why) if lost else ("re-threaded", outcome.why)
                why = f"stands behind an imported patch and no longer fits: {why}" if lost else why
                rows.append(Row("the series", patch_id, status if not lost else str(Status.CONFLICT), why, not lost))
        conflict = any(row.status in STOPS and not row.taken for row in rows)
        spoiled = any(row.origin == "the series" and not row.taken for row in rows)
        ids = tuple(item.id for item in items if item.taken)
        write = ids and not spoiled and (not conflict or self.wishes.keep_going)
        return Import(tuple(rows), ids, self._files(items) if write else {}, conflict, note)

    # Names and places

    def _name(self, items: Sequence[_Item], entries: Sequence[_Item | NotTaken]) -> None:
        """Give each patch an id that is free, and a phase."""
        wishes = self.wishes
        if not items:
            why = "; ".join(f"{e.origin}: {e.why}" for e in entries if isinstance(e, NotTaken))
            raise UsageProblem(f"there is no patch in the source{f' ({why})' if why else ''}.", "Name another one.")
        if (wishes.id or wishes.title) and len(items) > 1:
            raise UsageProblem("--id and --title are for one patch, but the source holds several.", "Leave them out.")
        for other in wishes.requires:
            self.series.get(other)  # raises for one that is not there
        for _, folder in wishes.overlay:
            try:
                check_tree_path(folder)
            except ValueError as error:
                raise UsageProblem(f"--overlay: `{folder}` {error}.", "Name a folder below ggml_kernels/.") from None
        phases = [phase.id for phase in self.series.file.phase]
        taken = {*self.series.ids, *phases}
        for item in items:
            meta = item.meta
            item.id = wishes.id or (
                meta.id if meta and meta.id not in taken else id_from(wishes.title or item.incoming.title, taken)
            )
            if item.id in taken:
                raise UsageProblem(f"`{item.id}` is taken.", "Choose another id; see `llamapatch list`.")
            taken.add(item.id)
            item.phase = wishes.phase or (meta.phase if meta else "")
            if not item.phase and not wishes.before and not wishes.after:
                raise UsageProblem(
                    "no phase is named.", f"Give `--phase` ({', '.join(phases)}, or a new one with `--phase-title`)."
                )
        self._ordered(items)  # raises for a place that does not exist

    def _ordered(self, items: Sequence[_Item]) -> str:
        """``series.toml`` with `items` in their places."""
        text, wishes = self.text, self.wishes
        after = wishes.after
        known = [phase.id for phase in self.series.file.phase]
        for number, item in enumerate(items):
            beside = bool(wishes.before or after)
            title = wishes.phase_title or ("" if wishes.phase else item.phase.replace("-", " ").capitalize())
            # A phase that an export of ours brings stands before those that follow it there.
            later = [i.phase for i in items[number:] if i.phase in known]
            text = insert_id(
                text,
                item.id,
                phase="" if beside else item.phase,
                before=wishes.before,
                after=after,
                title=title,
                ahead_of="" if wishes.phase else next(iter(later), ""),
            )
            after = item.id if after else ""
        return text

    # Trees

    def _thread(self, items: Sequence[_Item]) -> TreeState:
        """Carry everything in the new order; returns the tree at its end."""
        by_id = {item.id: item for item in items}
        links = {link.patch.id: link for link in self.chain.links}
        state = self.chain.base.copy()
        pristine = True
        for patch_id in _ids(self._ordered(items)):
            if patch_id in by_id:
                self._carry(by_id[patch_id], state)
                pristine = pristine and not by_id[patch_id].taken
            elif pristine:
                put_all(state, links[patch_id].files)
            else:
                self.moved[patch_id] = rethread([change_of(links[patch_id])], state, self.blobs)[0]
        return state

    def _carry(self, item: _Item, state: TreeState) -> None:
        try:
            files = changes_of(item.incoming, state, self.blobs)
        except LlamapatchError as error:
            item.status, item.why = str(Status.CONFLICT), error.message.removesuffix(".")
            return
        item.change = Change(item.id, files)
        item.outcome = rethread([item.change], state, self.blobs, accept=self.wishes.accept)[0]
        item.status, item.why = str(item.outcome.status), item.outcome.why
        if item.outcome.status is Status.RELOCATED and not item.outcome.carried:
            item.why += f" (`--accept {item.id}` agrees)"
        if item.outcome.carried and not item.taken:
            has_it = item.outcome.status is Status.ALREADY
            item.why = item.why or ("the tree has it already" if has_it else "it changes nothing")

    def _compare(self, net: Incoming, items: Sequence[_Item], state: TreeState) -> tuple[str, _Item | None]:
        """How the patches together compare with the branch as a whole; what is missing, as a patch at the end."""
        ids = _ids(self._ordered(items))
        if {item.id for item in items} != set(ids[len(self.series.ids) :]):
            return "", None  # not at the end of the series: there is nothing to compare with
        expected = self.chain.base.copy()
        for link in self.chain.links:
            put_all(expected, link.files)
        for data in net.contents.values():
            self.blobs.add(data)
        outcome = rethread([Change("net", net.changes)], expected, self.blobs)[0]
        if not outcome.carried:
            return (
                "the branch as a whole does not merge into the pinned tree, so the result was not compared with it",
                None,
            )
        before, after = state.write(self.blobs.pool), expected.write(self.blobs.pool)
        if before == after:
            return "the patches together make exactly what the branch as a whole makes", None
        ours, theirs = state.files(), expected.files()
        paths = sorted(p for p in ours.keys() | theirs.keys() if ours.get(p) != theirs.get(p))
        taken = {*ids, *(phase.id for phase in self.series.file.phase)}
        rest = _Item(net, id_from("resolutions of merges", taken), items[-1].phase, None)
        rest.change = Change(rest.id, tuple(FileChange(p, ours.get(p), theirs.get(p)) for p in paths))
        rest.outcome = PatchOutcome(rest.id, Status.EXACT, (), before, after, after)
        rest.status, rest.why = str(Status.EXACT), "what the branch holds beyond its commits"
        return f"the commits alone do not make what the branch makes; the rest is `{rest.id}`", rest

    @staticmethod
    def _row(entry: _Item | NotTaken) -> Row:
        if isinstance(entry, NotTaken):
            return Row(entry.origin, "", "skipped", entry.why, taken=False)
        return Row(entry.incoming.origin, entry.id if entry.taken else "", entry.status, entry.why, entry.taken)

    # Files

    def _files(self, items: Sequence[_Item]) -> dict[str, bytes | None]:
        """Everything to write, the lock included; the new series has been linted and locked when this returns."""
        taken = [item for item in items if item.taken]
        outcomes = {item.id: item.outcome for item in taken if item.outcome} | self.moved
        self.chain.pool.store(self.store.git)
        edited = _edited_twice(taken)
        overlays = {item.id: self._overlays(item, edited) for item in taken}
        placed = {item.id: {o.to for o in overlays[item.id]} for item in taken}
        placed |= {i: set(self.series.get(i).overlay) for i in self.moved}
        found = diff_trees(self.store.git, [(o.before, o.after, ()) for o in outcomes.values()])
        diffs = [
            format_diff(diff for diff, _ in changed if diff.path not in placed[patch_id])
            for patch_id, changed in zip(outcomes, found, strict=True)
        ]
        text = self._ordered(taken)
        home = dict(_phases(text))
        files: dict[str, bytes | None] = {f"patches/{SERIES_NAME}": text.encode()}
        for patch_id, diff in zip(outcomes, diffs, strict=True):
            if patch_id in self.moved and diff == self.series.get(patch_id).diff:
                continue
            if diff or not placed[patch_id]:
                files[f"patches/{home[patch_id]}/{patch_id}/{DIFF_NAME}"] = diff
        for item in taken:
            for overlay in overlays[item.id]:
                files[f"ggml_kernels/{overlay.source}"] = self._content(item, overlay.to)
        shown: dict[str, list[str]] = {}
        for known in (False, True):
            # Twice: what a patch requires can only be seen in the series as a whole.
            for item in taken:
                folder = f"patches/{home[item.id]}/{item.id}"
                made = self._describe(item, home[item.id], overlays[item.id], shown.get(item.id, []))
                files |= {f"{folder}/{name}": data for name, data in made.items()}
            series = load_series(self.settings, files)
            if known:
                break
            for patch_id, needed in infer(self.store.git, build_chain(self.store.git, series)):
                shown.setdefault(patch_id, []).append(needed)
        generated = generated_files(self.store, series)
        final = outcomes[_ids(text)[-1]].after if _ids(text)[-1] in outcomes else None
        if final is not None and series.ids and build_chain(self.store.git, series).links[-1].tree != final:
            raise InternalError("the imported series does not make the tree that was planned")
        return files | generated

    def _describe(self, item: _Item, phase: str, overlays: Sequence[Overlay], shown: Sequence[str]) -> dict[str, bytes]:
        """``patch.toml`` and ``README.md``: as the source carries them, else from the templates."""
        incoming, wishes = item.incoming, self.wishes
        if item.meta is not None:
            made = dict(incoming.carried)
            made[META_NAME] = _renamed(made[META_NAME], item.id, phase, item.meta)
            if README_NAME in made:
                return made
        fallback = Forwarding(
            status="not-forwarded", reason=f"Imported from {incoming.origin}; why upstream lacks it is yet to be said."
        )
        upstream = incoming.forwarding or fallback
        if wishes.reason:
            upstream = upstream.model_copy(update={"reason": wishes.reason})
        order = [i for i in self.series.ids if i in wishes.requires]
        patch = NewPatch(
            id=item.id,
            title=wishes.title or incoming.title or item.id,
            phase=phase,
            authors=incoming.authors or (_NOBODY,),
            date=incoming.date or today(),
            upstream=upstream,
            effect=wishes.effect,
            requires=[*order, *(i for i in reversed(shown) if i not in order)],
            overlay=overlays,
            body=incoming.body,
            origin=incoming.origin,
        )
        rendered = render_patch(self.settings.templates, patch)
        if item.meta is not None:
            rendered[META_NAME] = made[META_NAME]
        return rendered

    def _overlays(self, item: _Item, edited: set[str]) -> list[Overlay]:
        """Which of the files that `item` adds live in ``ggml_kernels/``; `ConflictError` where the place is taken."""
        assert item.change is not None and item.outcome is not None
        state = {f.path: f for f in item.change.files}
        if item.meta is not None and item.meta.overlay:
            wanted = [o for o in item.meta.overlay if o.to in state]
        else:
            wanted = []
            for path, change in state.items():
                folder = next((folder for glob, folder in self.wishes.overlay if fnmatch.fnmatchcase(path, glob)), None)
                plain = change.pre is None and change.post is not None and change.post.mode == "100644"
                if folder is not None and plain and path not in edited:
                    wanted.append(Overlay.model_validate({"from": f"{folder}/{path.rpartition('/')[2]}", "to": path}))
        sources = [o.source for o in wanted]
        for overlay in wanted:
            there = self.settings.kernels / overlay.source
            if sources.count(overlay.source) > 1 or (
                there.is_file() and there.read_bytes() != self._content(item, overlay.to)
            ):
                raise ConflictError(
                    f"`{item.id}` would put {overlay.to} into {there}, which holds something else.",
                    "Choose another folder with `--overlay GLOB=DIR`.",
                )
        return wanted

    def _content(self, item: _Item, path: str) -> bytes:
        assert item.change is not None
        post = next(f.post for f in item.change.files if f.path == path)
        assert post is not None
        return self.blobs.get(post.oid)


def _meta_of(incoming: Incoming) -> PatchMeta | None:
    """What an export of ours says of the patch; None when there is nothing, or nothing that can be read."""
    data = incoming.carried.get(META_NAME)
    if data is None:
        return None
    try:
        return PatchMeta.model_validate(tomlkit.parse(data.decode("utf-8")).unwrap())
    except (ValidationError, TOMLKitError, UnicodeDecodeError):
        return None


def _renamed(data: bytes, patch_id: str, phase: str, meta: PatchMeta) -> bytes:
    """A carried ``patch.toml``, to the byte where the id and the phase are its own."""
    if (meta.id, meta.phase) == (patch_id, phase):
        return data
    document = tomlkit.parse(data.decode("utf-8"))
    document["id"], document["phase"] = patch_id, phase
    if meta.switch is not None and meta.id != patch_id:
        switch = document["switch"]
        switch["env"] = "LLAMA_LP_" + patch_id.upper().replace("-", "_")
    return tomlkit.dumps(document).encode()


def _edited_twice(items: Sequence[_Item]) -> set[str]:
    """Paths that more than one of the patches changes: an overlay file belongs to one patch."""
    seen: set[str] = set()
    twice: set[str] = set()
    for item in items:
        paths = {f.path for f in item.change.files} if item.change else set()
        twice |= seen & paths
        seen |= paths
    return twice


def _phases(text: str) -> list[tuple[str, str]]:
    """(id, phase) in the order of a ``series.toml``."""
    return [(i, p["id"]) for p in tomlkit.parse(text).unwrap()["phase"] for i in p.get("patches", [])]


def _ids(text: str) -> list[str]:
    return [patch_id for patch_id, _ in _phases(text)]
