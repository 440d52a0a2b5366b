"""A comparison as tables of text: the one source of what the terminal and Markdown show.

A speed is claimed as a ratio with its interval and number of blocks, never as bare times: those depend on the machine
and on who else used it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from llamapatch.judge.paired import MIN_PAIRS
from llamapatch.judge.result import Comparison, KernelResult, Ratio, RoundResult
from llamapatch.measure.arms import BASE, OFF, ON, PEER, SWITCH_PREFIX

ARM_NAMES = {
    "base": "unpatched",
    "base-again": "unpatched again (A/A)",
    "off": "patched, switches off",
    "on": "patched, switches on",
}


def arm_name(arm: str) -> str:
    """An arm in words; a peer under its own name."""
    return ARM_NAMES.get(arm, arm.removeprefix(PEER))


UNMEASURABLE = "not measurable here"


@dataclass(frozen=True)
class Table:
    """A titled frame of strings; `note` is printed below it."""

    title: str
    frame: pd.DataFrame
    note: str = ""


def all_tables(result: Comparison) -> list[Table]:
    """Every table of a comparison, in reading order; parts without data have none."""
    tables = []
    for found in result.rounds:
        name = f"{found.model.name}, {found.model.type}"
        tables += [
            speed_table(found.speed, f"Speed ({name})", result.level),
            quality_table(found, f"Text quality ({name})"),
            logits_table(found, f"Logits ({name})"),
            greedy_table(found, f"Greedy text ({name})"),
            cost_table(found, f"Memory and processor time ({name})"),
        ]
    for kernel in result.kernels:
        tables.append(kernel_table(kernel))
    tables.append(activity_table(result))
    return [table for table in tables if not table.frame.empty]


def speed_table(ratios: list[Ratio], title: str, level: float) -> Table:
    """One row for each test, one column for each arm against the unpatched build."""
    rows = []
    for metric in dict.fromkeys(ratio.metric for ratio in ratios):
        row = {"test": metric}
        for ratio in (r for r in ratios if r.metric == metric):
            row[arm_name(ratio.arm)] = spoken(ratio)
        shown = [r for r in ratios if r.metric == metric and r.arm in (ON, OFF)]
        if shown:
            row["verdict"] = verdict_words(shown[-1])
        rows.append(row)
    note = f"Times the unpatched speed (fastest repetition of each process), {100 * level:g} % interval over blocks."
    return Table(title, pd.DataFrame(rows), note)


def quality_table(found: RoundResult, title: str) -> Table:
    """Perplexity and KL divergence against the unpatched build on the same tokens."""
    rows = []
    for quality in found.quality:
        paired = "floor"
        if not quality.floor:
            paired = f"{100 * quality.ln_ratio:+.3f} %"
            if quality.ln_ratio_low is not None and quality.ln_ratio_high is not None:
                paired += f" [{100 * quality.ln_ratio_low:+.3f}, {100 * quality.ln_ratio_high:+.3f}]"
        rows.append(
            {
                "arm": ARM_NAMES[BASE] if quality.floor else arm_name(quality.arm),
                "context": str(quality.context),
                "perplexity": f"{quality.perplexity:.4f}",
                "ln perplexity": paired,
                "KL divergence": f"{_plain(quality.mean_kld):.6f}",
                "99.9 % of tokens below": f"{quality.p999_kld:.6f}",
                "same top token": f"{100 * quality.same_top:.3f} %",
            }
        )
    note = ""
    if found.quality:
        first = found.quality[0]
        note = (
            f"{first.windows} windows of {first.context} tokens; the first row of each context is the floor that "
            "16-bit storage of the unpatched build's log-probabilities leaves."
        )
    return Table(title, pd.DataFrame(rows), note)


def logits_table(found: RoundResult, title: str) -> Table:
    """Whether the logits are the unpatched build's, byte for byte, and how far off they are otherwise."""
    rows = []
    for logits in found.logits:
        far = logits.verdict != "identical" and logits.nmse is not None
        rows.append(
            {
                "arm": ARM_NAMES[logits.arm] + (", against its own -ub 512" if logits.arm == BASE else ""),
                "micro-batch": str(logits.ubatch),
                "bytes": logits.verdict,
                "error (NMSE)": f"{logits.nmse:.2e}" if far else "-",
                "KL divergence": f"{logits.mean_kld:.2e}" if far and logits.mean_kld is not None else "-",
                "same top token": f"{100 * logits.same_top:.2f} %",
            }
        )
    note = ""
    if found.logits:
        note = f"{found.logits[0].positions} positions x {found.logits[0].vocabulary} 32-bit logits."
    return Table(title, pd.DataFrame(rows), note)


def greedy_table(found: RoundResult, title: str) -> Table:
    """How long each arm writes the same text as the unpatched build."""
    rows = [
        {
            "arm": arm_name(greedy.arm),
            "same text": f"{round(greedy.equal * len(greedy.agreed))} of {len(greedy.agreed)} prompts",
            "tokens before the first difference": f"{greedy.mean_agreed:.1f} of {greedy.tokens} (mean)",
        }
        for greedy in found.greedy
    ]
    return Table(title, pd.DataFrame(rows), "Held-out prompts continued at temperature 0, compared token by token.")


