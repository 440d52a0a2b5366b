from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from llamapatch.errors import UsageProblem
from llamapatch.models.corpus import Corpus
from tests.models.conftest import IN_CI

if not IN_CI:
    pytest.importorskip("torch")

import safetensors.torch
import torch

from llamapatch.models.net import Llama
from llamapatch.models.optim import orthogonalise
from llamapatch.models.runs import Start, train_run
from llamapatch.models.shape import Shape
from llamapatch.models.train import Plan, encode_documents, perplexity, train, train_tokenizer
from llamapatch.models.weights import load_model, load_warm_start, save_safetensors

SHAPE = Shape(n_vocab=300, n_embd=32, n_layer=2, n_head=2, n_head_kv=1, n_ff=64, n_ctx=1024)
PLAN = Plan(tokens=6 * 256, batch_tokens=256, ctx_short=32, ctx_long=64, eval_every=2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums in one order, so that equal means equal."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def text() -> Corpus:
    line = "for (int i = {0}; i < n; ++i) {{ sum_{0} += x[i] * y[i]; }}\n"
    documents = ["".join(line.format(i * j % 17) for i in range(60)) for j in range(1, 6)]
    return Corpus(train=documents, evaluation=["".join(line.format(i % 13) for i in range(120))])


def test_tokenizer_round_trip(text: Corpus) -> None:
    tok = train_tokenizer(text.train, 300)
    for sample in [text.evaluation_text, "unseen: é漢字🙂\t\r\n  \x00", ""]:
        assert tok.decode(tok.encode(sample).ids, skip_special_tokens=False) == sample
    assert tok.get_vocab_size() == 300
    stream = encode_documents(tok, ["ab", "c"])
    assert [int(i) for i in np.flatnonzero(stream == 0)] == [0, 1 + len(tok.encode("ab").ids)]


def test_a_run_learns_and_logs(text: Corpus, tmp_path: Path) -> None:
    plan = Plan(tokens=60 * 256, batch_tokens=256, ctx_short=32, ctx_long=64, eval_every=30)
    train(text, tmp_path / "run", plan, shape=SHAPE, report=lambda _: None)
    lines = [json.loads(raw) for raw in (tmp_path / "run" / "loss.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [30, 60]
    assert [line["window"] for line in lines] == [32, 64]
    assert lines[-1]["train_loss"] < 0.5 * math.log(SHAPE.n_vocab)
    assert lines[-1]["ppl_1024"] < lines[0]["ppl_1024"] < SHAPE.n_vocab


def test_an_interrupted_run_ends_with_the_same_bits(text: Corpus, tmp_path: Path) -> None:
    whole = train(text, tmp_path / "whole", PLAN, shape=SHAPE, report=lambda _: None).state_dict()

    said: list[str] = []

    def interrupt(line: str) -> None:
        said.append(line)
        if len(said) == 3:  # the greeting and two evaluations: step 4 of 6
            raise KeyboardInterrupt

    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(text, broken, PLAN, shape=SHAPE, report=interrupt)
    assert load_model(broken).step == 4
    resumed = train(text, broken, PLAN, shape=SHAPE, report=lambda _: None).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    untrained = Llama(SHAPE).state_dict()
    assert not torch.equal(whole["blk.0.attn_q.weight"], untrained["blk.0.attn_q.weight"])
    steps = [json.loads(raw)["step"] for raw in (broken / "loss.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]


def test_another_seed_is_another_run(text: Corpus, tmp_path: Path) -> None:
    one = train(text, tmp_path / "1", PLAN, shape=SHAPE, report=lambda _: None)
    plan = Plan(**{**PLAN.__dict__, "seed": 1})
    two = train(text, tmp_path / "2", plan, shape=SHAPE, report=lambda _: None)
    assert not torch.equal(one.token_embd.weight, two.token_embd.weight)
    with pytest.raises(UsageProblem, match="another plan"):
        train(text, tmp_path / "1", plan, shape=SHAPE, report=lambda _: None)


def test_damaged_or_missing_state(text: Corpus, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UsageProblem, match="there is no file"):
        load_model(run)
    run.mkdir()
    with pytest.raises(UsageProblem, match="holds no training run"):
        load_model(run)
    (run / "state.pt").write_bytes(b"not a state")
    for use in (lambda: load_model(run), lambda: train(text, run, PLAN, shape=SHAPE, report=lambda _: None)):
        with pytest.raises(UsageProblem, match="damaged"):
            use()


def test_warm_start_with_terse_names_and_a_known_tokenizer(text: Corpus, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    train_tokenizer(text.train, 300).save(str(tokenizer))
    donor = Llama(SHAPE).state_dict()
    short = {"attn_norm": "n1", "ffn_norm": "n2", "attn_q": "q", "attn_k": "k", "attn_v": "v", "attn_output": "o"}
    short |= {"ffn_gate": "g", "ffn_up": "u", "ffn_down": "d"}
    terse = {"e.weight": donor["token_embd.weight"], "n.weight": donor["output_norm.weight"]}
    for name, tensor in donor.items():
        if name.startswith("blk."):
            _, layer, part, _ = name.split(".")
            terse[f"b.{layer}.{short[part]}.weight"] = tensor
    file = tmp_path / "warm.safetensors"
    safetensors.torch.save_file(terse, file)
    loaded = load_warm_start(file, SHAPE)
    assert loaded.keys() == donor.keys()
    assert all(torch.equal(loaded[name], donor[name]) for name in donor)

    with pytest.raises(UsageProblem, match="--tokenizer"):
        train_run(text, tmp_path / "run", PLAN, Start(file), report=lambda _: None, shape=SHAPE)
    start = Start(file, 123, tokenizer)
    model = train_run(text, tmp_path / "run", PLAN, start, report=lambda _: None, shape=SHAPE)
    origin = json.loads((tmp_path / "run" / "origin.json").read_text())
    assert origin["warm_start_tokens"] == 123
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    again = load_warm_start(tmp_path / "run" / "model.safetensors", SHAPE)
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_warm_starts_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    with pytest.raises(UsageProblem, match="there is no file"):
        load_warm_start(file, SHAPE)
    file.write_bytes(b"junk" * 9)
    with pytest.raises(UsageProblem, match="no safetensors"):
        load_warm_start(file, SHAPE)
    save_safetensors(Llama(Shape(n_vocab=300, n_embd=64, n_layer=1, n_ctx=64)), file, {})
    with pytest.raises(UsageProblem, match="of another size"):
        load_warm_start(file, SHAPE)


@pytest.mark.parametrize("dims", [(3, 48, 32), (2, 32, 48), (1, 40, 40)])
def test_orthogonalise_keeps_directions_and_flattens_lengths(dims: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(5)
    g = torch.randn(dims, generator=generator)
    out = orthogonalise(g)
    assert out.shape == g.shape
    singular = torch.linalg.svdvals(out)
    assert 0.3 < float(singular.min()) < float(singular.max()) < 1.3
    before = torch.linalg.svdvals(g)
    assert float((singular.max() / singular.min()) / (before.max() / before.min())) < 0.5
    u, _, vt = torch.linalg.svd(g, full_matrices=False)
    exact = u @ vt
    alignment = (out * exact).sum((1, 2)) / (out.norm(dim=(1, 2)) * exact.norm(dim=(1, 2)))
    assert float(alignment.min()) > 0.95
    assert torch.allclose(orthogonalise(1000 * g), out, atol=1e-4)


def test_perplexity_scores_the_second_half_of_each_window() -> None:
    """Against a loop over single positions in f64."""
    torch.manual_seed(3)
    shape = Shape(n_vocab=50, n_embd=32, n_layer=1, n_head=2, n_head_kv=1, n_ff=48, n_ctx=32)
    model = Llama(shape)
    with torch.no_grad():
        model.token_embd.weight.mul_(40)
    ids = np.random.default_rng(0).integers(0, 50, 3 * 16 + 5)
    logs = []
    with torch.no_grad():
        for w in range(3):
            window = torch.from_numpy(ids[w * 16 : w * 16 + 16])
            for at in range(8, 15):
                row = model.logits(model(window[None, : at + 1]))[0, -1].double()
                logs.append(float(torch.log_softmax(row, 0)[window[at + 1]]))
    expected = math.exp(-sum(logs) / len(logs))
    assert len(logs) == 21
    assert perplexity(model, ids, 16) == pytest.approx(expected, rel=1e-5)
    assert expected > 60, "the test would not notice a model that ignores its input"


def test_attention_sees_no_future_and_positions_matter() -> None:
    torch.manual_seed(4)
    model = Llama(Shape(n_vocab=50, n_embd=32, n_layer=2, n_head=4, n_head_kv=2, n_ff=48, n_ctx=32)).eval()
    ids = torch.randint(0, 50, (1, 20))
    changed = ids.clone()
    changed[0, 12] = (changed[0, 12] + 1) % 50
    with torch.no_grad():
        a, b = model(ids), model(changed)
        assert torch.allclose(a[:, :12], b[:, :12], atol=1e-6)
        assert not torch.allclose(a[:, 12:], b[:, 12:], atol=1e-4)
        swapped = model(torch.cat([ids[:, 1:2], ids[:, :1], ids[:, 2:]], 1))
        assert not torch.allclose(a[:, 5:], swapped[:, 5:], atol=1e-5)
