"""Building a variant: one folder each, configured only when it must be, compiled only where something changed.

``.llamapatch/build/<variant>[-cuda]/``::

    tree/         links to the worktree, and CMakePresets.json
    out/          CMake's binary folder
    bin           link to out/bin: executables and shared libraries
    stamp.json    what out/ was configured with
    build.log     the last run's output
    lock          held while someone builds here
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from llamapatch.build import ninja, presets
from llamapatch.build.cuda import CudaSetup, choose_architectures, choose_cuda, explain_choice, prepare_cuda, probe_cuda
from llamapatch.build.options import DEFAULT_TARGETS, BuildOptions
from llamapatch.build.source import file_list_hash, link_source
from llamapatch.build.stamp import Action, Stamp, read_stamp, unfinished, write_stamp
from llamapatch.build.toolchain import Toolchain, find_toolchain, flag_environment
from llamapatch.config import Settings
from llamapatch.errors import EnvironmentProblem
from llamapatch.locks import Owner, hold
from llamapatch.tree.variants import in_use

if TYPE_CHECKING:
    from llamapatch.tree.variants import Variant

__all__ = ["DEFAULT_TARGETS", "Build", "BuildOptions", "Workshop", "build", "open_workshop"]

Report = Callable[[str], None]

# Bytes, with room to spare: a Release build of the default targets takes 0.1 GB, one with CUDA some 2.5 GB.
SPACE_NEEDED = {False: 0.5e9, True: 5e9}
_STATE_VARIABLES = ("LLAMA_BUILD_COMMIT", "LLAMA_BUILD_NUMBER")


@dataclass(frozen=True)
class Build:
    """A finished build. `bin` holds executables and shared libraries; `steps` is what Ninja did, `configured` why CMake
    ran ("" when it did not), `seconds` wall time and `cpu_seconds` CPU time of all children."""

    variant: Variant
    folder: Path
    bin: Path
    seconds: float
    cpu_seconds: float = 0.0
    configured: str = ""
    steps: tuple[str, ...] = ()


def build_folder(settings: Settings, variant_name: str, cuda: bool = False) -> Path:
    """Where a variant is built."""
    return settings.state / "build" / (variant_name + ("-cuda" if cuda else ""))


def build(settings: Settings, variant: Variant, options: BuildOptions, report: Report | None = None) -> Build:
    """Configure (when needed) and build `options.targets` of `variant`.

    While it runs, the variant's worktree cannot be moved and the variant not be built by another process (`DirtyError`
    there). Interrupted at any point, the folder is good: the next call goes on. Raises `EnvironmentProblem` (no
    compiler, no space), `UsageProblem` (unknown target) and `ninja.BuildFailed`.
    """
    started = time.monotonic()
    shop = open_workshop(settings, variant, options, report)
    with in_use(settings, variant), hold_lock(shop.folder), ninja.Log(shop.folder / "build.log") as log:
        why, cpu = shop.configure(log, report)
        ran = shop.build(options.targets, log, report)
    done = Build(
        variant=variant,
        folder=shop.folder,
        bin=shop.folder / "bin",
        seconds=time.monotonic() - started,
        cpu_seconds=cpu + ran.cpu_seconds,
        configured=why,
        steps=ran.steps,
    )
    if report is not None:
        what = f"{len(ran.steps)} steps in {done.seconds:.0f} s" if ran.steps else "up to date"
        report(f"{shop.title}: {what}")
    return done


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a build folder (made if need be); `DirtyError` when another process builds there."""
    folder.mkdir(parents=True, exist_ok=True)

    def busy(owner: Owner | None) -> str:
        who = f", pid {owner.pid} ({owner})" if owner else ""
        return f"a build in {folder} is running{who}."

    with hold(folder / "lock", 0, busy, "Wait until it ends, or end it, and run the command again."):
        yield


