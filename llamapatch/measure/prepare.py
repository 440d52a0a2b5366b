"""From a request to a job: upstream, variants, builds, model and text.

Only what the request needs is made: with both ``--bin-base`` and ``--bin-patched`` nothing is built, and with a text of
the user's own upstream is not even fetched.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llamapatch.build.builder import Build, BuildOptions, build
from llamapatch.build.kernels import build_kernels
from llamapatch.config import Settings
from llamapatch.errors import UsageProblem
from llamapatch.git import Git
from llamapatch.measure import inputs
from llamapatch.measure.arms import AGAIN, BASE, OFF, ON, PEER, Arm, make_arms
from llamapatch.measure.bench import BATCHED_TOOL
from llamapatch.measure.bench import TOOL as BENCH
from llamapatch.measure.greedy import TOOL as COMPLETION
from llamapatch.measure.identity import TOOL as RESULTS
from llamapatch.measure.machine import free_cores
from llamapatch.measure.perplexity import TOOL as PERPLEXITY
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.scenario import REFERENCE, Profile, Scenario, cores, load_scenarios
from llamapatch.measure.session import Job, KernelPlan, RoundPlan
from llamapatch.models.reference import reference_model
from llamapatch.models.stress import stress_model
from llamapatch.series.load import Series, load_series
from llamapatch.series.select import Selection, select
from llamapatch.tree.state import applied_ids
from llamapatch.tree.variants import base_variant, selected_variant
from llamapatch.upstream.fetch import Upstream, ensure_upstream

Report = Callable[[str], None]
TARGETS = (PERPLEXITY, BENCH, BATCHED_TOOL, RESULTS, COMPLETION, inputs.QUANTIZE)
VOCABULARY_MODEL = "{vocab_model}"
# What --model may name besides a file: the packaged model, and its twin with activation outliers.
STRESS = Path("stress")
PACKAGED = (Path(REFERENCE), STRESS)
# Models whose text quality means something.
TRAINED = (REFERENCE,)


@dataclass(frozen=True)
class Request:
    """What the user asked for; None and empty mean "as the tool sees fit". `profile` names what is measured
    (``ci/scenarios.toml``), `peers` are other builds by name, `only` the patches whose switches are on (none: all)."""

    selectors: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    profile: str = "standard"
    model: Path | None = None
    text: Path | None = None
    blocks: int | None = None
    chunks: int | None = None
    threads: int | None = None
    seed: int | None = None
    keep: Path | None = None
    bin_base: Path | None = None
    bin_patched: Path | None = None
    peers: dict[str, Path] = field(default_factory=dict)
    only: tuple[str, ...] = ()

    @property
    def given_model(self) -> Path | None:
        """The user's own model; None where it is one of the packaged ones."""
        return None if self.model in (None, *PACKAGED) else self.model

    def check(self) -> None:
        """Raise `UsageProblem` for what can be refused before anything is fetched or built."""
        for name, value, least in (
            ("--blocks", self.blocks, 1),
            ("--chunks", self.chunks, 2),
            ("--threads", self.threads, 1),
        ):
            if value is not None and value < least:
                raise UsageProblem(f"{name} is {value}; it must be at least {least}.")
        folders = {"--bin-base": self.bin_base, "--bin-patched": self.bin_patched}
        folders |= {f"--peer {name}": folder for name, folder in self.peers.items()}
        for name, folder in folders.items():
            if folder is not None and not folder.is_dir():
                raise UsageProblem(f"{name} {folder} is no folder.", "Give the bin folder of a llama.cpp build.")
        if self.given_model is not None:
            inputs.given_model(self.given_model)
        if self.text is not None:
            inputs.given_text(self.text)

    def data(self) -> dict[str, Any]:
        """As JSON data, for `from_data`."""
        paths = {k: None if v is None else str(v) for k, v in vars(self).items() if isinstance(v, Path)}
        return asdict(self) | paths | {"peers": {name: str(path) for name, path in self.peers.items()}}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Request:
        """The inverse of `data`."""
        paths = {k: Path(data[k]) for k in ("model", "text", "keep", "bin_base", "bin_patched") if data[k] is not None}
        words = {k: tuple(data[k]) for k in ("selectors", "without", "only")}
        return cls(**(data | paths | words | {"peers": {name: Path(p) for name, p in data["peers"].items()}}))