def cost_table(found: RoundResult, title: str) -> Table:
    """Peak memory, buffers, CPU time, energy."""
    rows = []
    for metric in dict.fromkeys(ratio.metric for ratio in found.cost):
        here = [r for r in found.cost if r.metric == metric]
        row = {"measure": metric, ARM_NAMES[BASE]: f"{here[0].base:.1f} {here[0].unit}"}
        for ratio in here:
            if ratio.arm in (OFF, ON):
                row[ARM_NAMES[ratio.arm]] = f"{ratio.value:.1f} {ratio.unit}, {spoken(ratio)}"
        rows.append(row)
    for kind in dict.fromkeys(kind for memory in found.memory for kind in memory.buffers):
        row = {"measure": f"{kind} buffers"}
        for memory in found.memory:
            row[ARM_NAMES[memory.arm]] = f"{memory.buffers[kind]:.2f} MiB" if kind in memory.buffers else "none"
        rows.append(row)
    if found.cpu_seconds_per_token:
        row = {"measure": "CPU time per token"}
        for arm, seconds in found.cpu_seconds_per_token.items():
            if arm in (BASE, OFF, ON):
                row[ARM_NAMES[arm]] = f"{1e3 * seconds:.3f} ms"
        rows.append(row)
    gpu = {memory.arm: memory.peak_gpu for memory in found.memory if memory.peak_gpu is not None}
    if gpu:
        rows.append({"measure": "peak GPU memory", **{ARM_NAMES[arm]: f"{mib:.1f} MiB" for arm, mib in gpu.items()}})
    for counter, joules in found.joules_per_token.items():
        shown = {ARM_NAMES[arm]: f"{1e3 * value:.3g} mJ" for arm, value in joules.items() if arm in (BASE, OFF, ON)}
        rows.append({"measure": f"energy per token, {counter}", **shown})
    if rows and not found.joules_per_token:
        rows.append({"measure": "energy per token", ARM_NAMES[BASE]: UNMEASURABLE})
    return Table(title, pd.DataFrame(rows).fillna(""), "CPU time and peak memory of the whole speed process.")


def kernel_table(kernel: KernelResult) -> Table:
    """The patch's own benchmark: all cases together, then each."""
    rows = []
    for ratios, whole in ((kernel.overall, True), (kernel.cases, False)):
        for metric in dict.fromkeys(ratio.metric for ratio in ratios):
            row = {"case": metric}
            here = [r for r in ratios if r.metric == metric]
            for ratio in here:
                row[ARM_NAMES[ratio.arm]] = spoken(ratio)
            shown = [r for r in here if r.arm in (ON, OFF)]
            row["verdict"] = verdict_words(shown[-1]) if whole and shown else ""
            rows.append(row)
    title = f"Kernel benchmark of {kernel.patch} ({' '.join([kernel.target, *kernel.args])})"
    return Table(title, pd.DataFrame(rows), "Times the unpatched speed; `all cases` is the geometric mean.")


def activity_table(result: Comparison) -> Table:
    """What the patches counted in the arm with switches on."""
    rows = [
        {
            "patch": found.patch,
            "measured on": found.where,
            "handled": f"{found.handled:,}",
            "left to upstream": ", ".join(f"{reason}: {n:,}" for reason, n in sorted(found.fallback.items())) or "0",
        }
        for found in result.activity
    ]
    return Table("Calls that reached the patches", pd.DataFrame(rows))


def spoken(ratio: Ratio) -> str:
    """``1.02x [0.98, 1.06], n=7``."""
    text = f"{ratio.ratio:.{_digits(ratio.ratio)}f}x"
    if ratio.low is not None and ratio.high is not None:
        text += f" [{ratio.low:.{_digits(ratio.low)}f}, {ratio.high:.{_digits(ratio.high)}f}]"
    return f"{text}, n={ratio.blocks}"


def verdict_words(ratio: Ratio) -> str:
    """The verdict of one ratio in words."""
    if ratio.word == "no verdict":
        return f"fewer than {MIN_PAIRS} blocks: no verdict"
    if ratio.word == "unfit":
        return "unfit: the unpatched build differs from itself"
    if ratio.word == "inconclusive":
        return f"inconclusive: about {ratio.blocks_needed} blocks needed"
    words = {"same": "same within 2 %", "not slower": "not slower than 2 %", "not more": "not more than 2 %"}
    return words.get(ratio.word, ratio.word) if ratio.word != "info" else ""


