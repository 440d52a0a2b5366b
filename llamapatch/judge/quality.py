"""Whether a patch that is switched on keeps the quality its class promises. The one place where that is decided.

* ``identical``: the logits of the ``on`` arm are the unpatched build's, byte for byte, at every micro-batch size.
* ``equivalent``: the squared error of the logits and the upper bound of the KL divergence stay within what upstream
  tolerates in itself. The error may be `NMSE`, the divergence `KLD` or three times the A/A floor; where upstream's own
  two paths (``-ub 1`` and ``-ub 512``) differ by more than that, they are the limit: a patch that answers as upstream
  itself might have answered is no worse than upstream (``docs/decisions/upstream-differs-from-itself.md``).
* ``lossy``: the budgets of ``[gate]``, each against the bound of an interval. A KL budget that the 16-bit storage of
  base's log-probabilities would blur is judged on the 32-bit logits instead.

A bound within the limit passes, an interval beyond it fails, one that holds both is inconclusive; what was not measured
never passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scipy import stats

from llamapatch.judge.gate_result import StepWord
from llamapatch.judge.result import LogitsResult, Quality, RoundResult
from llamapatch.measure.arms import BASE, OFF, ON
from llamapatch.series.model import PatchMeta

NMSE = 1e-6
KLD = 1e-3  # nats
FLOORS = 3
# A budget below this many floors is not told apart from what 16-bit storage adds.
CLEAR = 10


@dataclass(frozen=True)
class Finding:
    """One thing that was judged: what (`name`), the word for it, and a sentence with the figure that decided."""

    name: str
    word: StepWord
    said: str


def judge_quality(found: RoundResult, meta: PatchMeta) -> list[Finding]:
    """The ``on`` arm of one model against the class and the budgets of `meta`."""
    if meta.switch is None:
        return [Finding("quality", "not applicable", "the patch has no switch: its only arm is judged byte for byte.")]
    kind = meta.effect.effect_class
    if kind == "identical":
        return judge_identity(found, ON)
    return list(_equivalent(found) if kind == "equivalent" else _lossy(found, meta))


def judge_identity(found: RoundResult, arm: str = OFF) -> list[Finding]:
    """Whether the logits of `arm` are the unpatched build's, byte for byte, at every micro-batch size."""
    seen = [logits for logits in found.logits if logits.arm == arm]
    if not seen:
        return [Finding("identity", "not measured", f"the logits of the {arm} arm were not compared.")]
    out = []
    for logits in seen:
        where = f"-ub {logits.ubatch}: the logits of the {arm} arm"
        size = f"{logits.positions} x {logits.vocabulary} logits"
        name = f"identity -ub {logits.ubatch}"
        if logits.verdict == "identical":
            out.append(Finding(name, "pass", f"{where} are upstream's in every byte ({size})."))
        elif logits.verdict == "different":
            far = "by more than a number can say" if logits.nmse is None else f"by an NMSE of {logits.nmse:.2e}"
            out.append(Finding(name, "fail", f"{where} differ from upstream's {far} ({size})."))
        else:
            said = f"{where} prove nothing, because upstream does not repeat itself ({size})."
            out.append(Finding(name, "not measured", said))
    return out


def _equivalent(found: RoundResult) -> Iterator[Finding]:
    seen = [logits for logits in found.logits if logits.arm == ON]
    own = [logits for logits in found.logits if logits.arm == BASE]
    if not seen:
        yield Finding("logits error", "not measured", "the logits of the on arm were not compared.")
    own_nmse = max((logits.nmse or 0.0 for logits in own), default=0.0)
    limit = max(NMSE, own_nmse)
    for logits in seen:
        name = f"logits error -ub {logits.ubatch}"
        if logits.verdict == "not provable":
            said = f"-ub {logits.ubatch}: upstream does not repeat itself, so an error against it says nothing."
            yield Finding(name, "not measured", said)
            continue
        if logits.nmse is None:
            yield Finding(name, "fail", f"-ub {logits.ubatch}: the on arm's logits cannot be compared with upstream's.")
            continue
        why = (
            f"upstream's own between -ub 1 and -ub 512 is {own_nmse:.1e}" if own_nmse > NMSE else f"{NMSE:.0e} allowed"
        )
        said = f"-ub {logits.ubatch}: NMSE {logits.nmse:.2e} against upstream's logits, {why}."
        yield Finding(name, "pass" if logits.nmse <= limit else "fail", said)
    own_kld = max((logits.mean_kld or 0.0 for logits in own), default=0.0)
    for floor, on in _pairs(found):
        if floor is None or on is None:
            yield Finding("KL divergence", "not measured", "the quality of the on arm was not measured.")
            continue
        limits = {
            f"{KLD:.0e} nats allowed": KLD,
            f"{FLOORS} x the A/A floor of {floor.mean_kld:.1e} allowed": FLOORS * floor.mean_kld,
            f"upstream's own between -ub 1 and -ub 512 is {own_kld:.1e}": own_kld,
        }
        why = max(limits, key=lambda key: limits[key])
        yield _kld(on, floor, limits[why], why)