@dataclass(frozen=True)
class Plan:
    """What a comparison will do, known before anything is built. `models` are (name, type) with the scenarios that run
    on them."""

    series: Series
    selection: Selection
    profile_name: str
    profile: Profile
    models: dict[tuple[str, str], dict[str, Scenario]]
    switches: dict[str, str]
    switched: tuple[str, ...]
    kernel_patches: tuple[str, ...]
    threads: int
    seed: int

    def data(self, request: Request) -> dict[str, Any]:
        """The plan for ``--dry-run --json``."""
        return {
            "selected": list(self.selection.ids),
            "asked": list(self.selection.asked),
            "pulled_in": list(self.selection.pulled_in),
            "profile": self.profile_name,
            "arms": [BASE, AGAIN, OFF, *([ON] if self.switches else []), *(PEER + name for name in request.peers)],
            "switches": dict(self.switches),
            "models": [
                f"{request.given_model}"
                if request.given_model and name == REFERENCE
                else f"{(request.model if name == REFERENCE else None) or name} model, {type_name}"
                for name, type_name in self.models
            ],
            "scenarios": list(dict.fromkeys(name for found in self.models.values() for name in found)),
            "kernel_benchmarks": list(self.kernel_patches),
            "blocks": self.profile.blocks,
            "windows": self.profile.windows or None,
            "threads": self.threads,
            "seed": self.seed,
            "speed_seconds": round(self.speed_seconds(len(request.peers))),
        }

    def speed_seconds(self, peers: int) -> float:
        """The scenarios' own estimate of the time for speed, on two idle cores and without extensions."""
        arms = 3 + bool(self.switches) + peers
        return sum(
            scenario.seconds * 2 * arms * (scenario.blocks or self.profile.blocks)
            for found in self.models.values()
            for scenario in found.values()
        )


def make_plan(settings: Settings, request: Request) -> Plan:
    """Resolve the request against the series. Default selection: what is applied, else the whole series."""
    request.check()
    series = load_series(settings)
    selection = _selection(settings, series, request)
    profile, scenarios = load_scenarios(settings).pick(request.profile)
    if request.blocks is not None:
        profile = profile.model_copy(update={"blocks": request.blocks})
    if request.chunks is not None:
        profile = profile.model_copy(update={"windows": request.chunks})
    only = set(request.only) or set(selection.ids)
    if unknown := only - set(selection.ids):
        raise UsageProblem(f"--only {min(unknown)} is not among the selected patches.", "Select it as well.")
    patches = [series.get(patch_id) for patch_id in selection.ids if patch_id in only]
    switched = [patch for patch in patches if patch.meta.switch is not None]
    types = dict.fromkeys(patch.meta.gate.model_type for patch in (switched or patches))
    models: dict[tuple[str, str], dict[str, Scenario]] = {}
    for name, scenario in scenarios.items():
        if scenario.type:
            wanted: tuple[str, ...] = (scenario.type,)
        else:
            wanted = ("as given",) if request.given_model and scenario.model == REFERENCE else tuple(types)
        for type_name in wanted:
            models.setdefault((scenario.model, type_name), {})[name] = scenario
    threads = request.threads or (free_cores() if profile.threads == "free" else cores())
    return Plan(
        series=series,
        selection=selection,
        profile_name=request.profile,
        profile=profile,
        models=models,
        switches={patch.meta.switch.env: "on" for patch in switched if patch.meta.switch is not None},
        switched=tuple(patch.id for patch in switched),
        kernel_patches=tuple(patch.id for patch in patches if patch.meta.gate.kernel_bench is not None),
        threads=threads,
        seed=request.seed if request.seed is not None else secrets.randbelow(2**31),
    )


