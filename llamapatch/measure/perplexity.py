"""Quality through llama-perplexity: perplexity and KL divergence on the same tokens.

The unpatched build saves its log-probabilities once for each set of inputs (`_key`: the programs' own bytes, model,
text, context, windows, threads, machine); every arm, the unpatched build included, is then compared with them token by
token. The unpatched build against its own file gives the floor that 16-bit storage of the log-probabilities leaves.

Upstream's tool ends with status 0 whatever happened, and its logger is never joined, so that on a busy machine the last
lines it printed are lost. What counts is therefore the file's size and header, the number of rows of the table, and the
last line of the statistics; a run that lacks them without naming an error is repeated, at last not believed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from llamapatch.errors import EnvironmentProblem, NotMeasured, UsageProblem
from llamapatch.measure.arms import Arm
from llamapatch.measure.machine import describe_machine
from llamapatch.measure.memory import buffer_sizes
from llamapatch.measure.runs import Run, RunFolder, failed
from llamapatch.models.gguf_file import read_gguf, sha256_of

TOOL = "llama-perplexity"
# On a busy machine one in four runs loses its last words; eight in a row is one in 60,000.
ATTEMPTS = 8
# The file of log-probabilities may be this large (a 128k vocabulary takes 65 MB for each window of 512 tokens), and
# the cache of such files this much in all.
MAX_LOGITS_BYTES = 1 << 30
CACHE_BYTES = 3 << 30
_MAGIC = b"_logits_"
_HEADER = 20  # magic, n_ctx, n_vocab, n_chunk
_NUMBER = r"(-?(?:[0-9.]+|nan|inf))"
_ROW = re.compile(
    rf"^\s*(\d+)\s+{_NUMBER} ±\s+\S+\s+{_NUMBER} ±\s+\S+\s+{_NUMBER} ±\s+\S+\s+{_NUMBER} ±\s+\S+ %\s+{_NUMBER} ±", re.M
)
_ERROR = re.compile(r"^(?:[0-9.]+ )?E .*|^.*\b(?:error|failed)\b.*$", re.M | re.I)


@dataclass(frozen=True)
class TextLoad:
    """What is evaluated: `text` in windows of `context` tokens, at most `windows` of them (None: all)."""

    text: Path
    text_sha256: str
    context: int
    windows: int | None
    threads: int


@dataclass(frozen=True)
class BaseLogits:
    """The unpatched build's stored log-probabilities; `windows` is how many windows of the text they cover."""

    path: Path
    context: int
    vocabulary: int
    windows: int
    cached: bool


@dataclass(frozen=True)
class Divergence:
    """One arm against the stored log-probabilities.

    `perplexity` of the arm and `base_perplexity` of the file; `ln_ratio` is the mean difference of their logarithms;
    KL divergence in nats; `same_top` the share of tokens with the same most probable successor, 0 to 1. `rows` hold the
    tool's cumulative table: (perplexity, ln ratio, KL divergence) after each window.
    """

    arm: str
    perplexity: float
    base_perplexity: float
    ln_ratio: float
    mean_kld: float
    p999_kld: float
    max_kld: float
    same_top: float
    rows: tuple[tuple[float, float, float], ...]
    buffers: dict[str, dict[str, float]]
    cpu_seconds: float
    tokens: int
    peak_rss: int


