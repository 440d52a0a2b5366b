"""How often would the gate be wrong? Record the unpatched build against itself, then judge thousands of gates of it.

usage: python ci/noise.py record FILE --bin DIR [--blocks 64] [--type F16] [--threads N]
       python ci/noise.py judge FILE... [--gates 1000] [--slowdown 0.05]

`record` runs the quick profile's scenario of the reference model, eight processes a block as in a gate with four arms,
and writes one JSON line per process. `judge` takes stretches of consecutive blocks at random, names the eight
processes of each block base, base again, off and on as the schedule would have, and lets the gate's own code judge:
unchanged, and with the on arm slowed down. Neighbouring blocks stay neighbours, so drifts and bursts stay in.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from llamapatch.config import load_settings
from llamapatch.judge import rules
from llamapatch.judge.comparison import Metric, ratios_of
from llamapatch.judge.gate_result import worst
from llamapatch.judge.selftest import toy_meta
from llamapatch.measure.arms import AGAIN, BASE, OFF, ON, Arm
from llamapatch.measure.bench import measure_speed
from llamapatch.measure.inputs import given_model, quantised_model
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.scenario import load_scenarios
from llamapatch.measure.schedule import interleave
from llamapatch.models.reference import reference_model

ARMS = (BASE, AGAIN, OFF, ON)
SCENARIO = "reference-short"


def record(path: Path, tools: Path, blocks: int, type_name: str, threads: int) -> None:
    """Run `blocks` blocks of eight processes and append them to `path`."""
    scenario = load_scenarios(load_settings()).scenario[SCENARIO]
    arm = Arm(BASE, tools.resolve(), "base")
    with tempfile.TemporaryDirectory() as place, path.open("a", encoding="utf-8") as out:
        folder = RunFolder.create(Path(place) / "run")
        model = quantised_model(folder, arm, given_model(reference_model()), type_name, Path(place))
        for block in range(blocks):
            for position in range(2 * len(ARMS)):
                speed = measure_speed(folder, arm, block, model.path, scenario, name=SCENARIO, threads=threads)
                row = {"block": block, "position": position, "ns": speed.ns, "typical_ns": speed.typical_ns}
                out.write(json.dumps(row | {"contended": speed.contended}) + "\n")
                out.flush()
            print(f"\rblock {block + 1} of {blocks}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def judge(path: Path, gates: int, slowdown: float) -> dict[str, float]:
    """The shares of the gate's words over resampled gates, in percent."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_block: dict[int, list[dict[str, dict[str, float]]]] = {}
    for row in rows:
        by_block.setdefault(row["block"], []).append(row)
    blocks = [by_block[key] for key in sorted(by_block) if len(by_block[key]) == 2 * len(ARMS)]
    profile, _ = load_scenarios(load_settings()).pick("quick")
    rng = random.Random(1)  # noqa: S311
    out: dict[str, float] = {
        "blocks": len(blocks),
        "contended": 100 * sum(row["contended"] for row in rows) / len(rows),
    }
    for estimator in ("ns", "typical_ns"):
        for name, factor in (("unchanged", 1.0), ("slower", 1.0 + slowdown)):
            words = Counter(_gate(rng, blocks, profile.blocks, profile.extend, estimator, factor) for _ in range(gates))
            for word in ("pass", "fail", "inconclusive", "not measured"):
                out[f"{estimator} {name} {word}"] = 100 * words[word] / gates
    return out


def _gate(
    rng: random.Random,
    blocks: list[list[dict[str, dict[str, float]]]],
    count: int,
    extend: int,
    estimator: str,
    factor: float,
) -> str:
    """One gate with its extensions, on blocks that follow each other."""
    looks = 1 + extend
    start = rng.randrange(len(blocks) - looks * count + 1)
    chosen = blocks[start : start + looks * count]
    labels = [arm for _, arm in interleave(ARMS, len(chosen), rng.randrange(2**31))]
    word = "inconclusive"
    for look in range(1, looks + 1):
        metrics = []
        for test in chosen[0][0]["ns"]:
            samples = [
                (block, labels[8 * block + i], row[estimator][test] * (factor if labels[8 * block + i] == ON else 1.0))
                for block, processes in enumerate(chosen[: look * count])
                for i, row in enumerate(processes)
            ]
            metrics.append(Metric(test, samples, "", float))
        ratios = ratios_of(metrics, (AGAIN, OFF, ON), "speed", looks)
        margin = toy_meta().gate.max_slowdown
        word = worst([rules.not_slower(r, margin) for r in ratios if r.arm in (OFF, ON)])
        # As the runner: more blocks while a primary metric is undecided.
        if not any(r.word == "inconclusive" for r in ratios if r.arm in (OFF, ON)):
            break
    return word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recorder = verbs.add_parser("record")
    recorder.add_argument("file", type=Path)
    recorder.add_argument("--bin", type=Path, required=True)
    recorder.add_argument("--blocks", type=int, default=64)
    recorder.add_argument("--type", default="F16")
    recorder.add_argument("--threads", type=int, default=1)
    judger = verbs.add_parser("judge")
    judger.add_argument("files", type=Path, nargs="+")
    judger.add_argument("--gates", type=int, default=1000)
    judger.add_argument("--slowdown", type=float, default=0.05)
    options = parser.parse_args()
    if options.verb == "record":
        record(options.file, options.bin, options.blocks, options.type, options.threads)
        return
    for path in options.files:
        print(path.name)
        for name, value in judge(path, options.gates, options.slowdown).items():
            print(f"    {name:<28}{value:6.1f}")


if __name__ == "__main__":
    main()