def figures(result: Comparison) -> pd.DataFrame:
    """Every ratio as numbers, one row each, with what it was measured on: for notebooks and histories."""
    rows = []
    labels = {arm.name: arm.label for arm in result.arms}
    groups = [(f.model, r) for f in result.rounds for r in (*f.speed, *f.cost)]
    whole: list[tuple[object, Ratio]] = [(model.sha256, ratio) for model, ratio in groups]
    whole += [(kernel.patch, ratio) for kernel in result.kernels for ratio in (*kernel.overall, *kernel.cases)]
    for measured_on, ratio in whole:
        rows.append(
            {
                "run": result.id,
                "measured_on": measured_on,
                "text": result.text.sha256,
                "machine": str(result.machine.get("id", "")),
                "threads": result.threads,
                "base_build": labels[BASE],
                "build": labels.get(ratio.arm, ""),
                **ratio.model_dump(),
            }
        )
    return pd.DataFrame(rows)


def subject(result: Comparison) -> list[str]:
    """The patches in question: of those asked for, those that were switched on, where any was; the others were built in
    and stayed off (``--only``), or have no switch."""
    switches = next((arm.switches for arm in result.arms if arm.name == ON), {})
    on = [patch for patch in result.asked if SWITCH_PREFIX + patch.upper().replace("-", "_") in switches]
    return on or result.asked


def headlines(result: Comparison) -> list[str]:
    """The result in a few sentences, each true on its own."""
    lines = []
    for found in result.rounds:
        name = f"{found.model.name} {found.model.type}"
        reached = any(a.handled for a in result.activity if a.where == name)
        if not reached and any(arm.name == ON for arm in result.arms):
            lines.append(f"{name}: no patch was reached here, so its switches on and off are the same program.")
        for arm in (ON, OFF):
            speeds = [r for r in found.speed if r.arm == arm]
            if speeds and (arm == ON or not any(r.arm == ON for r in found.speed)):
                said = "; ".join(f"{r.metric} {spoken(r)} ({verdict_words(r)})" for r in speeds)
                lines.append(f"{name}, {ARM_NAMES[arm]}: {said}.")
            quality = next((q for q in found.quality if q.arm == arm), None)
            if quality is not None and arm == ON:
                lines.append(
                    f"{name}, {ARM_NAMES[ON]}: perplexity {quality.perplexity:.4f}, "
                    f"KL divergence {_plain(quality.mean_kld):.6f}, same top token {100 * quality.same_top:.2f} %."
                )
            seen = {logits.verdict for logits in found.logits if logits.arm == arm}
            if seen and arm == OFF:
                word = next(word for word in ("different", "not provable", "identical") if word in seen)
                how = {"identical": "bit-identical to", "different": "NOT identical to"}.get(word)
                said = f"logits {how} upstream" if how else "identity not provable: upstream does not repeat itself"
                lines.append(f"{name}, {ARM_NAMES[OFF]}: {said} (-ub 512 and -ub 1).")
    for kernel in result.kernels:
        for ratio in kernel.overall:
            if ratio.arm == ON:
                lines.append(
                    f"{kernel.patch}, own kernel benchmark: {spoken(ratio)} over {len(kernel.cases) // _arms(kernel)} "
                    f"cases ({verdict_words(ratio)})."
                )
    return lines


def provenance(result: Comparison) -> list[str]:
    """Where the figures come from: builds, model and text hashes, flags, machine."""
    machine = result.machine
    busy = "unknown"
    if result.contended_share is not None:
        busy = f"{100 * result.contended_share:.0f} % of the processes ran while others used over 0.3 core"
    lines = [
        f"series: {', '.join(result.selected)}"
        + (f" (pulled in: {', '.join(result.pulled_in)})" if result.pulled_in else "")
        + (f"; chain {result.series_chain[:12]}" if result.series_chain else ""),
        *(
            f"{arm_name(arm.name)}: {arm.label}"
            + (f" ({' '.join(f'{k}={v}' for k, v in sorted(arm.switches.items()))})" if arm.switches else "")
            for arm in result.arms
            if arm.name != "base-again"
        ),
        *(
            f"model: {found.model.name}, {found.model.type}, sha256 {found.model.sha256[:16]}, "
            f"{found.model.bytes:,} bytes"
            for found in result.rounds
        ),
        f"text: {result.text.name}, sha256 {result.text.sha256[:16]}, {result.text.bytes:,} bytes",
        f"machine {machine.get('id')}: {machine.get('cpu')}, {machine.get('cores')} cores, {result.threads} threads; "
        f"contention: {busy}",
        f"run {result.id}: {result.blocks} blocks, seed {result.seed}, {result.seconds:.0f} s",
    ]
    if result.command:
        lines.append(f"command: {result.command}")
    return lines


def _plain(value: float) -> float:
    """Without the sign of what six decimals show as zero (storage noise may sum up to less than nothing)."""
    return 0.0 if abs(value) < 5e-7 else value


def _arms(kernel: KernelResult) -> int:
    return max(1, len({ratio.arm for ratio in kernel.cases}))


def _digits(value: float) -> int:
    return 3 if 0.9 <= value < 1.1 else 2 if value < 20 else 1