@dataclass(frozen=True)
class Workshop:
    """A variant's build folder with the tools to work in it."""

    folder: Path
    title: str
    variant: Variant
    tools: Toolchain
    cuda: CudaSetup | None
    variables: tuple[presets.CacheVariable, ...]
    added_environment: dict[str, str]
    targets: tuple[str, ...]
    templates: Path
    jobs: int

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def farm(self) -> Path:
        return self.folder / "tree"

    @property
    def stamp_path(self) -> Path:
        return self.folder / "stamp.json"

    @property
    def environment(self) -> dict[str, str]:
        return presets.full_environment(self.added_environment)

    def stamp(self) -> Stamp:
        """What the folder ought to be configured with."""
        setup = {f"-D{v.name}": v.value for v in self.variables if v.name not in _STATE_VARIABLES}
        setup |= self.tools.identity() | flag_environment() | self.added_environment
        if self.cuda is not None:
            setup["nvcc"] = self.cuda.toolkit.identity
        return Stamp(
            setup=setup,
            files=file_list_hash(self.variant.path),
            label=self.variant.label,
            number=len(self.variant.ids),
            source=str(self.variant.path),
        )

    def planned(self) -> tuple[Action, str]:
        """Whether CMake must run before Ninja, and why; changes nothing."""
        action, why = self.stamp().action(read_stamp(self.stamp_path))
        if action is Action.NOTHING and not (self.out / "build.ninja").is_file():
            return Action.FRESH, "out/ is incomplete"
        return action, why

    def configure(self, log: ninja.Log, report: Report | None) -> tuple[str, float]:
        """Bring links, presets and CMake's output up to date; returns (why CMake ran or "", its CPU seconds)."""
        action, why = self.planned()
        link_source(self.farm, self.variant.path)
        text = presets.render(self.templates, self.title, self.variables, self.added_environment, self.targets)
        presets.write_presets(self.farm, text)
        if action is Action.NOTHING:
            return "", 0.0
        if action is Action.START_OVER and self.out.exists():
            shutil.rmtree(self.out)
        if not (self.out / "bin").is_dir():
            self._require_space()
        if report is not None:
            report(f"{self.title}: configuring ({why})")
        stamp = self.stamp()
        # Ended half-way, CMake leaves a cache that fits neither the old options nor the new ones.
        write_stamp(self.stamp_path, unfinished(stamp))
        argv: list[str | Path] = [self.tools.cmake.path, "--preset", presets.PRESET_NAME]
        if action is not Action.CONFIGURE:
            argv.append("--fresh")
        seconds = ninja.configure(argv, self.farm, self.environment, self.title, log)
        (self.out / "bin").mkdir(exist_ok=True)
        link = self.folder / "bin"
        if not link.is_symlink():
            link.symlink_to("out/bin")
        write_stamp(self.stamp_path, stamp)
        return why, seconds

    def build(self, targets: Sequence[str], log: ninja.Log, report: Report | None) -> ninja.Ran:
        """Bring `targets` up to date."""
        return ninja.build_targets(
            self.tools.ninja.path,
            self.out,
            targets,
            jobs=self.jobs,
            env=self.environment,
            title=self.title,
            log=log,
            report=report,
        )

    def _require_space(self) -> None:
        need = SPACE_NEEDED[self.cuda is not None]
        free = psutil.disk_usage(str(self.folder)).free
        if free < need:
            raise EnvironmentProblem(
                f"building {self.title} needs about {need / 1e9:.1f} GB; {self.folder} has {free / 1e9:.1f} GB free.",
                "Free some space, or run llamapatch in a folder on another disk.",
            )


def open_workshop(
    settings: Settings, variant: Variant, options: BuildOptions, report: Report | None = None
) -> Workshop:
    """Find the tools for building `variant` with `options`; configures and compiles nothing yet."""
    tools = find_toolchain()
    folder = build_folder(settings, variant.name, options.cuda)
    cuda = None
    if options.cuda:
        found = probe_cuda()
        toolkit = choose_cuda(found)
        if report is not None:
            report(explain_choice(found, toolkit))
        cuda = prepare_cuda(toolkit, folder, choose_architectures(options.cuda_arch))
    return Workshop(
        folder=folder,
        title=folder.name,
        variant=variant,
        tools=tools,
        cuda=cuda,
        variables=presets.cache_variables(variant, options, tools, cuda),
        added_environment=presets.environment(folder, cuda),
        targets=options.targets,
        templates=settings.templates,
        jobs=settings.jobs,
    )