def _lossy(found: RoundResult, meta: PatchMeta) -> Iterator[Finding]:
    gate = meta.gate
    if gate.max_kld is None and gate.max_delta_ln_ppl is None and gate.min_top1 is None:
        yield Finding("budgets", "not measured", "the patch is lossy and declares no budget in [gate] of patch.toml.")
        return
    for floor, on in _pairs(found):
        if floor is None or on is None:
            yield Finding("budgets", "not measured", "the quality of the on arm was not measured.")
            continue
        if gate.max_kld is not None and gate.max_kld >= CLEAR * floor.mean_kld:
            yield _kld(on, floor, gate.max_kld, f"{gate.max_kld:.2e} budgeted")
        elif gate.max_kld is not None:
            yield _kld_of_logits([x for x in found.logits if x.arm == ON], gate.max_kld, floor.mean_kld)
        if gate.max_delta_ln_ppl is not None:
            word = _below(on.ln_ratio_low, on.ln_ratio_high, gate.max_delta_ln_ppl)
            said = f"delta ln perplexity {on.ln_ratio:+.2e}{_span(on.ln_ratio_low, on.ln_ratio_high)}{_over(on)}"
            yield Finding("perplexity", word, f"{said}, {gate.max_delta_ln_ppl:.2e} budgeted.")
        if gate.min_top1 is not None:
            yield _top1(on, gate.min_top1)


def _kld(on: Quality, floor: Quality, limit: float, why: str) -> Finding:
    """The divergence above the floor; the interval is that of the difference, window by window."""
    excess = on.mean_kld - floor.mean_kld
    word = _below(on.mean_kld_low, on.mean_kld_high, limit)
    span = _span(on.mean_kld_low, on.mean_kld_high)
    said = f"KL divergence {excess:.2e}{span} above the floor{_over(on)}, {why}."
    return Finding("KL divergence", word, said)


def _kld_of_logits(seen: Sequence[LogitsResult], limit: float, floor: float) -> Finding:
    """The divergence of the 32-bit logits, at the micro-batch size where it is largest."""
    name = "KL divergence"
    if not seen:
        said = f"{limit:.1e} is budgeted, too little for the floor of {floor:.1e}, and no 32-bit logits were compared."
        return Finding(name, "not measured", said)
    worst = max(seen, key=lambda logits: float("inf") if logits.mean_kld is None else logits.mean_kld)
    if worst.mean_kld is None:
        return Finding(name, "fail", f"-ub {worst.ubatch}: the on arm's logits cannot be compared with upstream's.")
    same = worst.verdict == "identical"
    word = "pass" if same else _below(worst.mean_kld_low, worst.mean_kld_high, limit)
    span = _span(worst.mean_kld_low, worst.mean_kld_high)
    said = f"KL divergence {worst.mean_kld:.2e}{span} of the 32-bit logits at -ub {worst.ubatch}, {limit:.2e} budgeted."
    return Finding(name, word, said)


def _top1(on: Quality, least: float) -> Finding:
    """Wilson's interval over the scored tokens, half of each window, taken as independent."""
    tokens = on.windows * (on.context - 1 - on.context // 2)
    found = stats.binomtest(round(on.same_top * tokens), tokens).proportion_ci(method="wilson")
    word = _below(-float(found.high), -float(found.low), -least)
    span = _span(float(found.low), float(found.high), ".4f")
    said = f"top-1 agreement {on.same_top:.4f}{span}{_over(on)}, {least} demanded."
    return Finding("top-1 agreement", word, said)


def _below(low: float | None, high: float | None, limit: float) -> StepWord:
    """Whether a figure's interval stays within `limit`; without an interval nothing can be said."""
    if low is None or high is None:
        return "inconclusive"
    if high <= limit:
        return "pass"
    return "fail" if low > limit else "inconclusive"


def _span(low: float | None, high: float | None, form: str = ".2e") -> str:
    return f" [{low:{form}}, {high:{form}}]" if low is not None and high is not None else " (too few windows)"


def _over(on: Quality) -> str:
    return f" over {on.windows} windows of {on.context}"


def _pairs(found: RoundResult) -> list[tuple[Quality | None, Quality | None]]:
    """For each length of context: the unpatched build against itself, and the ``on`` arm."""
    pairs: dict[int, list[Quality | None]] = {}
    for quality in found.quality:
        pair = pairs.setdefault(quality.context, [None, None])
        if quality.floor:
            pair[0] = quality
        elif quality.arm == ON:
            pair[1] = quality
    return [(floor, on) for floor, on in pairs.values()] or [(None, None)]
