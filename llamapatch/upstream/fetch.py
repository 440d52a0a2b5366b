"""Get upstream and prove what it is: the room's front door.

The TREE id is the identity. Whatever a source calls itself, what it delivers is hashed, compared with the pin and
stored in the per-user cache (`Store`) before anyone sees it.

Exit codes: 4 (`MismatchError`) when a source that the user named holds another tree, and when the automatic sources
failed and at least one of them did deliver, but another tree; 1 (`EnvironmentProblem`) when none delivered anything, or
the cache cannot be written; 2 (`UsageProblem`) when what the user named is nothing that sources could be in.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llamapatch.config import Settings
from llamapatch.errors import EnvironmentProblem, MismatchError, UsageProblem
from llamapatch.git import Git, GitError
from llamapatch.series.model import UpstreamPin
from llamapatch.upstream.progress import Meter
from llamapatch.upstream.sources import from_entry
from llamapatch.upstream.sources.base import Found, Place, Source, SourceFailedError, UnknownNameError
from llamapatch.upstream.sources.local import LocalFolder, LocalRepository, from_path
from llamapatch.upstream.sources.tarball import Tarball
from llamapatch.upstream.store import (
    DamagedObjectsError,
    MissingObjectsError,
    Store,
    fingerprint,
    reason,
    speaks_of_full_disk,
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Upstream:
    """A proven upstream tree: `git_dir` is a bare repository that holds all of its objects (the cache; read it, or
    borrow from it, but write nothing there), `source` says where they came from."""

    git_dir: Path
    tree: str
    version: str
    source: str


@dataclass(frozen=True)
class Plan:
    """What `ensure_upstream` would do: `sources` in the order of trying; nothing is fetched if `cached`."""

    cached: bool
    sources: tuple[str, ...]


def ensure_upstream(settings: Settings, pin: UpstreamPin, report: Report | None = None) -> Upstream:
    """The pinned tree, from the cache or else from the first source that has it.

    ``settings.upstream``, when set, is the only source, and is compared with the pin even if the cache has the tree
    (milliseconds for a repository, and for a folder or archive that has not changed since). Safe under any number of
    processes at once; interrupted or killed it leaves nothing half-written. Errors: see the module.
    """
    store = Store(settings.cache)
    if settings.upstream is not None:
        return _from_user(store, settings.upstream, pin, report)
    if not store.holds(pin.tree):
        with Meter(report) as meter, store.locked(lambda: meter.say(_waiting(store))) as scratch:
            if not store.holds(pin.tree):
                _try_in_turn(store, settings, pin, meter, scratch)
    return Upstream(store.git.git_dir, pin.tree, pin.version, store.origin(pin.tree))


def plan(settings: Settings, pin: UpstreamPin) -> Plan:
    """What `ensure_upstream` would do, without a lock, a download or a write."""
    if settings.upstream is not None:
        sources: list[Source] = [from_path(settings.upstream)]
    else:
        sources = [from_entry(entry, settings.home) for entry in pin.source]
    return Plan(Store(settings.cache).holds(pin.tree), tuple(source.name for source in sources))


def take(
    settings: Settings, source: Source, version: str, report: Report | None = None, wanted: str | None = None
) -> Upstream:
    """Whatever tree `source` has (`wanted`, if it has several), proven to be whole, in the cache: for trees other than
    the pin. `UsageProblem` when the source can be reached and has nothing of that name."""
    store = Store(settings.cache)
    with Meter(report) as meter, store.locked(lambda: meter.say(_waiting(store))) as scratch:
        place = Place(Git.init_bare(scratch / "staging.git"), _new(scratch / "work"), meter, wanted, version)
        try:
            found = source.bring(place)
            store.publish(found.tree, place.git, found.borrowed, scratch, source.name)
        except UnknownNameError as error:
            raise UsageProblem(f"{source.name}: {error.message}.", "Check the name and the version.") from error
        except SourceFailedError as error:
            raise _no_space(store, error) or EnvironmentProblem(f"{source.name}: {error.message}.") from error
        except MissingObjectsError as error:
            raise _incomplete(source, found, error) from error
    return Upstream(store.git.git_dir, found.tree, version, source.name)


def check_contents(settings: Settings, upstream: Upstream) -> None:
    """Hash all cached objects of `upstream` again (about 2 s); `MismatchError` when one is not what its name says."""
    store = Store(settings.cache)
    try:
        store.check_contents(upstream.tree)
    except GitError as error:
        raise MismatchError(
            f"the cached upstream in {store.git.git_dir} is damaged: {reason(error)}.",
            f"Remove {store.git.git_dir} and fetch again.",
        ) from error


def _from_user(store: Store, path: Path, pin: UpstreamPin, report: Report | None) -> Upstream:
    source = from_path(path)
    done = Upstream(store.git.git_dir, pin.tree, pin.version, source.name)
    if store.holds(pin.tree) and _is_known(store, source, path, pin.tree):
        return done
    with Meter(report) as meter, store.locked(lambda: meter.say(_waiting(store))) as scratch:
        place = Place(Git.init_bare(scratch / "staging.git"), _new(scratch / "work"), meter, pin.tree, pin.version)
        key = "" if isinstance(source, LocalRepository) else fingerprint(path)
        try:
            found = source.bring(place)
        except SourceFailedError as error:
            raise _no_space(store, error) or UsageProblem(
                f"upstream {path} cannot be used: {error.message}.",
                "Give --upstream a llama.cpp checkout, bare repository, folder or tar archive, or leave it out.",
            ) from error
        if found.tree != pin.tree:
            raise MismatchError(
                f"upstream {path} is not {pin.version}: it holds tree {found.tree}, the series needs tree {pin.tree}"
                + (f" ({found.remark})." if found.remark else "."),
                f"Bring {pin.version} there, or leave --upstream (LLAMAPATCH_UPSTREAM) out to have it fetched.",
            )
        try:
            if not store.holds(pin.tree):
                store.publish(found.tree, place.git, found.borrowed, scratch, source.name)
                meter.say(f"upstream {pin.version} verified: tree {pin.tree}, from {source.name}")
        except MissingObjectsError as error:
            raise _incomplete(source, found, error) from error
        # A folder that changed while it was read must not be taken for known.
        if key and key == fingerprint(path):
            store.remember(key, found.tree, scratch)
    return done


def _is_known(store: Store, source: LocalRepository | LocalFolder | Tarball, path: Path, tree: str) -> bool:
    """Whether a user's source is known to hold `tree` without reading its contents."""
    if isinstance(source, LocalRepository):
        return source.has(tree, store.git)
    return store.recall(fingerprint(path)) == tree