def save_base_logits(
    folder: RunFolder, arm: Arm, model: Path, model_sha256: str, load: TextLoad, *, cache: Path
) -> BaseLogits:
    """The unpatched build's log-probabilities, from `cache` or measured now.

    Raises `UsageProblem` for a text of fewer than two windows, `NotMeasured` when the tool did not finish its work.
    """
    windows = _affordable_windows(model, load)
    key = _key(folder, arm, model_sha256, load, windows)
    path = cache / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]}.logits"
    stored = _from_cache(path)
    if stored is not None:
        return stored
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    args = [
        "-m", str(model), "-f", str(load.text), "-c", str(load.context), "-b", str(load.context),
        "-t", str(load.threads), "-lv", "4", "--kl-divergence-base", str(part),
    ]  # fmt: skip
    if windows is not None:
        args += ["--chunks", str(windows)]
    try:
        for attempt in range(1, ATTEMPTS + 1):
            run = folder.launch(arm, arm.tool(TOOL), args, what="save-logits")
            if run.done.code != 0:
                raise failed(run, f"ended with status {run.done.code}")
            said_short = "you need at least" in run.done.stderr
            if said_short or (part.is_file() and part.stat().st_size == _HEADER - 8):
                raise UsageProblem(
                    f"{load.text} is shorter than two windows of {load.context} tokens.", "Give a longer --text."
                )
            stored = read_header(part, cached=False)
            if stored is not None and (windows is None or stored.windows <= windows):
                break
            if attempt == ATTEMPTS or _ERROR.search(run.done.stderr):
                raise failed(run, "did not store the log-probabilities of every window although it ended with status 0")
        assert stored is not None
        proof = {"key": key, "sha256": sha256_of(part)}
        _proof(path).write_text(json.dumps(proof, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _evict(cache, keep=path)
    return BaseLogits(path, stored.context, stored.vocabulary, stored.windows, False)


def fingerprint(bin_folder: Path, tool: str) -> str:
    """A hash of the bytes of `tool` and of every shared library beside it: a build that was compiled again in the same
    place, under the same name, is another build."""
    digest = hashlib.sha256()
    libraries = [p for pattern in ("*.so", "*.so.*", "*.dylib") for p in bin_folder.glob(pattern) if p.is_file()]
    for file in sorted({p.resolve() for p in [bin_folder / tool, *libraries]}):
        digest.update(f"{file.name}\n{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def _key(
    folder: RunFolder, arm: Arm, model_sha256: str, load: TextLoad, windows: int | None
) -> dict[str, str | int | None]:
    """Everything that decides the bytes of the file. Kernels choose their instructions by the processor, and how work
    is split, by the number of threads; both may change the last digit."""
    arm.tool(TOOL)
    return {
        "schema": 2,
        "build": fingerprint(arm.bin, TOOL),
        "model": model_sha256,
        "text": load.text_sha256,
        "context": load.context,
        "windows": windows,
        "threads": load.threads,
        "machine": str(describe_machine(folder.gpus)["id"]),
    }


def _from_cache(path: Path) -> BaseLogits | None:
    """The stored log-probabilities if every byte is as it was written; a damaged entry is removed."""
    try:
        expected = json.loads(_proof(path).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        expected = None
    stored = read_header(path, cached=True)
    if stored is not None and expected == sha256_of(path):
        os.utime(path)
        return stored
    _remove(path)
    return None


def _proof(path: Path) -> Path:
    return path.with_suffix(".json")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _proof(path).unlink(missing_ok=True)


def read_header(path: Path, *, cached: bool) -> BaseLogits | None:
    """What a file of log-probabilities says it holds, or None unless its size is exactly that."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(_HEADER)
    if len(head) < _HEADER or head[:8] != _MAGIC:
        return None
    context, vocabulary, windows = struct.unpack("<3i", head[8:])
    if min(context, vocabulary, windows) < 1:
        return None
    expected = _HEADER + windows * context * 4 + windows * window_bytes(context, vocabulary)
    return BaseLogits(path, context, vocabulary, windows, cached) if path.stat().st_size == expected else None


def window_bytes(context: int, vocabulary: int) -> int:
    """Bytes of stored log-probabilities for one window: 16 bits each, two floats of scale for each token."""
    return (context - 1 - context // 2) * (2 * ((vocabulary + 1) // 2) + 4) * 2


def measure_divergence(folder: RunFolder, arm: Arm, model: Path, base: BaseLogits, threads: int) -> Divergence:
    """Compare `arm` with the stored log-probabilities. Raises `NotMeasured` unless every window was compared."""
    args = [
        "-m", str(model), "-c", str(base.context), "-b", str(base.context), "-t", str(threads), "-lv", "4",
        "--kl-divergence-base", str(base.path), "--kl-divergence",
    ]  # fmt: skip
    for attempt in range(1, ATTEMPTS + 1):
        run = folder.launch(arm, arm.tool(TOOL), args, what="kl-divergence")
        try:
            result = parse_divergence(run, base)
            break
        except NotMeasured:
            if attempt == ATTEMPTS or run.done.code != 0 or _ERROR.search(run.done.stderr):
                raise
    values = {k: v for k, v in vars(result).items() if k not in ("arm", "rows", "buffers")}
    folder.record("divergence", arm=arm.name, process=run.number, rows=result.rows, **values)
    return result


def parse_divergence(run: Run, base: BaseLogits) -> Divergence:
    """Read the tool's table and statistics; raises `NotMeasured` for anything missing or not finite."""
    if run.done.code != 0:
        raise failed(run, f"ended with status {run.done.code}")
    text = run.done.stdout
    rows = [(int(m[1]), float(m[2]), float(m[3]), float(m[4])) for m in _ROW.finditer(text)]
    if [row[0] for row in rows] != list(range(1, base.windows + 1)):
        raise failed(run, f"compared {len(rows)} windows of {base.windows}")
    result = Divergence(
        arm=run.arm,
        perplexity=_value(run, "Mean PPL(Q)"),
        base_perplexity=_value(run, "Mean PPL(base)"),
        ln_ratio=_value(run, "Mean ln(PPL(Q)/PPL(base))"),
        mean_kld=_value(run, "Mean    KLD"),
        p999_kld=_value(run, "99.9%   KLD"),
        max_kld=_value(run, "Maximum KLD"),
        same_top=_value(run, "Same top p") / 100.0,
        rows=tuple(row[1:] for row in rows),
        buffers=buffer_sizes(run.done.stderr),
        cpu_seconds=run.done.cpu_seconds,
        tokens=base.windows * base.context,
        peak_rss=run.done.peak_rss,
    )
    if not all(math.isfinite(value) for row in result.rows for value in row):
        raise failed(run, "printed a window whose figures are not finite")
    return result


def _value(run: Run, name: str) -> float:
    match = re.search(rf"^{re.escape(name)}\s*:\s+(\S+?)%?(?:\s|$)", run.done.stdout, re.M)
    if match is None:
        raise failed(run, f"printed no line `{name}`")
    try:
        value = float(match[1])
    except ValueError:
        raise failed(run, f"printed `{match[1]}` for `{name}`") from None
    if not math.isfinite(value):
        raise failed(run, f"`{name}` is {value}: the model's output holds no number")
    return value


def _affordable_windows(model: Path, load: TextLoad) -> int | None:
    """`load.windows`, or what the largest file allows when the whole text was asked for."""
    vocabulary = vocabulary_size(model)
    if vocabulary is None:
        return load.windows
    per_window = window_bytes(load.context, vocabulary) + 4 * load.context
    free = shutil.disk_usage(model.parent).free
    most = min(MAX_LOGITS_BYTES, free // 2) // per_window
    if most < 2:
        raise EnvironmentProblem(
            f"the disk of {model.parent} has {free >> 20} MiB free; one window of log-probabilities takes "
            f"{per_window >> 20} MiB.",
            "Free some space.",
        )
    # A text of n bytes has at most n tokens, so a short one needs no limit.
    if load.windows is None and load.text.stat().st_size // load.context <= most:
        return None
    return min(load.windows or most, most)


def vocabulary_size(model: Path) -> int | None:
    """The number of tokens a GGUF declares; None when it does not say."""
    return len(read_gguf(model).get("tokenizer.ggml.tokens", [])) or None


def _evict(cache: Path, keep: Path) -> None:
    """Drop the oldest files beyond the cache's size."""
    files = sorted((p for p in cache.glob("*.logits") if p != keep), key=lambda p: p.stat().st_mtime, reverse=True)
    used = keep.stat().st_size
    for file in files:
        used += file.stat().st_size
        if used > CACHE_BYTES:
            _remove(file)
