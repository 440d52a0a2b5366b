"""What ``compare --dry-run`` says."""

from __future__ import annotations

from rich.console import Console

from llamapatch.measure.prepare import Plan, Request
from llamapatch.measure.progress import clock


def print_plan(plan: Plan, request: Request, console: Console) -> None:
    """Print what a comparison would do, without doing it."""
    data = plan.data(request)
    console.print(f"would compare {', '.join(data['selected'])} with {plan.series.pin.version}", markup=False)
    if data["pulled_in"]:
        console.print(f"pulled in as requirements: {', '.join(data['pulled_in'])}", markup=False)
    switches = " ".join(f"{name}={value}" for name, value in sorted(plan.switches.items()))
    console.print(f"arms: {', '.join(data['arms'])}" + (f" (on: {switches})" if switches else ""), markup=False)
    console.print(f"models: {', '.join(data['models'])}", markup=False)
    if plan.kernel_patches:
        console.print(f"kernel benchmarks of: {', '.join(plan.kernel_patches)}", markup=False)
    console.print(f"profile {data['profile']}: {', '.join(data['scenarios'])}", markup=False)
    console.print(
        f"{data['blocks']} blocks, {plan.threads} threads, about {clock(data['speed_seconds'])} for speed on idle "
        "cores; nothing was done.",
        markup=False,
    )
