"""Each driver against tools that behave, and against every way in which upstream's tools fail with status 0."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamapatch.errors import EnvironmentProblem, NotMeasured, UsageProblem
from llamapatch.measure import perplexity
from llamapatch.measure.arms import AGAIN, BASE, OFF, ON, Arm, make_arms
from llamapatch.measure.bench import Speed
from llamapatch.measure.bench import measure_speed as measure
from llamapatch.measure.identity import compare_logits, measure_identity
from llamapatch.measure.inputs import TextFile, given_model, given_text, quantised_model
from llamapatch.measure.kernels import measure_kernels
from llamapatch.measure.memory import buffer_sizes
from llamapatch.measure.perplexity import (
    ATTEMPTS,
    BaseLogits,
    TextLoad,
    measure_divergence,
    save_base_logits,
    window_bytes,
)
from llamapatch.measure.runs import RunFolder
from llamapatch.measure.scenario import Scenario
from llamapatch.measure.stats import read_stats, total
from tests.measure.conftest import MakeBuild

SCENARIO = Scenario(title="short", prompt=64, generate=16)


def measure_speed(
    folder: RunFolder, arm: Arm, block: int, model: Path, scenario: Scenario = SCENARIO, key: str = ""
) -> Speed:
    return measure(folder, arm, block, model, scenario, name="short", threads=1, key=key)


def one(folder_of_tools: Path, *, patched: bool = False) -> Arm:
    return Arm(OFF if patched else BASE, folder_of_tools, "v0", patched=patched)


def text_load(text: TextFile, windows: int | None = 8) -> TextLoad:
    return TextLoad(text.path, text.sha256, 512, windows, 1)


# --- environment ---------------------------------------------------------------------------------------------------


def test_an_arm_clears_every_switch_and_sets_exactly_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLAMA_LP_FORGOTTEN", "on")
    monkeypatch.setenv("LLAMA_LP_STATS", "elsewhere")
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/stray")
    arms = {a.name: a for a in make_arms(tmp_path / "b", "v0", tmp_path / "p", "v0+lp", {"LLAMA_LP_TOY": "on"})}
    base, off, on = (arms[name].environment(tmp_path / "s") for name in (BASE, OFF, ON))
    for env in (base, off, on):
        assert "LLAMA_LP_FORGOTTEN" not in env and "LLAMA_ARG_THREADS" not in env
        assert env["LLAMA_LP_STATS"] == str(tmp_path / "s")
    assert "LLAMA_LP_TOY" not in base
    assert (off["LLAMA_LP_TOY"], on["LLAMA_LP_TOY"]) == ("off", "on")
    assert base["LD_LIBRARY_PATH"] == f"{tmp_path / 'b'}:/stray"


def test_without_a_switch_there_is_no_on_arm(tmp_path: Path) -> None:
    assert [arm.name for arm in make_arms(tmp_path, "a", tmp_path, "b", {})] == [BASE, AGAIN, OFF]


def test_a_missing_tool_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="llama-bench"):
        one(tmp_path).tool("llama-bench")


def test_a_base_arm_that_writes_statistics_is_no_base(folder: RunFolder, make_build: MakeBuild, model: Path) -> None:
    with pytest.raises(NotMeasured, match="loaded a patched library"):
        measure_speed(folder, one(make_build("b", patched=True)), 0, model)


# --- speed ---------------------------------------------------------------------------------------------------------


def test_speed_is_the_fastest_repetition_but_the_cold_first(
    folder: RunFolder, make_build: MakeBuild, model: Path
) -> None:
    speed = measure_speed(folder, one(make_build("b")), 3, model)
    assert speed.ns["pp64"] == pytest.approx(64e4, rel=0.05)
    assert speed.ns["tg16"] == pytest.approx(160e4, rel=0.05)
    assert all(speed.ns[test] <= speed.typical_ns[test] < 1.1 * speed.ns[test] for test in ("pp64", "tg16"))
    assert speed.peak_rss > 1 << 20 and speed.cpu_seconds > 0 and speed.block == 3
    lines = [json.loads(line) for line in (folder.path / "samples.jsonl").read_text().splitlines()]
    assert [line["test"] for line in lines] == ["pp64", "tg16"]
    assert all(len(line["samples_ns"]) == 4 for line in lines)
    assert [min(line["samples_ns"][1:]) for line in lines] == [speed.ns["pp64"], speed.ns["tg16"]]
    process = json.loads((folder.path / "processes.jsonl").read_text())
    assert process["argv"][1:3] == ["-m", str(model)]
    assert (folder.path / process["output"]).read_text()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no rows", "printed no result"),
        ("error text", "failed to load model"),
        ("missing test", "0 rows for tg16"),
        ("nan", "nan"),
        ("few samples", "2 samples for pp64, expected 4"),
        ("crash", "status 3"),
    ],
)
def test_a_speed_tool_that_misbehaves_has_measured_nothing(
    folder: RunFolder, make_build: MakeBuild, model: Path, fault: str, said: str
) -> None:
    arm = one(make_build("b", fault={"llama-bench": fault}))
    with pytest.raises(NotMeasured, match=said):
        measure_speed(folder, arm, 0, model)


def test_several_sequences_at_once(folder: RunFolder, make_build: MakeBuild, model: Path) -> None:
    scenario = Scenario(title="batched", prompt=64, generate=16, sequences=(1, 8))
    speed = measure_speed(folder, one(make_build("b")), 0, model, scenario)
    assert set(speed.ns) == {"pp64 x1", "tg16 x1", "pp64 x8", "tg16 x8"} and speed.build_commit == ""
    assert speed.ns["tg16 x8"] == pytest.approx(8 * 160e4, rel=0.05)
    assert scenario.tokens("tg16 x8") == 128 and scenario.tokens_per_process == 9 * 80
    argv = json.loads((folder.path / "processes.jsonl").read_text())["argv"]
    assert argv[-2:] == ["--output-format", "jsonl"] and argv[argv.index("-npl") + 1] == "1,8"


def test_lost_rows_of_several_sequences_are_measured_again(
    folder: RunFolder, make_build: MakeBuild, model: Path
) -> None:
    scenario = Scenario(title="batched", prompt=64, generate=16, sequences=(1, 8))
    once = one(make_build("b", fault={"llama-batched-bench": "lost words once"}))
    assert set(measure_speed(folder, once, 0, model, scenario).ns) == set(scenario.tests) and len(folder.runs) == 2
    with pytest.raises(NotMeasured, match="0 rows|no result|status"):
        measure_speed(folder, one(make_build("c", fault={"llama-batched-bench": "no rows"})), 0, model, scenario)


def test_a_finished_process_is_not_run_again(folder: RunFolder, make_build: MakeBuild, model: Path) -> None:
    """What an interrupted session measured counts; another command, another build or a failure does not."""
    build = make_build("b")
    first = measure_speed(folder, one(build), 0, model, key="speed 1")
    folder.write_json("request.json", {})
    again = RunFolder.reopen(folder.path)
    assert measure_speed(again, one(build), 0, model, key="speed 1") == first
    assert (build / "llama-bench.count").read_text() == "1"
    other = Scenario(title="short", prompt=64, generate=16, repetitions=6)
    measure_speed(again, one(build), 0, model, other, key="speed 1")
    measure_speed(again, one(build), 0, model, key="speed 2")
    assert (build / "llama-bench.count").read_text() == "3"
    lines = (folder.path / "processes.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2, 3]
    assert len({json.loads(line)["output"] for line in lines}) == 3
    folder.write_json("comparison.json", {})
    with pytest.raises(UsageProblem, match="complete"):
        RunFolder.reopen(folder.path)
    with pytest.raises(UsageProblem, match="no run folder"):
        RunFolder.reopen(build)


# --- quality -------------------------------------------------------------------------------------------------------


def test_divergence_of_every_window(folder: RunFolder, make_build: MakeBuild, model: Path, text: TextFile) -> None:
    build = make_build("b", shift=0.01)
    base = save_base_logits(folder, one(build), model, "m", text_load(text), cache=folder.path / "cache")
    assert (base.windows, base.vocabulary, base.context, base.cached) == (8, 64, 512, False)
    found = measure_divergence(folder, one(build), model, base, 1)
    assert found.perplexity == pytest.approx(8.01)
    assert found.base_perplexity == 8.0
    assert found.ln_ratio == pytest.approx(0.01)
    assert found.mean_kld == pytest.approx(0.010001)
    assert found.same_top == pytest.approx(0.995)
    assert len(found.rows) == 8 and found.tokens == 8 * 512
    assert found.buffers == {"model": {"CPU_Mapped": 1.5}, "KV": {"CPU": 0.25}}


def test_base_logits_are_measured_once_for_each_set_of_inputs(
    folder: RunFolder, make_build: MakeBuild, model: Path, text: TextFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = make_build("b")
    arm, cache, load = one(build), folder.path / "cache", text_load(text)

    def save(digest: str = "m", load: TextLoad = load, arm: Arm = arm) -> BaseLogits:
        return save_base_logits(folder, arm, model, digest, load, cache=cache)

    first = save()
    again = save()
    assert again.cached and again.path == first.path and len(folder.runs) == 1
    # The build's name is no input: its bytes are.
    assert save(arm=Arm(BASE, build, "another name")).cached
    others = [
        save("other model"),
        save(load=text_load(text, 4)),
        save(load=replace(load, text_sha256="0" * 64)),
        save(load=replace(load, context=256)),
        save(load=replace(load, threads=2)),
    ]
    (build / "libggml-cpu.so.0").write_bytes(b"compiled again in the same place")
    others.append(save())
    monkeypatch.setattr(perplexity, "describe_machine", lambda gpus: {"id": "another processor"})
    others.append(save())
    assert not any(other.cached for other in others)
    assert len({first.path, *(other.path for other in others)}) == 8
    assert not list(cache.glob("*.part"))


@pytest.mark.parametrize("damage", ["cut", "one bit", "no proof", "odd proof"])
def test_a_damaged_cache_entry_is_measured_again(
    folder: RunFolder, make_build: MakeBuild, model: Path, text: TextFile, damage: str
) -> None:
    arm, cache = one(make_build("b")), folder.path / "cache"
    sound = save_base_logits(folder, arm, model, "m", text_load(text), cache=cache)
    data = sound.path.read_bytes()
    proof = sound.path.with_suffix(".json")
    if damage == "cut":
        sound.path.write_bytes(data[:-1])
    elif damage == "one bit":
        sound.path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif damage == "no proof":
        proof.unlink()
    else:
        proof.write_text("[]")
    mended = save_base_logits(folder, arm, model, "m", text_load(text), cache=cache)
    assert not mended.cached and len(folder.runs) == 2
    assert mended.path == sound.path and mended.path.read_bytes() == data
    assert json.loads(proof.read_text())["key"]["context"] == 512
    assert save_base_logits(folder, arm, model, "m", text_load(text), cache=cache).cached


def test_an_old_entry_leaves_with_its_proof(
    folder: RunFolder, make_build: MakeBuild, model: Path, text: TextFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm, cache = one(make_build("b")), folder.path / "cache"
    old = save_base_logits(folder, arm, model, "m", text_load(text), cache=cache)
    monkeypatch.setattr(perplexity, "CACHE_BYTES", old.path.stat().st_size)
    new = save_base_logits(folder, arm, model, "n", text_load(text), cache=cache)
    assert sorted(p.name for p in cache.iterdir()) == sorted([new.path.name, new.path.with_suffix(".json").name])


def test_words_lost_by_upstreams_logger_are_asked_for_again(
    folder: RunFolder, make_build: MakeBuild, model: Path, text: TextFile
) -> None:
    arm = one(make_build("b", fault={"llama-perplexity": "truncated once"}))
    assert save_base_logits(folder, arm, model, "m", text_load(text), cache=folder.path / "c").windows == 8
    assert len(folder.runs) == 2
    arm = one(make_build("b2", fault={"llama-perplexity": "lost words once"}))
    base = save_base_logits(folder, arm, model, "m2", text_load(text), cache=folder.path / "c")
    assert measure_divergence(folder, arm, model, base, 1).perplexity == 8.0


@pytest.mark.parametrize(("fault", "runs"), [("truncated", ATTEMPTS), ("error text", 1)])
def test_unfinished_base_logits_are_not_believed(
    folder: RunFolder, make_build: MakeBuild, model: Path, text: TextFile, fault: str, runs: int
) -> None:
    arm = one(make_build("b", fault={"llama-perplexity": fault}))
    with pytest.raises(NotMeasured, match="did not store"):
        save_base_logits(folder, arm, model, "m", text_load(text), cache=folder.path / "c")
    assert len(folder.runs) == runs
    assert not list((folder.path / "c").iterdir())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("too few windows", "7 windows of 8"),
        ("no statistics", "no line `Mean PPL"),
        ("nan", "the model's output holds no number"),
        ("error text", "0 windows of 8"),
    ],
)
def test_an_incomplete_divergence_is_not_believed(
    folder: RunFolder, make_build: MakeBuild, model: Path, text: TextFile, fault: str, said: str
) -> None:
    base = save_base_logits(folder, one(make_build("b")), model, "m", text_load(text), cache=folder.path / "c")
    with pytest.raises(NotMeasured, match=said):
        measure_divergence(folder, one(make_build("x", fault={"llama-perplexity": fault})), model, base, 1)


def test_a_short_text_is_bad_input_even_when_the_tool_says_nothing(
    folder: RunFolder, make_build: MakeBuild, model: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("few words " * 20)
    with pytest.raises(UsageProblem, match="shorter than two windows"):
        save_base_logits(
            folder, one(make_build("b")), model, "m", text_load(given_text(short)), cache=folder.path / "c"
        )


def test_bytes_of_a_window() -> None:
    # 16 windows of 512 tokens with 4,096 words, as upstream v0.5.0 wrote them: 33,488,788 bytes.
    assert 20 + 16 * (512 * 4 + window_bytes(512, 4096)) == 33_488_788


# --- identity ------------------------------------------------------------------------------------------------------


def test_identity_of_off_and_difference_of_on(
    folder: RunFolder, make_build: MakeBuild, model: Path, text: TextFile
) -> None:
    patched = make_build("p", patched=True, handled=1, shift_on=0.5)
    arms = make_arms(make_build("b"), "v0", patched, "v0+lp", {"LLAMA_LP_TOY": "on"})
    results = measure_identity(folder, arms, model, text.path, 1)
    assert [result.ubatch for result in results] == [512, 1]
    for result in results:
        assert result.verdict(OFF) == "identical" and result.verdict(ON) == "different"
        assert result.digests[OFF] == result.digests[BASE] != result.digests[ON]
        assert result.against_base[ON].max_abs == pytest.approx(0.5, abs=1e-6)
    assert not list(folder.path.glob("*.gguf"))


def test_identity_needs_a_base_that_repeats_itself(
    folder: RunFolder, make_build: MakeBuild, model: Path, text: TextFile
) -> None:
    base = make_build("b", fault={"llama-results": "not reproducible"})
    arms = make_arms(base, "v0", make_build("p", patched=True), "v0+lp", {})
    results = measure_identity(folder, arms, model, text.path, 1, ubatches=(512,))
    assert results[0].verdict(OFF) == "not provable"


@pytest.mark.parametrize(("fault", "said"), [("no file", "no logits"), ("nan", "not finite"), ("zero", "all zero")])
def test_unsound_logits_are_not_compared(
    folder: RunFolder, make_build: MakeBuild, model: Path, text: TextFile, fault: str, said: str
) -> None:
    base = make_build("b", fault={"llama-results": fault})
    with pytest.raises(NotMeasured, match=said):
        measure_identity(folder, make_arms(base, "v0", base, "v0", {}), model, text.path, 1)


def test_logits_differences_are_those_of_their_definition() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(5, 11)).astype(np.float32)
    b = a + rng.normal(scale=0.1, size=a.shape).astype(np.float32)
    p, q = (np.exp(x.astype(np.float64)) for x in (a, b))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    diff = compare_logits(a, b)
    assert diff.mean_kld == pytest.approx(float((p * np.log(p / q)).sum(1).mean()), rel=1e-9)
    assert diff.nmse == pytest.approx(
        float(((a - b).astype(np.float64) ** 2).sum() / (a.astype(np.float64) ** 2).sum())
    )
    # A negative zero is another byte, and "identical" is about bytes.
    zero = np.zeros((1, 2), dtype=np.float32)
    assert not compare_logits(zero, -zero).identical


# --- kernel benchmark, models, statistics --------------------------------------------------------------------------


def test_kernel_benchmark(folder: RunFolder, arms: tuple[Arm, ...]) -> None:
    by_name = {arm.name: arm for arm in arms}
    program = by_name[ON].bin / "bench-toy"
    on = measure_kernels(folder, by_name[ON], 0, program, ["--x"])
    off = measure_kernels(folder, by_name[OFF], 0, program, [])
    assert off.ns["n=4096"] / on.ns["n=4096"] == pytest.approx(3, rel=0.05)
    assert on.unit == {"n=256": "MAC", "n=4096": "MAC"} and on.work["n=256"] == 256


@pytest.mark.parametrize(("fault", "said"), [("chatter", "no JSON"), ("negative", "no duration"), ("twice", "twice")])
def test_a_kernel_benchmark_that_breaks_its_protocol(
    folder: RunFolder, make_build: MakeBuild, fault: str, said: str
) -> None:
    build = make_build("p", patched=True, fault={"bench-toy": fault})
    with pytest.raises(NotMeasured, match=said):
        measure_kernels(folder, one(build, patched=True), 0, build / "bench-toy", [])


def test_quantised_models_are_cached(folder: RunFolder, make_build: MakeBuild, model: Path, tmp_path: Path) -> None:
    source, arm = given_model(model), one(make_build("b"))
    first = quantised_model(folder, arm, source, "Q2_0", tmp_path / "cache")
    again = quantised_model(folder, arm, source, "Q2_0", tmp_path / "cache")
    assert first == again and len(folder.runs) == 1 and first.type == "Q2_0"
    assert folder.runs[0].done.argv[1] == "--pure"
    assert quantised_model(folder, arm, source, "F16", tmp_path / "cache").path == model
    with pytest.raises(UsageProblem, match="NOPE"):
        quantised_model(folder, arm, source, "NOPE", tmp_path / "cache")


@pytest.mark.parametrize("fault", ["no file", "truncated"])
def test_a_failed_quantisation_leaves_nothing(
    folder: RunFolder, make_build: MakeBuild, model: Path, tmp_path: Path, fault: str
) -> None:
    arm = one(make_build("b", fault={"llama-quantize": fault}))
    with pytest.raises(NotMeasured):
        quantised_model(folder, arm, given_model(model), "Q2_0", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_bad_models_and_texts_are_bad_input(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_text("not a model, but long enough to look at")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait")
    for make, name in (
        (given_model, "no.gguf"),
        (given_model, "missing.gguf"),
        (given_text, "empty.txt"),
        (given_text, "latin.txt"),
        (given_text, "missing.txt"),
    ):
        with pytest.raises(UsageProblem, match=name):
            make(tmp_path / name)


def test_statistics_of_a_patched_build(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    assert read_stats(path) is None
    patch = {"mode": "on", "handled": 2, "differs": 1, "fallback": {"shape": 5}}
    path.write_text(json.dumps({"schema": 1, "patches": {"toy": patch}}))
    summed = total([read_stats(path), None, read_stats(path)])["toy"]
    assert (summed.handled, summed.differs, summed.fallback, summed.runs) == (4, 2, {"shape": 10}, 2)
    for broken in ("", "[]", '{"schema": 2, "patches": {}}', '{"schema": 1, "patches": {"toy": {"handled": -1}}}'):
        path.write_text(broken)
        with pytest.raises(NotMeasured, match=r"s\.json"):
            read_stats(path)


def test_raw_data_are_never_overwritten(tmp_path: Path) -> None:
    kept = RunFolder.create(tmp_path / "runs", tmp_path / "mine")
    kept.record("x", value=float("nan"))
    assert json.loads((kept.path / "samples.jsonl").read_text())["value"] == "nan"
    with pytest.raises(UsageProblem, match="never overwritten"):
        RunFolder.create(tmp_path / "runs", tmp_path / "mine")


def test_buffer_sizes_sum_a_split_model_and_replace_a_second_context() -> None:
    log = (
        "0.0 I load_tensors:   CPU_Mapped model buffer size =     9.51 MiB\n"
        "0.0 I load_tensors:   CPU_Mapped model buffer size =     1.00 MiB\n"
        "0.0 I load_tensors:          AMX model buffer size =    11.00 MiB\n"
        "0.0 I sched_reserve:        CPU compute buffer size =     9.00 MiB\n"
        "0.0 I sched_reserve:        CPU compute buffer size =     4.00 MiB\n"
        "0.0 D ~llama_context:        CPU compute buffer size is   9.0020 MiB, matches expectation of   9.0020 MiB\n"
    )
    sizes = buffer_sizes(log)
    assert sizes == {"model": {"CPU_Mapped": pytest.approx(10.51), "AMX": 11.0}, "compute": {"CPU": 4.0}}
