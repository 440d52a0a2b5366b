"""The rules of the gate that read a comparison: identity of the off arm, quality, speed, memory.

Each rule returns one `Finding`: a word, and one sentence with the figure that decided. Nothing here measures, and
nothing passes because it was not measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from llamapatch.judge.gate_result import StepWord, worst
from llamapatch.judge.quality import Finding, judge_identity, judge_quality
from llamapatch.judge.result import Comparison, Ratio, RoundResult
from llamapatch.measure.arms import OFF, ON
from llamapatch.series.model import Claim, PatchMeta

# Which profiles measure what a less patient one does not.
PATIENCE = ("quick", "standard", "full")
KERNELS = "kernels"


def off_identity(found: Comparison, meta: PatchMeta) -> Finding:
    """With its switches off a patched build is upstream, byte for byte, at every micro-batch size."""
    del meta
    return _joined("off-identity", [(r, judge_identity(r)) for r in _trained(found)], "no logits were compared.")


def quality(found: Comparison, meta: PatchMeta) -> Finding:
    """What the effect class allows the on arm (`judge.quality`), on every trained model that was measured."""
    return _joined("quality", [(r, judge_quality(r, meta)) for r in _trained(found)], "no text was evaluated.")


def _trained(found: Comparison) -> list[RoundResult]:
    """Rounds with text quality; a round of random weights has none and owes none."""
    return [r for r in found.rounds if r.trained]


def _joined(name: str, parts: Sequence[tuple[RoundResult, list[Finding]]], nothing: str) -> Finding:
    """One finding from many: the worst word, and the sentences that have it (all of them when all is well)."""
    every = [(round_, finding) for round_, findings in parts for finding in findings]
    if not every:
        return Finding(name, "not measured", nothing)
    word = worst([finding.word for _, finding in every])
    said: dict[str, list[str]] = {}
    for round_, finding in every:
        if finding.word == word:
            said.setdefault(_name(round_), []).append(finding.said.rstrip("."))
    return Finding(name, word, "; ".join(f"{model}: {', '.join(texts)}" for model, texts in said.items()) + ".")


def speed(found: Comparison, meta: PatchMeta) -> Finding:
    """Never slower than `max_slowdown` on any primary metric, on or off, and every claim kept."""
    margin = meta.gate.max_slowdown
    ratios = [
        (f"{r.metric} {r.arm}", r)
        for round_ in found.rounds
        for r in round_.speed
        if r.arm in (OFF, ON) and r.word != "info"
    ]
    if not ratios:
        return Finding("speed", "not measured", "no speed was measured.")
    results = [(name, not_slower(ratio, margin), ratio) for name, ratio in ratios]
    word = worst([found for _, found, _ in results])
    deciding = [(name, ratio) for name, found, ratio in results if found == word] if word != "pass" else []
    shown = deciding or [min(((n, r) for n, _, r in results), key=lambda pair: pair[1].ratio)]
    said = "; ".join(f"{name} {spoken(ratio)}" for name, ratio in shown)
    tail = {
        "pass": f"none of {len(results)} metrics slower by {margin:.0%}",
        "fail": f"slower by more than {margin:.0%}",
    }
    words: list[StepWord] = [word]
    text = [f"{tail.get(word, word)}: {said}"]
    for claim in meta.gate.claim:
        kept = check_claim(found, claim, meta)
        words.append(kept.word)
        text.append(kept.said.rstrip("."))
    return Finding("speed", worst(words), f"{'; '.join(text)}.")


def check_claim(found: Comparison, claim: Claim, meta: PatchMeta) -> Finding:
    """A promised speed-up, on the lower bound of its interval."""
    if found.profile in PATIENCE and PATIENCE.index(found.profile) < PATIENCE.index(claim.profile):
        return Finding(
            "claim", "not applicable", f"the claim of {claim.min}x on {claim.metric} needs the profile {claim.profile}"
        )
    where = f"{claim.metric} {claim.model}".strip()
    if claim.metric == KERNELS:
        ratios = [r for k in found.kernels if k.patch == meta.id for r in k.overall if r.arm == ON]
    else:
        ratios = [
            r
            for round_ in found.rounds
            if claim.model in ("", round_.model.type, f"{round_.model.name} {round_.model.type}")
            for r in round_.speed
            if r.arm == ON and r.metric == claim.metric
        ]
    if not ratios:
        return Finding("claim", "not measured", f"{claim.min}x is claimed on {where}, which was not measured")
    words: list[StepWord] = []
    for ratio in ratios:
        if ratio.low is None or ratio.high is None or ratio.word in ("no verdict", "unfit"):
            words.append("not measured" if ratio.word == "unfit" else "inconclusive")
        else:
            words.append("pass" if ratio.low >= claim.min else "fail" if ratio.high < claim.min else "inconclusive")
    return Finding("claim", worst(words), f"{where} {', '.join(map(spoken, ratios))}, claimed {claim.min}x")


def memory(found: Comparison, meta: PatchMeta) -> Finding:
    """Peak resident memory grows by `max_memory_growth` at most, on or off."""
    most = 1 + meta.gate.max_memory_growth
    ratios = [
        (f"{_name(round_)}, {r.arm}", r)
        for round_ in found.rounds
        for r in round_.cost
        if r.arm in (OFF, ON) and r.metric.startswith("peak memory") and r.word != "info"
    ]
    words = [_not_more(ratio, most) for _, ratio in ratios]
    if not words:
        return Finding("memory", "not measured", "no memory was measured.")
    word = worst(words)
    name, ratio = max(
        ((n, r) for (n, r), w in zip(ratios, words, strict=True) if w == word), key=lambda pair: pair[1].ratio
    )
    return Finding("memory", word, f"peak memory {name}: {spoken(ratio)}, at most {most:.2f}x allowed.")


MEASURED = {"off-identity": off_identity, "quality": quality, "speed": speed, "memory": memory}


def measured(found: Comparison, meta: PatchMeta) -> dict[str, Finding]:
    """Every rule's finding by the step of the ladder that it is.

    What failed, failed; but nothing passes while a part of the comparison measured nothing.
    """
    problems = "; ".join(f"{p.where}: {p.what}" for p in found.problems)
    out = {}
    for name, rule in MEASURED.items():
        finding = rule(found, meta)
        if problems and finding.word in ("pass", "inconclusive"):
            finding = Finding(name, "not measured", f"{finding.said} But {problems}")
        out[name] = finding
    return out


def not_slower(ratio: Ratio, margin: float) -> StepWord:
    """Whether one ratio of speeds may have fallen by more than `margin`."""
    if ratio.word == "unfit":
        return "not measured"
    if ratio.low is None or ratio.word == "no verdict":
        return "inconclusive"
    if ratio.low >= 1 - margin:
        return "pass"
    # `slower` is significant after Holm; that it is also worse than allowed is for the estimate to say.
    return "fail" if ratio.word == "slower" and ratio.ratio < 1 - margin else "inconclusive"


def _not_more(ratio: Ratio, most: float) -> StepWord:
    """Memory hardly varies: the A/A arm's own difference is no reason to doubt a ratio within the limit."""
    if ratio.low is None or ratio.high is None:
        return "inconclusive"
    return "pass" if ratio.high <= most else "fail" if ratio.low > most else "inconclusive"


def spoken(ratio: Ratio) -> str:
    """``2.10x [2.04, 2.16]``."""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.ratio:.3g}x"
    return f"{ratio.ratio:.3f}x [{ratio.low:.3f}, {ratio.high:.3f}]"


def _name(round_: RoundResult) -> str:
    return f"{round_.model.name} {round_.model.type}"


def applicable(words: Sequence[StepWord]) -> StepWord:
    """The word of a job: the worst of its steps; a job in which nothing applied measured nothing."""
    word = worst(list(words))
    return "not measured" if word == "not applicable" else word
