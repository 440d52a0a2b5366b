#!/usr/bin/env python3
"""Stand-ins for llama.cpp's tools: they speak the same formats, with seeded noise, and misbehave on request.

Installed as ``llama-bench`` and so on in a folder with a ``behaviour.json``:

* ``patched``: writes LLAMA_LP_STATS like a build with the foundation; ``handled``: calls ``toy`` counts when on
* ``speed``: times the base speed, ``speed_on`` when LLAMA_LP_TOY=on
* ``shift`` / ``shift_on``: added to every logit of token 0
* ``seed``: of the noise, instead of the folder's name
* ``noise``: its standard deviation (default 1 %)
* ``diverge_on``: llama-completion writes other tokens from this position on when LLAMA_LP_TOY=on
* ``fault``: {tool: name of a misbehaviour}
"""

import json
import math
import os
import random
import struct
import sys
from pathlib import Path

HERE = Path(sys.argv[0]).resolve().parent
TOOL = Path(sys.argv[0]).name
if TOOL == "bench-toy":  # one program for all arms, which is what the loader's path says
    HERE = Path(os.environ["LD_LIBRARY_PATH"].split(":")[0])
BEHAVIOUR = json.loads((HERE / "behaviour.json").read_text())
FAULT = BEHAVIOUR.get("fault", {}).get(TOOL, "")
NOISE = BEHAVIOUR.get("noise", 0.01)
ON = os.environ.get("LLAMA_LP_TOY") == "on"
VOCABULARY = 64


def option(name, default=None):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def count():
    """How often this tool ran: seeds the noise, so that a test run is reproducible."""
    path = HERE / f"{TOOL}.count"
    n = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(n))
    return n


def stats():
    path = os.environ.get("LLAMA_LP_STATS")
    if path and BEHAVIOUR.get("patched") and FAULT != "no stats":
        handled = BEHAVIOUR.get("handled", 0) if ON else BEHAVIOUR.get("handled_off", 0)
        toy = {
            "mode": "on" if ON else "off",
            "handled": handled,
            "differs": 0,
            "fallback": {} if handled else {"shape": 3},
        }
        Path(path).write_text(json.dumps({"schema": 1, "patches": {"toy": toy}}))


def shift():
    return BEHAVIOUR.get("shift_on", 0.0) if ON else BEHAVIOUR.get("shift", 0.0)


def speed():
    return BEHAVIOUR.get("speed_on", 1.0) if ON else BEHAVIOUR.get("speed", 1.0)


def bench():
    noise = random.Random(f"{BEHAVIOUR.get('seed', HERE.name)}{count()}")
    if FAULT == "error text":
        print("llama_bench: error: failed to load model", file=sys.stderr)
        return 0
    if FAULT == "no rows":
        return 0
    if TOOL == "llama-batched-bench":
        return batched(noise)
    reps = int(option("-r"))
    for prompt, generate in ((int(option("-p")), 0), (0, int(option("-n")))):
        if FAULT == "missing test" and generate:
            continue
        ns = [(prompt + 10 * generate) * 1e4 / speed() * math.exp(noise.gauss(0, NOISE)) for _ in range(reps)]
        ns[0] *= 40  # a cold first repetition, which must not count
        samples = [round(value) for value in ns]
        if FAULT == "nan":
            samples[2] = float("nan")
        if FAULT == "few samples":
            samples = samples[:2]
        row = {"build_commit": BEHAVIOUR.get("commit", "abc"), "n_prompt": prompt, "n_gen": generate}
        print(json.dumps(row | {"samples_ns": samples, "avg_ns": 1}))
    if FAULT == "crash":
        return 3
    return 0


def batched(noise):
    runs = int((HERE / f"{TOOL}.count").read_text())
    prompt, generate = int(option("-npp")), int(option("-ntg"))
    for n in map(int, option("-npl").split(",")):
        if FAULT == "lost words once" and runs == 1 and n > 1:
            break
        seconds = [n * work * 1e-5 / speed() * math.exp(noise.gauss(0, NOISE)) for work in (prompt, 10 * generate)]
        row = {"n_kv_max": 4096, "pp": prompt, "tg": generate, "pl": n, "t_pp": seconds[0], "t_tg": seconds[1]}
        print("some other line of the log")
        print(json.dumps(row))
    return 0


