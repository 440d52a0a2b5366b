"""Whether one patch keeps what its ``patch.toml`` declares, read off a comparison of that patch alone.

* every class: with the switches off, logits are byte-identical to the unpatched build, at every micro-batch size;
* ``identical``: with everything on too;
* ``equivalent``: the mean KL divergence, less the unpatched build's own floor, stays below `EQUIVALENT_KLD`;
* ``lossy``: the budgets of ``[gate]``;
* ``min_speedup``, where claimed, is tested on the lower bound of the kernel benchmark's interval.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from llamapatch.errors import InternalError
from llamapatch.judge.result import Comparison, Quality
from llamapatch.measure.arms import OFF, ON
from llamapatch.series.model import Lock, PatchMeta

# Nats. The tool stores base logits in 16 bits, whose own floor is about 5e-4.
EQUIVALENT_KLD = 1e-3


def content_of(lock: Lock, meta: PatchMeta) -> str:
    """A hash of a patch and of what it requires: a stored result belongs to these bytes or is stale."""
    by_id = {patch.id: patch for patch in lock.patches}
    facts = []
    for patch_id in (*sorted(meta.requires), meta.id):
        patch = by_id.get(patch_id)
        if patch is None:
            raise InternalError(f"series.lock does not know {patch_id}.", "Run `llamapatch lock`.")
        facts.append([patch.id, patch.diff, patch.meta, sorted(patch.overlay.items())])
    return hashlib.sha256(json.dumps([lock.upstream_tree, facts]).encode()).hexdigest()


def violations(found: Comparison, meta: PatchMeta) -> list[str]:
    """What `found`, a comparison of `meta`'s patch, breaks of the declaration; empty when all holds."""
    return [
        *(f"{problem.where}: {problem.what}" for problem in found.problems),
        *_logits(found, meta),
        *_quality(found, meta),
        *_speedup(found, meta),
    ]


def _logits(found: Comparison, meta: PatchMeta) -> Iterator[str]:
    must = {OFF, ON} if meta.effect.effect_class == "identical" else {OFF}
    for round_ in found.rounds:
        seen = {result.arm for result in round_.logits}
        if OFF not in seen:
            yield f"{round_.model.type}: the logits of the off arm were not compared."
        for result in round_.logits:
            if result.arm in must and result.verdict != "identical":
                yield f"{round_.model.type}, -ub {result.ubatch}: logits of the {result.arm} arm are {result.verdict}."


def _quality(found: Comparison, meta: PatchMeta) -> Iterator[str]:
    gate, kind = meta.gate, meta.effect.effect_class
    for round_ in found.rounds:
        floor = next((q for q in round_.quality if q.floor), None)
        on = next((q for q in round_.quality if q.arm == ON), None)
        if meta.switch is None:
            continue
        if floor is None or on is None:
            yield f"{round_.model.type}: the quality of the on arm was not measured."
            continue
        excess = on.mean_kld - floor.mean_kld
        where = f"{round_.model.type}: "
        if kind != "lossy":
            if excess > EQUIVALENT_KLD:
                yield f"{where}KL divergence {excess:.2e} above the floor, {EQUIVALENT_KLD:.0e} allowed."
        else:
            yield from (where + text for text in _budgets(on, excess, meta))
        if gate.min_top1 is not None and on.same_top < gate.min_top1:
            yield f"{where}top-1 agreement {on.same_top:.4f}, {gate.min_top1} demanded."


def _budgets(on: Quality, excess: float, meta: PatchMeta) -> Iterator[str]:
    gate = meta.gate
    if gate.max_kld is not None and excess > gate.max_kld:
        yield f"KL divergence {excess:.2e} above the floor, {gate.max_kld:.2e} budgeted."
    if gate.max_delta_ln_ppl is not None and on.ln_ratio > gate.max_delta_ln_ppl:
        yield f"delta ln perplexity {on.ln_ratio:.2e}, {gate.max_delta_ln_ppl:.2e} budgeted."


def _speedup(found: Comparison, meta: PatchMeta) -> Iterator[str]:
    claim = meta.gate.min_speedup
    if claim is None:
        return
    ratios = [r for k in found.kernels if k.patch == meta.id for r in k.overall if r.arm == ON]
    if not ratios:
        yield f"{claim}x is claimed, but the kernel benchmark measured nothing."
    for ratio in ratios:
        # Two quick blocks carry no interval; then the point estimate has to clear the claim.
        bound = ratio.low if ratio.low is not None else ratio.ratio
        if bound < claim:
            yield f"{claim}x is claimed; measured {ratio.ratio:.2f}x, at least {bound:.2f}x."
