"""What must hold between the files of a series, beyond the schema of each: one small rule per function.

The schema alone cannot see a patch folder that nothing lists, an id that a phase also uses, or two patches that place
a file at the same path. Each rule yields `Problem`s; all of them are reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llamapatch.errors import UsageProblem
from llamapatch.series.model import PatchMeta, SeriesFile

# Words that are selectors or worktree names of their own.
RESERVED_IDS = frozenset({"all", "base", "patched"})
_AUTHOR = re.compile(r"^[^<>\n]+ <[^<>\s]+>$")


class PatchLike(Protocol):
    """What the rules need of a patch."""

    @property
    def id(self) -> str: ...
    @property
    def meta(self) -> PatchMeta: ...
    @property
    def folder(self) -> Path: ...
    @property
    def has_diff(self) -> bool: ...
    @property
    def overlay(self) -> dict[str, bytes]: ...
    @property
    def has_readme(self) -> bool: ...


@dataclass(frozen=True)
class Problem:
    """One mistake: the file and key it is in, what is wrong, what to do."""

    file: Path
    key: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: `{self.key}`: {self.what}" if self.key else f"{self.file}: {self.what}"


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise one `UsageProblem` that names every problem; nothing when there is none."""
    found = list(problems)
    if not found:
        return
    text = str(found[0]) + "."
    for other in found[1:]:
        text += f"\n  also {other}."
    raise UsageProblem(text, found[0].remedy)


def lint_series_file(file: SeriesFile, folder: Path, folders: set[tuple[str, str]]) -> Iterator[Problem]:
    """Rules about ``series.toml`` and the folders beside it: `folder` is ``patches/``, `folders` the (phase, id) of
    each folder in it."""
    path = folder / "series.toml"
    seen: dict[str, str] = {}
    phases: set[str] = set()
    for phase in file.phase:
        if phase.id in phases:
            yield Problem(path, "phase.id", f"phase `{phase.id}` is there twice", "Merge the two phases.")
        phases.add(phase.id)
        if phase.id in RESERVED_IDS:
            yield Problem(path, "phase.id", f"`{phase.id}` is a reserved word", "Rename the phase.")
        for patch_id in phase.patches:
            if patch_id in seen:
                what = f"patch `{patch_id}` is listed twice, in {seen[patch_id]} and {phase.id}"
                yield Problem(path, "phase.patches", what, "Keep one of them.")
            seen[patch_id] = phase.id
            if patch_id in RESERVED_IDS or patch_id.startswith("sel-"):
                yield Problem(path, "phase.patches", f"`{patch_id}` is a reserved word", "Rename the patch.")
            elif (phase.id, patch_id) not in folders:
                what = f"{phase.id} lists `{patch_id}`, but the folder {folder / phase.id / patch_id} does not exist"
                yield Problem(path, "phase.patches", what, "Write the patch, or take it out of the list.")
    for patch_id in sorted(set(seen) & phases):
        what = f"`{patch_id}` names a patch and a phase"
        yield Problem(path, "phase.patches", what, "Rename one; a selector must be unambiguous.")
    listed = {(phase.id, patch_id) for phase in file.phase for patch_id in phase.patches}
    for phase_id, name in sorted(folders - listed):
        elsewhere = f"; it is listed in {seen[name]}" if name in seen else ""
        what = f"the folder is not listed under phase `{phase_id}`{elsewhere}"
        yield Problem(folder / phase_id / name, "", what, f"List `{name}` in {path}, or move the folder away.")


def lint_patches(file: SeriesFile, patches: Sequence[PatchLike], folder: Path) -> Iterator[Problem]:
    """Rules about the patches, given in series order."""
    phase_of = {patch_id: phase.id for phase in file.phase for patch_id in phase.patches}
    for patch in patches:
        yield from _lint_one(patch, phase_of)
    yield from _lint_requirements(patches)
    yield from _lint_overlays(patches)