def _try_in_turn(store: Store, settings: Settings, pin: UpstreamPin, meter: Meter, scratch: Path) -> None:
    failures: list[str] = []
    delivered_another = False
    for entry in pin.source:
        source = from_entry(entry, settings.home)
        started = time.monotonic()
        room = _new(scratch / f"source{len(failures)}")
        place = Place(Git.init_bare(room / "staging.git"), _new(room / "work"), meter, pin.tree, pin.version)
        try:
            found = source.bring(place)
            if found.tree == pin.tree:
                meter.step("verifying")
                store.publish(pin.tree, place.git, found.borrowed, room, source.name)
                took = time.monotonic() - started
                meter.say(f"upstream {pin.version} verified: tree {pin.tree}, from {source.name} in {took:.1f} s")
                return
            delivered_another = True
            why = f"it holds tree {found.tree}, not {pin.tree}" + (f" ({found.remark})" if found.remark else "")
        except SourceFailedError as error:
            if full := _no_space(store, error):
                raise full from error
            why = error.message
        except MissingObjectsError as error:
            why = f"{error.missing} objects of the tree are missing"
        except DamagedObjectsError as error:
            why = error.message.rstrip(".")
        failures.append(f"{source.name}: {why}")
        meter.say(f"no upstream from {failures[-1]}")
        shutil.rmtree(room)
    kind = MismatchError if delivered_another else EnvironmentProblem
    listed = "; ".join(f"({n}) {failure}" for n, failure in enumerate(failures, 1))
    raise kind(
        f"upstream {pin.version} could not be had from any of its {len(failures)} sources: {listed}.",
        "Check the network, or give your own llama.cpp with --upstream PATH.",
    )


def _incomplete(source: Source, found: Found, error: MissingObjectsError) -> EnvironmentProblem:
    remedy = "Use a complete one, or leave --upstream out."
    if isinstance(source, LocalRepository):
        remedy = f"Run `git -C {source.path} fetch --refetch --no-filter origin` there, or leave --upstream out."
    return EnvironmentProblem(
        f"{source.name} lacks {error.missing} objects of tree {found.tree}"
        + f": {found.incomplete}." * bool(found.incomplete),
        remedy,
    )


def _no_space(store: Store, error: SourceFailedError) -> EnvironmentProblem | None:
    """The error to raise instead when a source failed because the disk is full."""
    said = error.message + (error.__cause__.stderr if isinstance(error.__cause__, GitError) else "")
    return store.trouble(True, "") if speaks_of_full_disk(said) else None


def _waiting(store: Store) -> str:
    return f"waiting for another llamapatch that is fetching into {store.folder}"


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
