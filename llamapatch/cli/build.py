"""``llamapatch build``."""

from __future__ import annotations

import click

from llamapatch.build.builder import Build, BuildOptions, build
from llamapatch.build.check import Checked, check_cuda, named_units
from llamapatch.build.options import DEFAULT_TARGETS
from llamapatch.build.resolve import DEFAULT_VARIANTS, preview, resolve_variants
from llamapatch.build.toolchain import find_toolchain
from llamapatch.cli.common import dry_run_option, emit_json, json_option, out, say, settings, upstream_option
from llamapatch.errors import UsageProblem
from llamapatch.series.load import load_series


@click.command()
@click.option(
    "--variant",
    "names",
    multiple=True,
    metavar="NAME",
    help="What to build: base, patched, a patch id or another selector. Repeatable; default base and patched.",
)
@click.option("--cuda", is_flag=True, help="With the CUDA backend.")
@click.option("--cuda-arch", default="", metavar="LIST", help='GPU architectures, such as 90 or "80;90".')
@click.option("--check", is_flag=True, help="With --cuda: compile only the CUDA files that the patches name.")
@click.option("--targets", default="", metavar="A,B", help="CMake targets, instead of those that measuring needs.")
@click.option("-D", "defines", multiple=True, metavar="NAME=VALUE", help="Passed to CMake. Repeatable.")
@click.option("--jobs", type=click.IntRange(min=1), help="Compilers at a time; default one per processor.")
@dry_run_option
@json_option
@upstream_option
def command(
    *,
    names: tuple[str, ...],
    cuda: bool,
    cuda_arch: str,
    check: bool,
    targets: str,
    defines: tuple[str, ...],
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
    upstream: str | None,
) -> None:
    """Build the unpatched and the patched llama.cpp side by side; only what changed is compiled.

    Programs and libraries end up in .llamapatch/build/<variant>/bin (<variant>-cuda/bin with --cuda).
    """
    if check and not cuda:
        raise UsageProblem("--check was given without --cuda.", "It checks CUDA files: add --cuda.")
    chosen = tuple(t.strip() for t in targets.split(",") if t.strip()) if targets else DEFAULT_TARGETS
    options = BuildOptions(cuda=cuda, cuda_arch=cuda_arch, targets=chosen, defines=defines)
    config = settings(upstream=upstream, jobs=jobs)
    series = load_series(config)
    # A check is about the patches; upstream's own files are not ours to check.
    wanted = names or (("patched",) if check else DEFAULT_VARIANTS)
    if dry_run:
        rows = preview(config, series, wanted, options)
        if as_json:
            emit_json({"schema": 1, "dry_run": True, "builds": rows})
        for row in rows if not as_json else ():
            out.print(f"{row['variant']:<12}would be built in {row['folder']} ({row['now']})", markup=False)
        return
    find_toolchain()  # no compiler? Then say so before anything is fetched.
    variants = resolve_variants(config, series, wanted, say)
    if check:
        checks = [check_cuda(config, v, options, named_units(series, v.ids), say) for v in variants]
        if as_json:
            emit_json({"schema": 1, "checks": [_check_data(c) for c in checks]})
        for done in checks if not as_json else ():
            said = (
                f"{', '.join(done.units)} compile" if done.units else "its patches name no CUDA files; CMake configures"
            )
            out.print(f"{done.variant.name:<12}{said}", markup=False)
        return
    builds = [build(config, variant, options, say) for variant in variants]
    if as_json:
        emit_json({"schema": 1, "builds": [_build_data(b) for b in builds]})
    for finished in builds if not as_json else ():
        out.print(f"{finished.variant.name:<12}{finished.variant.label:<32}{finished.bin}", markup=False)


def _build_data(done: Build) -> dict[str, object]:
    return {
        "variant": done.variant.name,
        "label": done.variant.label,
        "commit": done.variant.commit,
        "bin": str(done.bin),
        "seconds": round(done.seconds, 3),
        "cpu_seconds": round(done.cpu_seconds, 3),
        "configured": done.configured,
        "steps": len(done.steps),
    }


def _check_data(done: Checked) -> dict[str, object]:
    return {"variant": done.variant.name, "units": list(done.units), "seconds": round(done.seconds, 3)}