def perplexity():
    runs = count()
    base = Path(option("--kl-divergence-base"))
    context = int(option("-c"))
    if FAULT == "error text":
        print("0.00.1 E llama_model_load: error loading model", file=sys.stderr)
        return 0
    if "--kl-divergence" not in sys.argv:
        tokens = Path(option("-f")).stat().st_size // 3
        if tokens < 2 * context:  # upstream's logger often loses the message: only the stub of a file shows it
            base.write_bytes(b"_logits_" + struct.pack("<i", context))
            return 0
        windows = min(int(option("--chunks", "1000000")), tokens // context)
        body = b"_logits_" + struct.pack("<3i", context, VOCABULARY, windows) + bytes(4 * windows * context)
        per_window = (context - 1 - context // 2) * (VOCABULARY + 4) * 2
        body += bytes(per_window * windows)
        lost = FAULT == "truncated" or (FAULT == "truncated once" and runs == 1)
        base.write_bytes(body[:-100] if lost else body)
        return 0
    windows = struct.unpack("<3i", base.read_bytes()[8:20])[2]
    print(
        "chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence"
        "              Δp RMS            Same top p"
    )
    kld = 1e-6 + abs(shift())
    shown = windows - 1 if FAULT == "too few windows" else windows
    for i in range(1, shown + 1):
        ppl = "nan" if FAULT == "nan" else f"{8 + shift():.4f}"
        print(
            f"{i:4d}    {ppl:>9} ±    0.1000    {shift():10.5f} ±       -nan    {kld:10.5f} ±    0.00000"
            f"     0.001 ±  0.000 %    100.000 ±  0.000 %"
        )
    if FAULT == "no statistics" or (FAULT == "lost words once" and runs <= 2):
        return 0
    print("\n====== Perplexity statistics ======")
    print(f"Mean PPL(Q)                   : {'nan' if FAULT == 'nan' else f'{8 + shift():10.6f}'} ±   0.100000")
    print("Mean PPL(base)                :   8.000000 ±   0.100000")
    print(f"Mean ln(PPL(Q)/PPL(base))     : {shift():10.6f} ±       -nan")
    print(f"\n====== KL divergence statistics ======\nMean    KLD: {kld:10.6f} ±   0.000000")
    print(f"Maximum KLD: {2 * kld:10.6f}\n99.9%   KLD: {kld:10.6f}")
    print("Same top p: 99.500 ± 0.010 %")
    print("0.00.1 I load_tensors:   CPU_Mapped model buffer size =     1.50 MiB", file=sys.stderr)
    print("0.00.1 I llama_kv_cache:        CPU KV buffer size =     0.25 MiB", file=sys.stderr)
    return 0


def results():
    import gguf
    import numpy as np

    runs = count()
    if FAULT == "no file":
        return 0
    prompt = Path(option("-f")).read_bytes()
    tokens = np.frombuffer(prompt, dtype=np.uint8).astype(np.int32)[:16]
    logits = np.random.default_rng(7).normal(size=(tokens.size, VOCABULARY)).astype(np.float32)
    logits[:, 0] += np.float32(shift())
    if FAULT == "nan":
        logits[3, 3] = np.nan
    if FAULT == "not reproducible":
        logits[0, 0] += runs
    if FAULT == "zero":
        logits[:] = 0
    writer = gguf.GGUFWriter(option("--output"), "llama")
    writer.add_tensor("tokens", tokens)
    writer.add_tensor("logits", logits.reshape(VOCABULARY, tokens.size))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return 0


def completion():
    runs = count()
    prompt = list(Path(option("-f")).read_bytes())
    if FAULT == "other tokens":
        prompt[0] += 1
    at = BEHAVIOUR.get("diverge_on") if ON else None
    tokens = [(sum(prompt) + i * i) % VOCABULARY + (at is not None and i >= at) for i in range(int(option("-n")))]
    stale = FAULT == "stale session" or (FAULT == "stale session once" and runs == 2)
    ids = prompt if stale else prompt + tokens
    body = struct.pack(f"<4sII{len(ids)}i", b"nsgg", 10, len(ids), *ids)
    if FAULT != "no file":
        Path(option("--prompt-cache")).write_bytes(body[:-10] if FAULT == "truncated" else body + bytes(64))
    return 3 if FAULT == "crash" else 0


def quantize():
    source, target, kind = [a for a in sys.argv[1:] if not a.startswith("--")]
    if kind == "NOPE":
        print("llama_quantize: invalid ftype 'NOPE'")
        return 1
    if FAULT != "no file":
        data = Path(source).read_bytes()
        Path(target).write_bytes(data[:100] if FAULT == "truncated" else data)
    return 0


def kernel():
    noise = random.Random(f"kernel{HERE}{count()}")
    if FAULT == "chatter":
        print("warming up ...")
    factor = 3.0 if ON else 1.0
    for case, work in (("n=256", 256), ("n=4096", 4096)):
        ns = [work / factor * math.exp(noise.gauss(0, 0.005)) for _ in range(5)]
        if FAULT == "negative":
            ns[3] = -1.0
        print(json.dumps({"case": case, "ns": ns, "work": work, "unit": "MAC"}))
        if FAULT == "twice":
            print(json.dumps({"case": case, "ns": ns, "work": work, "unit": "MAC"}))
    return 0


if __name__ == "__main__":
    tools = {
        "llama-bench": bench,
        "llama-batched-bench": bench,
        "llama-perplexity": perplexity,
        "llama-results": results,
        "llama-quantize": quantize,
        "llama-completion": completion,
        "bench-toy": kernel,
    }
    code = tools[TOOL]()
    stats()
    sys.exit(code)
