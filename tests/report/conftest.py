"""A comparison with one of everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llamapatch.config import packaged_home
from llamapatch.judge.gate_result import EffectsResult, GateResult
from llamapatch.judge.result import Comparison
from llamapatch.report.history import Row
from llamapatch.report.load import Results
from llamapatch.report.page import render_page


def ratio(metric: str, arm: str, value: float, **more: Any) -> dict[str, Any]:
    fields = {
        "metric": metric, "arm": arm, "kind": "speed", "ratio": value, "low": value * 0.96, "high": value * 1.04,
        "blocks": 7, "p": 0.03, "robust": value, "word": "faster", "blocks_needed": None, "base": 100.0,
        "value": 100.0 * value, "unit": "tokens/s",
    }  # fmt: skip
    return fields | more


def quality(arm: str, **more: Any) -> dict[str, Any]:
    fields = {
        "arm": arm, "floor": False, "perplexity": 9.35, "ln_ratio": 0.001, "ln_ratio_low": -0.001,
        "ln_ratio_high": 0.003, "mean_kld": 0.0005, "mean_kld_low": None, "mean_kld_high": None, "p999_kld": 0.01,
        "max_kld": 0.02, "same_top": 0.995, "windows": 16, "context": 512,
    }  # fmt: skip
    return fields | more


def logits(arm: str, ubatch: int, verdict: str) -> dict[str, Any]:
    return {
        "arm": arm, "ubatch": ubatch, "verdict": verdict, "positions": 200, "vocabulary": 4096, "nmse": 1e-7,
        "mean_kld": 1e-8, "max_abs": 0.01, "same_top": 1.0, "sha256": "0" * 64,
    }  # fmt: skip


def comparison(**more: Any) -> Comparison:
    arms = [
        {"name": "base", "label": "v0.5.0", "commit": "a" * 40, "switches": {}},
        {"name": "base-again", "label": "v0.5.0", "commit": "a" * 40, "switches": {}},
        {"name": "off", "label": "v0.5.0+lp.b", "commit": "b" * 40, "switches": {"LLAMA_LP_TOY": "off"}},
        {"name": "on", "label": "v0.5.0+lp.b", "commit": "b" * 40, "switches": {"LLAMA_LP_TOY": "on"}},
    ]
    round_ = {
        "model": {"name": "toy", "type": "Q2_0", "sha256": "1" * 64, "bytes": 123, "source_sha256": "2" * 64},
        "patches": ["toy"], "scenarios": {"reference": "prompt 512"}, "trained": True,
        "quality": [quality("base-again", floor=True, mean_kld=-1e-9), quality("off"), quality("on")],
        "logits": [logits("off", 512, "identical"), logits("off", 1, "identical"), logits("on", 512, "different")],
        "speed": [ratio("pp512", "base-again", 1.0, word="info"), ratio("pp512", "off", 1.0, word="same"),
                  ratio("pp512", "on", 5.2)],
        "cost": [ratio("peak memory", "on", 1.0, kind="amount", unit="MiB", word="same")],
        "memory": [{"arm": "base", "peak_rss": 10.0, "buffers": {"KV": 1.5}},
                   {"arm": "on", "peak_rss": 10.0, "buffers": {"KV": 0.5}}],
        "cpu_seconds_per_token": {"base": 0.001, "on": 0.0002},
    }  # fmt: skip
    fields: dict[str, Any] = {
        "schema": 1, "tool": "0.1", "id": "run-1", "started": "2026-11-23T10:00:00+00:00", "seconds": 60.0,
        "command": "llamapatch compare toy", "profile": "standard", "blocks": 7, "level": 0.95, "seed": 1, "threads": 2,
        "upstream_version": "v0.5.0", "upstream_tree": "f" * 40, "series_chain": "c" * 64,
        "selected": ["foundation", "toy"],
        "asked": ["toy"], "pulled_in": ["foundation"], "arms": arms,
        "text": {"name": "held-out | files", "sha256": "3" * 64, "bytes": 5},
        "machine": {"id": "m1", "cpu": "a processor", "cores": 2}, "contended_share": 0.5, "energy": False,
        "rounds": [round_],
        "kernels": [{"patch": "toy", "target": "bench-toy", "args": ["-x"],
                     "overall": [ratio("all cases", "on", 3.0)],
                     "cases": [ratio("n=256", "on", 3.0, word="info", p=None)]}],
        "activity": [{"patch": "toy", "where": "toy Q2_0", "handled": 1234567, "differs": 0, "fallback": {"shape": 2}}],
        "problems": [], "raw": "runs/run-1", "exit_code": 0,
    }  # fmt: skip
    return Comparison.model_validate(fields | more)


@pytest.fixture
def result() -> Comparison:
    return comparison()


def page_of(*found: Comparison | GateResult | EffectsResult, history: Sequence[Row] = ()) -> str:
    """The HTML page of some results, without a series that would describe the patches."""
    results = Results()
    for one in found:
        results.add(one)
    return render_page(results, metas={}, history=history, templates=packaged_home() / "templates", now="a day")