def prepare(settings: Settings, request: Request, plan: Plan, folder: RunFolder, report: Report) -> Job:
    """Fetch, build, quantise and check everything the job needs."""
    series, state = plan.series, settings.state
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
    maker = _ModelMaker(settings, request, folder, base, fetched, report)
    rounds = []
    for (name, type_name), scenarios in plan.models.items():
        model = maker.make(name, type_name)
        patches = tuple(
            p for p in plan.selection.ids if maker.is_given(name) or series.get(p).meta.gate.model_type == type_name
        )
        rounds.append(RoundPlan(model, patches, scenarios, quality=name in TRAINED))
    kernels = []
    for patch_id in plan.kernel_patches:
        bench = series.get(patch_id).meta.gate.kernel_bench
        assert bench is not None
        headers = built(BASE)
        programs = build_kernels(settings, headers, [bench.target], report)
        args = []
        quick = plan.profile.quick_kernels and bench.quick_args is not None
        for word in (bench.quick_args or []) if quick else bench.args:
            if VOCABULARY_MODEL in word:
                at = fetched()
                made = inputs.vocabulary_model(state / "models", Git(at.git_dir), at.tree, report)
                args.append(word.replace(VOCABULARY_MODEL, str(made)))
            else:
                args.append(word)
        kernels.append(KernelPlan(patch_id, programs / bench.target, tuple(args)))
    return Job(
        arms=arms,
        rounds=tuple(rounds),
        kernels=tuple(kernels),
        text=text,
        profile=plan.profile,
        threads=plan.threads,
        seed=plan.seed,
        switched=plan.switched,
        logits_cache=state / "logits",
    )


@dataclass(frozen=True)
class _ModelMaker:
    """Models by name and type, made once each under ``.llamapatch/models``."""

    settings: Settings
    request: Request
    folder: RunFolder
    base: Arm
    fetched: Callable[[], Upstream]
    report: Report

    def is_given(self, name: str) -> bool:
        return name == REFERENCE and self.request.given_model is not None

    def make(self, name: str, type_name: str) -> inputs.ModelFile:
        """The reference model (or the user's instead) or a synthetic shape."""
        cache = self.settings.state / "models"
        if self.is_given(name):
            assert self.request.given_model is not None
            return inputs.given_model(self.request.given_model)
        if name == REFERENCE:
            stressed = self.request.model == STRESS
            self.report(f"{'stress' if stressed else 'reference'} model as {type_name}")
            source = stress_model(cache) if stressed else reference_model()
            return inputs.quantised_model(self.folder, self.base, inputs.given_model(source), type_name, cache)
        self.report(f"{name} in {type_name}")
        at = self.fetched()
        return inputs.synthetic_model(cache, name, type_name, Git(at.git_dir), at.tree, self.report)


def _arms(request: Request, plan: Plan, built: Callable[[str], Build]) -> tuple[Arm, ...]:
    def side(name: str, given: Path | None) -> tuple[Path, str, str]:
        if given is not None:
            return given.resolve(), f"given build {given.resolve()}", ""
        made = built(name)
        return made.bin, made.variant.label, made.variant.commit

    base_bin, base_label, base_commit = side(BASE, request.bin_base)
    bin_, label, commit = side("patched", request.bin_patched)
    return make_arms(
        base_bin,
        base_label,
        bin_,
        label,
        plan.switches,
        base_commit=base_commit,
        patched_commit=commit,
        peers={name: folder.resolve() for name, folder in request.peers.items()},
    )


def _selection(settings: Settings, series: Series, request: Request) -> Selection:
    if request.selectors:
        return select(series, request.selectors, request.without)
    return select(series, applied_ids(settings) or ("all",), request.without)
