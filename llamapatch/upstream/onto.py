"""What ``--onto`` means: another upstream tree, named by a ref, a path or a source, brought into the cache.

* ``npm:NAME@VERSION`` or ``pypi:NAME==VERSION``, with ``:MEMBER`` behind it where the tree does not lie where
  node-llama-cpp and llama-cpp-python keep it; ``git:URL#REF``;
* a URL that ends like a source archive;
* a ref of the ``--upstream`` repository;
* a path: a checkout or bare repository (its HEAD), a folder, a source archive;
* a ref of the series' git source.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from llamapatch.config import Settings
from llamapatch.errors import EnvironmentProblem, UsageProblem
from llamapatch.git import Git, GitError
from llamapatch.series.model import Source as SourceEntry
from llamapatch.series.model import UpstreamPin
from llamapatch.upstream.fetch import Report, Upstream, take
from llamapatch.upstream.sources import from_entry
from llamapatch.upstream.sources.base import Source
from llamapatch.upstream.sources.local import LocalRepository, from_path
from llamapatch.upstream.store import Store

# Where the two packages that carry a whole llama.cpp keep it.
_MEMBERS = {"npm": "llama/gitRelease.bundle", "pypi": "vendor/llama.cpp"}
_PACKAGE = re.compile(
    r"(?:(npm):((?:@[a-z0-9._-]+/)?[a-z0-9][a-z0-9._-]*@[0-9A-Za-z.+-]+)"
    r"|(pypi):([A-Za-z0-9][A-Za-z0-9._-]*==[0-9A-Za-z.!+]+))(?::(.+))?"
)
_GIT = re.compile(r"git:(.+)#([^#]+)")
_ARCHIVE_URL = re.compile(r"(?:https?|file)://.+\.(?:tar(?:\.\w+)?|tgz)")
_REF = re.compile(r"[0-9A-Za-z][0-9A-Za-z._/+-]*")


@dataclass(frozen=True)
class Target:
    """Another upstream, whole and in the cache. `sources` are the entries of series.toml that bring it anew; `behind`
    and `releases` are how many commits and tags the pin is behind it, None where no history tells."""

    spec: str
    version: str
    tree: str
    git_dir: Path
    origin: str
    sources: tuple[SourceEntry, ...]
    behind: int | None = None
    releases: int | None = None

    def pin(self, old: UpstreamPin) -> UpstreamPin:
        """The pin that a series rebased onto this has."""
        return UpstreamPin(version=self.version, tree=self.tree, url=old.url, source=list(self.sources))


def find_target(
    settings: Settings, pin: UpstreamPin, spec: str, *, version: str = "", report: Report | None = None
) -> Target:
    """Bring what `spec` names into the cache; `version` is what to call it, if not by its ref.

    Raises `UsageProblem` for a spec that is nothing of the above and for a ref that is not there, `EnvironmentProblem`
    when a source cannot be reached.
    """
    if not spec.strip():
        raise UsageProblem("--onto is empty.", "Give a tag such as v0.6.0, a path or a source.")
    found = _packaged(spec)
    if found is not None:
        entry, name = found
        return _take(settings, from_entry(entry, Path.cwd()), spec, version or name, (entry,), report)
    upstream = from_path(settings.upstream) if settings.upstream is not None else None
    if isinstance(upstream, LocalRepository):
        tree = _tree_of(upstream, spec)
        if tree is not None:
            behind = _behind(upstream, pin, spec)
            entries = (SourceEntry(kind="git", url=pin.url, ref=spec),)
            return _take(settings, upstream, spec, version or spec, entries, report, wanted=tree, behind=behind)
    path = Path(spec).expanduser()
    if path.exists():
        return _from_path(settings, pin, path.resolve(), spec, version, report)
    if not _REF.fullmatch(spec) or ".." in spec:
        raise UsageProblem(
            f"--onto {spec} is no path that exists, and no ref.",
            "Give a tag such as v0.6.0, a checkout, an archive, or a source such as npm:node-llama-cpp@3.21.1.",
        )
    entry = SourceEntry(kind="git", url=_git_url(pin, spec), ref=spec)
    return _take(settings, from_entry(entry, settings.home), spec, version or spec, (entry,), report)


def _packaged(spec: str) -> tuple[SourceEntry, str] | None:
    """The entry, and a name for the tree, of a spec that says what kind of source it is."""
    if package := _PACKAGE.fullmatch(spec):
        npm, npm_name, pypi, pypi_name, member = package.groups()
        kind, name = npm or pypi, npm_name or pypi_name
        entry = SourceEntry.model_validate({"kind": kind, "package": name, "member": member or _MEMBERS[kind]})
        return entry, name.replace("==", "-").replace("@", "-").strip("-").replace("/", "-")
    if from_git := _GIT.fullmatch(spec):
        return SourceEntry(kind="git", url=from_git[1], ref=from_git[2]), from_git[2]
    if _ARCHIVE_URL.fullmatch(spec):
        return SourceEntry(kind="tarball", url=spec), _archive_name(spec.rsplit("/", 1)[-1])
    if spec.startswith(("npm:", "pypi:", "git:")):
        raise UsageProblem(f"--onto {spec} is no source.", "Write npm:NAME@VERSION, pypi:NAME==VERSION or git:URL#REF.")
    return None


def _archive_name(name: str) -> str:
    return name.partition(".tar")[0].removesuffix(".tgz")


def _from_path(
    settings: Settings, pin: UpstreamPin, path: Path, spec: str, version: str, report: Report | None
) -> Target:
    source = from_path(path)
    if not isinstance(source, LocalRepository):
        entries = (SourceEntry(kind="tarball", url=str(path)),) if path.is_file() else ()
        return _take(settings, source, spec, version or _archive_name(path.name), entries, report, pin=pin)
    git = Git(source.git_dir)
    try:
        tree = git.tree_of("HEAD")
        name = git.run("describe", "--tags", "--always", "--abbrev=12", "HEAD")
    except GitError as error:
        raise UsageProblem(f"{path} is a git repository without a commit.", "Check out llama.cpp there.") from error
    behind = _behind(source, pin, "HEAD")
    return _take(settings, source, spec, version or name, (), report, wanted=tree, behind=behind, pin=pin)


def _take(
    settings: Settings,
    source: Source,
    spec: str,
    version: str,
    entries: tuple[SourceEntry, ...],
    report: Report | None,
    *,
    wanted: str | None = None,
    behind: tuple[int | None, int | None] = (None, None),
    pin: UpstreamPin | None = None,
) -> Target:
    if not entries and pin is not None:
        # The tree is the identity: where upstream's server has that name for another tree, fetching says so.
        entries = (SourceEntry(kind="git", url=pin.url, ref=version),)
    upstream = _known(settings, source, wanted, version) or take(settings, source, version, report, wanted)
    if wanted is not None and upstream.tree != wanted:
        raise EnvironmentProblem(f"{source.name} brought tree {upstream.tree} instead of {wanted}.")
    if wanted is None and _is_fixed(entries):
        Store(settings.cache).remember_source(_key(source), upstream.tree)
    return Target(spec, version, upstream.tree, upstream.git_dir, source.name, entries, *behind)


def _known(settings: Settings, source: Source, wanted: str | None, version: str) -> Upstream | None:
    """What the cache has of a source whose content can never change."""
    store = Store(settings.cache)
    tree = wanted or store.recall(_key(source))
    return Upstream(store.git.git_dir, tree, version, source.name) if tree and store.holds(tree) else None


def _is_fixed(entries: tuple[SourceEntry, ...]) -> bool:
    return bool(entries) and entries[0].kind in ("npm", "pypi")


def _key(source: Source) -> str:
    return hashlib.sha256(repr(source).encode()).hexdigest()


def _tree_of(source: LocalRepository, ref: str) -> str | None:
    if ref.startswith("-"):
        return None
    try:
        return Git(source.git_dir).tree_of(ref)
    except GitError:
        return None


def _behind(source: LocalRepository, pin: UpstreamPin, ref: str) -> tuple[int | None, int | None]:
    """Commits and tags from the pin to `ref`, when the repository has the history between the two."""
    git = Git(source.git_dir)
    try:
        start = git.run("rev-parse", "--verify", "--quiet", f"refs/tags/{pin.version}^{{commit}}")
        if git.tree_of(start) != pin.tree or (source.git_dir / "shallow").is_file():
            return None, None
        git.run("merge-base", "--is-ancestor", start, ref)
        tags = git.run("for-each-ref", "--format=%(refname)", f"--merged={ref}", f"--no-merged={start}", "refs/tags")
        return int(git.run("rev-list", "--count", f"{start}..{ref}")), len(tags.splitlines())
    except GitError:
        return None, None


def _git_url(pin: UpstreamPin, spec: str) -> str:
    """The repository that the series names."""
    for entry in pin.source:
        if entry.kind == "git":
            return entry.url
    raise UsageProblem(f"--onto {spec}: the series names no git source that could have it.", "Give a path or a source.")
