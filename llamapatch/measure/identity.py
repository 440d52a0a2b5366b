"""Bit-identity through llama-results: is a patched build with its switches off the same function as upstream?

The logits of every position of one prompt are written as 32-bit floats and compared as bytes, with the prompt read in
one batch (``-ub 512``, the matrix-matrix kernels) and token by token (``-ub 1``, the matrix-vector kernels). The
unpatched build runs twice: if its own two results differ, nothing can be proven on this model and machine. Its two
micro-batch sizes are compared with each other as well: both are upstream's own answer to the same question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt

from llamapatch.measure.arms import AGAIN, BASE, Arm
from llamapatch.measure.runs import Run, RunFolder, failed

TOOL = "llama-results"
UBATCHES = (512, 1)


@dataclass(frozen=True)
class LogitsDiff:
    """One arm's logits against the unpatched build's, in 64-bit arithmetic.

    `identical`: all bytes equal. `nmse`: squared error over squared norm. `mean_kld` in nats and `same_top` (0 to 1)
    over the positions; `max_abs` the largest difference of a logit; `klds` the KL divergence at each position (none
    when identical or not comparable).
    """

    identical: bool
    nmse: float
    mean_kld: float
    max_kld: float
    max_abs: float
    same_top: float
    klds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Identity:
    """The comparison at one micro-batch size. `digests` are SHA-256 of each arm's logits; `against_base` has each other
    arm's difference; `positions` times `vocabulary` logits were compared."""

    ubatch: int
    positions: int
    vocabulary: int
    digests: dict[str, str]
    against_base: dict[str, LogitsDiff]
    own: LogitsDiff | None = None

    @property
    def reproducible(self) -> bool:
        """Whether two runs of the unpatched build agree bit for bit."""
        return self.against_base[AGAIN].identical

    def verdict(self, arm: str) -> Literal["identical", "different", "not provable"]:
        """``identical``, ``different``, or ``not provable`` when the unpatched build does not repeat itself."""
        if not self.reproducible:
            return "not provable"
        return "identical" if self.against_base[arm].identical else "different"


def measure_identity(
    folder: RunFolder,
    arms: Sequence[Arm],
    model: Path,
    prompt: Path,
    threads: int,
    *,
    step: Callable[[str], None] | None = None,
    ubatches: Sequence[int] = UBATCHES,
) -> list[Identity]:
    """Compare every arm of `arms` with the one named base. Raises `NotMeasured` when an arm produced no sound logits.

    The logits files are removed once compared; their hashes stay in the run folder.
    """
    results = []
    first: npt.NDArray[np.float32] | None = None
    for ubatch in ubatches:
        logits: dict[str, npt.NDArray[np.float32]] = {}
        tokens: dict[str, bytes] = {}
        for arm in arms:
            if step is not None:
                step(f"logits, -ub {ubatch}, {arm.name}")
            tokens[arm.name], logits[arm.name] = _run(folder, arm, model, prompt, threads=threads, ubatch=ubatch)
        base = logits[BASE]
        for name in logits:
            if tokens[name] != tokens[BASE]:
                raise failed(folder.runs[-1], f"the {name} arm split the prompt into other tokens than base")
        against = {name: compare_logits(base, other) for name, other in logits.items() if name != BASE}
        digests = {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in logits.items()}
        own = None if first is None else compare_logits(first, base)
        first = base if first is None else first
        result = Identity(ubatch, base.shape[0], base.shape[1], digests, against, own)
        results.append(result)
        folder.record(
            "identity",
            ubatch=ubatch,
            positions=result.positions,
            vocabulary=result.vocabulary,
            sha256=digests,
            against_base={name: vars(diff) for name, diff in against.items()},
            own=None if own is None else vars(own),
        )
    return results


def compare_logits(base: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> LogitsDiff:
    """The differences between two (positions, vocabulary) arrays of logits."""
    if base.shape != other.shape:
        return LogitsDiff(False, float("inf"), float("inf"), float("inf"), float("inf"), 0.0)
    if base.tobytes() == other.tobytes():
        return LogitsDiff(True, 0.0, 0.0, 0.0, 0.0, 1.0)
    a, b = base.astype(np.float64), other.astype(np.float64)
    log_a, log_b = _log_softmax(a), _log_softmax(b)
    kld = np.sum(np.exp(log_a) * (log_a - log_b), axis=1)
    norm = float(np.sum(a**2))
    return LogitsDiff(
        identical=False,
        nmse=float(np.sum((a - b) ** 2)) / norm if norm else float("inf"),
        mean_kld=float(kld.mean()),
        max_kld=float(kld.max()),
        max_abs=float(np.abs(a - b).max()),
        same_top=float(np.mean(a.argmax(axis=1) == b.argmax(axis=1))),
        klds=tuple(kld.tolist()),
    )


def read_logits(path: Path) -> tuple[bytes, npt.NDArray[np.float32]]:
    """The prompt's tokens (raw bytes) and the (positions, vocabulary) logits of a llama-results file.

    Raises `ValueError` for a file that does not hold both.
    """
    try:
        tensors: dict[str, Any] = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
        n_tokens = int(tensors["tokens"].n_elements)
        flat = np.array(tensors["logits"].data, dtype=np.float32).reshape(-1)
    except (KeyError, IndexError, OSError, OverflowError) as error:
        raise ValueError(f"no tensors `tokens` and `logits` ({error})") from error
    if n_tokens < 1 or flat.size == 0 or flat.size % n_tokens:
        raise ValueError(f"{flat.size} logits for {n_tokens} tokens")
    return bytes(np.array(tensors["tokens"].data).tobytes()), flat.reshape(n_tokens, -1)


def _run(
    folder: RunFolder, arm: Arm, model: Path, prompt: Path, *, threads: int, ubatch: int
) -> tuple[bytes, npt.NDArray[np.float32]]:
    # A prompt of n bytes has at most n tokens (and one to begin), and the tool needs them all in one batch.
    context = -(-(prompt.stat().st_size + 2) // 256) * 256
    output = folder.path / f"logits-{arm.name}-{ubatch}.gguf"
    args = [
        "-m", str(model), "-f", str(prompt), "-c", str(context), "-b", str(context), "-ub", str(min(ubatch, context)),
        "-t", str(threads), "-lv", "4", "--output", str(output),
    ]  # fmt: skip
    run = folder.launch(arm, arm.tool(TOOL), args, what=f"results-ub{ubatch}")
    try:
        return _checked(run, output)
    finally:
        output.unlink(missing_ok=True)


def _checked(run: Run, output: Path) -> tuple[bytes, npt.NDArray[np.float32]]:
    if run.done.code != 0:
        raise failed(run, f"ended with status {run.done.code}")
    if not output.is_file():
        raise failed(run, "wrote no logits although it ended with status 0")
    try:
        tokens, logits = read_logits(output)
    except ValueError as error:
        raise failed(run, f"wrote a file that holds no logits: {error}") from error
    if not np.isfinite(logits).all():
        raise failed(run, "wrote logits that are not finite")
    if not logits.any():
        raise failed(run, "wrote logits that are all zero")
    return tokens, logits


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