def _lint_one(patch: PatchLike, phase_of: dict[str, str]) -> Iterator[Problem]:
    meta, path = patch.meta, patch.folder / "patch.toml"
    if meta.id != patch.folder.name:
        what = f"`{meta.id}` is not the name of its folder, `{patch.folder.name}`"
        yield Problem(path, "id", what, "A patch is named by its folder.")
        return
    if meta.phase != phase_of[meta.id]:
        what = f"`{meta.phase}`, but series.toml lists the patch in {phase_of[meta.id]}"
        yield Problem(path, "phase", what, "Make the two agree.")
    if not patch.has_diff and not patch.overlay:
        yield Problem(path, "", "the patch has neither a change.patch nor overlay files", "Give it one of them.")
    if not patch.has_readme:
        what = "README.md is missing"
        yield Problem(patch.folder, "", what, "Say why the patch exists and when it can be dropped.")
    if "\n" in meta.title:
        yield Problem(path, "title", "must be one line", "Move the rest to README.md.")
    for author in meta.authors:
        if not _AUTHOR.match(author):
            yield Problem(path, "authors", f"`{author}` is not of the form `Name <mail>`", "Write it that way.")
    if meta.switch is not None:
        wanted = "LLAMA_LP_" + meta.id.upper().replace("-", "_")
        if meta.switch.env != wanted:
            yield Problem(path, "switch.env", f"must be `{wanted}`", "A switch is named after its patch.")
        if "off" not in meta.switch.values or "on" not in meta.switch.values:
            yield Problem(path, "switch.values", "must hold `off` and `on`", "Add what is missing.")


def _lint_requirements(patches: Sequence[PatchLike]) -> Iterator[Problem]:
    place = {patch.id: i for i, patch in enumerate(patches)}
    cycle = _find_cycle({p.id: [r for r in p.meta.requires if r in place] for p in patches})
    if cycle:
        first = patches[place[cycle[0]]]
        what = f"the patches require each other in a circle: {' -> '.join(cycle)}"
        yield Problem(first.folder / "patch.toml", "requires", what, "Break the circle.")
    for patch in patches:
        path = patch.folder / "patch.toml"
        for key, ids in (("requires", patch.meta.requires), ("conflicts", patch.meta.conflicts)):
            for other in ids:
                if other not in place:
                    yield Problem(path, key, f"there is no patch `{other}`", "Correct the id, or add the patch.")
                elif other == patch.id:
                    yield Problem(path, key, "a patch cannot name itself", "Remove it.")
        both = sorted(set(patch.meta.requires) & set(patch.meta.conflicts))
        if both:
            yield Problem(path, "conflicts", f"`{both[0]}` is required as well", "Keep one of the two.")
        if not cycle:
            for other in patch.meta.requires:
                if place.get(other, -1) > place[patch.id]:
                    what = f"`{other}` comes later in the series"
                    yield Problem(path, "requires", what, f"Move `{other}` before `{patch.id}` in series.toml.")


def _lint_overlays(patches: Sequence[PatchLike]) -> Iterator[Problem]:
    owner: dict[str, PatchLike] = {}
    for patch in patches:
        for target in patch.overlay:
            if target in owner:
                what = f"`{target}` is already placed by `{owner[target].id}`"
                remedy = "A file is owned by one patch; a header that several need belongs to the one they all require."
                yield Problem(patch.folder / "patch.toml", "overlay.to", what, remedy)
            else:
                owner[target] = patch


def _find_cycle(edges: dict[str, list[str]]) -> list[str]:
    """A closed walk ``[a, b, ..., a]`` along `edges`, or an empty list. Iterative: a chain may be long."""
    done: set[str] = set()
    for start, first in edges.items():
        if start in done:
            continue
        trail = [start]
        stack = [(start, iter(first))]
        while stack:
            node, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                done.add(node)
                stack.pop()
                trail.pop()
            elif following in trail:
                return [*trail[trail.index(following) :], following]
            elif following not in done:
                stack.append((following, iter(edges[following])))
                trail.append(following)
    return []
