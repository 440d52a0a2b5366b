"""From a request to a job: upstream, variants, builds, model and text.

Only what the request needs is made: with both ``--bin-base`` and ``--bin-patched`` nothing is built, and with a text of
the user's own upstream is not even fetched.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamapatch.build.builder import Build, BuildOptions, build
from llamapatch.build.kernels import build_kernels
from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.git import Git
from llamapatch.measure import inputs
from llamapatch.measure.arms import AGAIN, BASE, OFF, ON, Arm, make_arms
from llamapatch.measure.bench import TOOL as BENCH
from llamapatch.measure.identity import TOOL as RESULTS
from llamapatch.measure.machine import free_cores
from llamapatch.measure.perplexity import TOOL as PERPLEXITY
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.session import Job, KernelPlan, RoundPlan, full_size, quick_size
from llamapatch.models.reference import reference_model
from llamapatch.series.load import Series, load_series
from llamapatch.series.select import Selection, select
from llamapatch.tree.state import applied_ids
from llamapatch.tree.variants import base_variant, selected_variant
from llamapatch.upstream.fetch import Upstream, ensure_upstream

Report = Callable[[str], None]
TARGETS = (PERPLEXITY, BENCH, RESULTS, inputs.QUANTIZE)
VOCABULARY_MODEL = "{vocab_model}"


@dataclass(frozen=True)
class Request:
    """What the user asked for; None and empty mean "as the tool sees fit"."""

    selectors: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    model: Path | None = None
    text: Path | None = None
    quick: bool = False
    blocks: int | None = None
    chunks: int | None = None
    threads: int | None = None
    seed: int | None = None
    keep: Path | None = None
    bin_base: Path | None = None
    bin_patched: Path | None = None

    def check(self) -> None:
        """Raise `UsageProblem` for what can be refused before anything is fetched or built."""
        for name, value, least in (
            ("--blocks", self.blocks, 1),
            ("--chunks", self.chunks, 2),
            ("--threads", self.threads, 1),
        ):
            if value is not None and value < least:
                raise UsageProblem(f"{name} is {value}; it must be at least {least}.")
        for name, folder in (("--bin-base", self.bin_base), ("--bin-patched", self.bin_patched)):
            if folder is not None and not folder.is_dir():
                raise UsageProblem(f"{name} {folder} is no folder.", "Give the bin folder of a llama.cpp build.")
        if self.model is not None:
            inputs.given_model(self.model)
        if self.text is not None:
            inputs.given_text(self.text)


@dataclass(frozen=True)
class Plan:
    """What a comparison will do, known before anything is built."""

    series: Series
    selection: Selection
    model_types: tuple[str, ...]
    switches: dict[str, str]
    kernel_patches: tuple[str, ...]
    threads: int
    seed: int

    def data(self, request: Request) -> dict[str, Any]:
        """The plan for ``--dry-run --json``."""
        size = (quick_size if request.quick else full_size)(self.threads, request.blocks, request.chunks)
        return {
            "selected": list(self.selection.ids),
            "asked": list(self.selection.asked),
            "pulled_in": list(self.selection.pulled_in),
            "arms": [BASE, AGAIN, OFF, *([ON] if self.switches else [])],
            "switches": dict(self.switches),
            "models": [f"{request.model}" if request.model else f"reference model, {t}" for t in self.model_types],
            "kernel_benchmarks": list(self.kernel_patches),
            "blocks": size.blocks,
            "windows": size.windows,
            "threads": self.threads,
            "seed": self.seed,
        }


def make_plan(settings: Settings, request: Request) -> Plan:
    """Resolve the request against the series. Default selection: what is applied, else the whole series."""
    request.check()
    series = load_series(settings)
    selection = _selection(settings, series, request)
    patches = [series.get(patch_id) for patch_id in selection.ids]
    switched = [patch for patch in patches if patch.meta.switch is not None]
    types = dict.fromkeys(patch.meta.gate.model_type for patch in (switched or patches))
    return Plan(
        series=series,
        selection=selection,
        model_types=("as given",) if request.model else tuple(types),
        switches={patch.meta.switch.env: "on" for patch in switched if patch.meta.switch is not None},
        kernel_patches=tuple(patch.id for patch in patches if patch.meta.gate.kernel_bench is not None),
        threads=request.threads or (free_cores() if request.quick else _cores()),
        seed=request.seed if request.seed is not None else secrets.randbelow(2**31),
    )


def prepare(settings: Settings, request: Request, plan: Plan, folder: RunFolder, report: Report) -> Job:
    """Fetch, build, quantise and check everything the job needs."""
    series, state = plan.series, settings.state
    source = inputs.given_model(request.model) if request.model else inputs.given_model(reference_model())
    upstream: Upstream | None = None
    builds: dict[str, Build] = {}

    def fetched() -> Upstream:
        nonlocal upstream
        upstream = upstream or ensure_upstream(settings, series.pin, report)
        return upstream

    def built(name: str) -> Build:
        if name not in builds:
            fetched()
            if name == BASE:
                variant = base_variant(settings, series, report)
            else:
                variant = selected_variant(settings, series, plan.selection, report)
            builds[name] = build(settings, variant, BuildOptions(targets=TARGETS), report)
        return builds[name]

    arms = _arms(request, plan, built)
    base = next(arm for arm in arms if arm.name == BASE)
    if request.text:
        text = inputs.given_text(request.text)
    else:
        at = fetched()
        text = inputs.evaluation_text(Git(at.git_dir), at.tree, state / "text")
    rounds = []
    for type_name in plan.model_types:
        if request.model:
            model, patches = source, plan.selection.ids
        else:
            report(f"reference model as {type_name}")
            model = inputs.quantised_model(folder, base, source, type_name, state / "models")
            patches = tuple(p for p in plan.selection.ids if series.get(p).meta.gate.model_type == type_name)
        rounds.append(RoundPlan(model, patches))
    kernels = []
    for patch_id in plan.kernel_patches:
        bench = series.get(patch_id).meta.gate.kernel_bench
        assert bench is not None
        headers = built(BASE)
        programs = build_kernels(settings, headers, [bench.target], report)
        args = []
        for word in bench.args:
            if VOCABULARY_MODEL in word:
                at = fetched()
                made = inputs.vocabulary_model(state / "models", Git(at.git_dir), at.tree, report)
                args.append(word.replace(VOCABULARY_MODEL, str(made)))
            else:
                args.append(word)
        kernels.append(KernelPlan(patch_id, programs / bench.target, tuple(args)))
    size = (quick_size if request.quick else full_size)(plan.threads, request.blocks, request.chunks)
    switched = tuple(p for p in plan.selection.ids if series.get(p).meta.switch is not None)
    return Job(arms, tuple(rounds), tuple(kernels), text, size, plan.seed, switched, state / "logits")


def _arms(request: Request, plan: Plan, built: Callable[[str], Build]) -> tuple[Arm, ...]:
    def side(name: str, given: Path | None) -> tuple[Path, str, str]:
        if given is not None:
            return given.resolve(), f"given build {given.resolve()}", ""
        made = built(name)
        return made.bin, made.variant.label, made.variant.commit

    base_bin, base_label, base_commit = side(BASE, request.bin_base)
    bin_, label, commit = side("patched", request.bin_patched)
    return make_arms(base_bin, base_label, bin_, label, plan.switches, base_commit=base_commit, patched_commit=commit)


def _selection(settings: Settings, series: Series, request: Request) -> Selection:
    if request.selectors:
        return select(series, request.selectors, request.without)
    return select(series, applied_ids(settings) or ("all",), request.without)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
