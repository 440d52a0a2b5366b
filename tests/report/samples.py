"""A gate with one of every outcome, and the effects of patches."""

from __future__ import annotations

from typing import Any

from llamapatch.judge.gate_result import EffectsResult, GateResult

MACHINE = {"id": "m1", "cpu": "a processor", "cores": 2, "flags": ["avx2"], "governor": None, "memory_bytes": 2**34}


def step(name: str, word: str, said: str, **more: Any) -> dict[str, Any]:
    fields = {"name": name, "word": word, "said": said, "seconds": 1.25, "commands": [f"llamapatch {name}"],
              "evidence": [f"{name}.log"]}  # fmt: skip
    return fields | more


def job(patch: str, word: str, steps: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    fields = {
        "job": f"{patch:0<40}", "patch": patch, "title": f"What {patch} does", "phase": "phase1", "effect": "lossy",
        "paper": "arXiv 1", "budgets": {"max_kld": 0.001}, "where": "closure", "applied": ["foundation", patch],
        "backend": "cpu", "scenario": "quick", "word": word, "steps": steps, "comparison": "run-1", "cached": False,
        "measured_at": "2026-11-25T10:00:00+00:00", "machine": MACHINE,
    }  # fmt: skip
    return fields | more


LINT = step("lint", "pass", "no remarks.")
GOOD = job("good", "pass", [LINT, step("speed", "pass", "pp128 2.10x, at least 2.00x; 1.8x claimed.")], cached=True)
BAD = job("bad", "fail", [LINT, step("compile-cuda", "not applicable", "no CUDA file is touched."),
                          step("quality", "fail", "KL divergence 2e-2 | <0.001 budgeted>.")])  # fmt: skip
OPEN = job("open", "inconclusive", [LINT, step("speed", "inconclusive", "about 40 blocks needed.")], where="series")
DEAF = job("deaf", "not measured", [LINT, step("speed", "not measured", "zero rows\x1b[0m.")])
NEVER = job("never", "not measured", [], measured_at="", comparison=None, machine={})


def gate(jobs: list[dict[str, Any]], exit_code: int = 6, **more: Any) -> GateResult:
    fields = {
        "schema": 1, "tool": "0.1", "id": "gate-1", "started": "2026-11-25T10:00:00+00:00", "seconds": 60.0,
        "command": "llamapatch gate", "profile": "quick", "upstream_version": "v0.5.0", "upstream_tree": "f" * 40,
        "series_chain": "c" * 64, "machine": MACHINE, "jobs": jobs, "raw": ".llamapatch/gates", "exit_code": exit_code,
    }  # fmt: skip
    return GateResult.model_validate(fields | more)


def everything() -> GateResult:
    return gate([GOOD, BAD, OPEN, DEAF, NEVER])


def effect(patch: str, ratio: float, word: str = "faster", **more: Any) -> dict[str, Any]:
    fields = {"patch": patch, "before": f"without {patch}", "after": f"with {patch}", "ratio": ratio,
              "low": ratio * 0.9, "high": ratio * 1.1, "blocks": 7, "word": word}  # fmt: skip
    return fields | more


def effects(kind: str = "waterfall", **more: Any) -> EffectsResult:
    fields = {
        "schema": 1, "kind": kind, "tool": "0.1", "id": f"{kind}-1", "started": "2026-11-25T11:00:00+00:00",
        "seconds": 60.0, "command": f"llamapatch {kind}", "metric": "tg128", "unit": "tokens/s", "model": "toy Q2_0",
        "upstream_version": "v0.5.0", "series_chain": "c" * 64, "machine": MACHINE,
        "effects": [effect("one", 2.0), effect("two", 0.5, "slower"), effect("three", 1.5, low=None, high=None)],
        "found": None, "threshold": None, "raw": ".llamapatch/runs/waterfall-1", "exit_code": 0,
    }  # fmt: skip
    return EffectsResult.model_validate(fields | more)
