"""Which patch needs which: what ``requires`` declares, and what the patches themselves show.

Two things are seen. *lines*: patch B does not merge without A, found by taking A (and what stands on A) out of the
files that B changes and carrying B over. *include*: B includes a file that A brings. Neither sees a need that only a
compiler or a run would (a build rule that globs, a function behind a header of upstream's), so a declared edge that
nothing shows is reported, not called wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llamapatch.config import Settings
from llamapatch.git import Git
from llamapatch.series.load import Series
from llamapatch.series.select import with_requirements
from llamapatch.tree.blobs import Blobs
from llamapatch.tree.chain import Chain, FileChange, Link, build_chain
from llamapatch.tree.objects import TreeState
from llamapatch.tree.store import Report, reading_git
from llamapatch.tree.thread import Change, put, rethread

Kind = Literal["lines", "include"]
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]+["<]([^">\n]+)[">]', re.MULTILINE)


@dataclass(frozen=True)
class Edge:
    """Patch `patch` needs patch `needs`: `shown` says what shows it (empty: nothing does), `declared` whether
    ``requires`` names it, `implied` whether what it names leads there."""

    patch: str
    needs: str
    shown: tuple[Kind, ...]
    why: str
    declared: bool
    implied: bool

    @property
    def verdict(self) -> str:
        """``ok``, ``undeclared`` (shown, and requires does not lead there) or ``unseen`` (declared, but not shown)."""
        if not self.shown:
            return "unseen"
        return "ok" if self.implied else "undeclared"


@dataclass(frozen=True)
class Graph:
    """The patches in series order and every edge, declared or shown."""

    ids: tuple[str, ...]
    phases: Mapping[str, str]
    edges: tuple[Edge, ...]


def read_graph(settings: Settings, series: Series, report: Report | None = None) -> Graph:
    """The graph of `series`. Raises what `build_chain` raises; a circle of requirements is refused when the series is
    read (`llamapatch.series.lint`)."""
    git = reading_git(settings, series.pin, report)
    shown = infer(git, build_chain(git, series))
    edges: list[Edge] = []
    for patch in series.patches:
        closure = with_requirements(series, patch.meta.requires)
        for other in series.ids:
            kinds, why = shown.get((patch.id, other), ((), ""))
            declared = other in patch.meta.requires
            if kinds or declared:
                edges.append(Edge(patch.id, other, kinds, why, declared, other in closure))
    return Graph(series.ids, {p.id: p.meta.phase for p in series.patches}, tuple(edges))


def infer(git: Git, chain: Chain) -> dict[tuple[str, str], tuple[tuple[Kind, ...], str]]:
    """(patch, needed patch) -> what shows it and where. Needs that follow from other needs are left out."""
    blobs = Blobs(git, chain.pool, chain.contents)
    needs: dict[str, set[str]] = {}
    found: dict[tuple[str, str], tuple[tuple[Kind, ...], str]] = {}
    for number, link in enumerate(chain.links):
        patch_id = link.patch.id
        reached: set[str] = set()
        # The nearest first: what it needs itself need not be looked for again.
        for other in reversed(chain.links[:number]):
            kinds: list[Kind] = []
            why = ""
            if other.patch.id not in reached and (where := _builds_on(link, other, chain.links[:number], needs, blobs)):
                kinds.append("lines")
                why = where
            if included := _includes(link, other, chain):
                kinds.append("include")
                why = why or included
            if kinds:
                found[patch_id, other.patch.id] = (tuple(kinds), why)
                reached |= {other.patch.id} | needs[other.patch.id]
        needs[patch_id] = reached
    return found


def _builds_on(link: Link, other: Link, earlier: tuple[Link, ...], needs: Mapping[str, set[str]], blobs: Blobs) -> str:
    """A path where `link` does not merge without `other`; empty when there is none."""
    shared = {change.path for change in link.files} & {change.path for change in other.files}
    for path in sorted(shared):
        change = next(c for c in link.files if c.path == path)
        state = TreeState.empty()
        put(state, path, change.pre)
        # Out goes `other`, after everything that needs it, the last first.
        place = earlier.index(other)
        gone = [i for i in reversed(earlier[place:]) if i is other or other.patch.id in needs[i.patch.id]]
        undo = [_only(i, path, backwards=True) for i in gone]
        without = rethread([c for c in undo if c.files], state, blobs)
        if not all(outcome.carried for outcome in without):
            return path  # the two cannot be told apart
        outcome = rethread([_only(link, path)], state, blobs)[0]
        if not outcome.carried:
            return path
    return ""


def _only(link: Link, path: str, *, backwards: bool = False) -> Change:
    """What a patch does to one file, or undoes."""
    files = tuple(c for c in link.files if c.path == path)
    if backwards:
        files = tuple(FileChange(c.path, c.post, c.pre) for c in files)
    return Change(link.patch.id, files)


def _includes(link: Link, other: Link, chain: Chain) -> str:
    """An ``#include`` that `link` adds, of a file that `other` brings; empty when there is none."""
    brought = {c.path.rpartition("/")[2]: c.path for c in other.files if c.pre is None}
    if not brought:
        return ""
    for change in link.files:
        if change.post is None:
            continue
        before = set(_INCLUDE.findall(chain.contents[change.pre.oid])) if change.pre else set()
        for name in _INCLUDE.findall(chain.contents[change.post.oid]):
            target = name.decode("utf-8", "replace").rpartition("/")[2]
            if name not in before and target in brought:
                return f"{change.path} includes {brought[target]}"
    return ""


def as_text(graph: Graph) -> str:
    """One line for each patch and each of its edges."""
    lines = []
    for patch_id in graph.ids:
        lines.append(patch_id)
        for edge in graph.edges:
            if edge.patch == patch_id:
                shown = " and ".join(edge.shown) or "declared only"
                note = {"ok": "", "undeclared": "  UNDECLARED", "unseen": "  nothing in the text shows it"}[
                    edge.verdict
                ]
                lines.append(f"  needs {edge.needs}  ({shown}{': ' + edge.why if edge.why else ''}){note}")
    return "\n".join(lines) + "\n" if lines else ""


def as_dot(graph: Graph) -> str:
    """Graphviz: an arrow from a patch to what it needs; red when undeclared, dashed when nothing shows it."""
    lines = ["digraph series {", "    rankdir = BT;", '    node [shape = box, fontname = "sans-serif"];']
    for number, phase in enumerate(dict.fromkeys(graph.phases.values())):
        members = "; ".join(f'"{i}"' for i in graph.ids if graph.phases[i] == phase)
        lines.append(f'    subgraph cluster_{number} {{ label = "{phase}"; {members}; }}')
    style = {"ok": "", "undeclared": " [color = red, label = undeclared]", "unseen": " [style = dashed]"}
    lines += [f'    "{e.patch}" -> "{e.needs}"{style[e.verdict]};' for e in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def as_mermaid(graph: Graph) -> str:
    """Mermaid, as GitHub renders it: dotted arrows where nothing shows the need."""
    lines = ["graph BT"]
    for phase in dict.fromkeys(graph.phases.values()):
        lines.append(f"    subgraph {phase}")
        lines += [f"        {i}[{i}]" for i in graph.ids if graph.phases[i] == phase]
        lines.append("    end")
    arrow = {"ok": "-->", "undeclared": "-->|undeclared|", "unseen": "-.->"}
    lines += [f"    {e.patch} {arrow[e.verdict]} {e.needs}" for e in graph.edges]
    return "\n".join(lines) + "\n"
