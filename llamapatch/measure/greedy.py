"""Do two builds write the same text? Greedy continuations of held-out prompts, compared token by token.

KL divergence averages; a user sees text. Each arm continues the same prompts with the most probable token, through
llama-completion at temperature 0. Its logger is never joined, so that on a busy machine the end of what it printed is
lost; the tokens are therefore read from the session file (``--prompt-cache-all``), which the tool writes itself before
it ends: prompt and continuation as token ids. The end-of-text token is suppressed (``--ignore-eos``), so that every
continuation has the same length and a short one is a failure.

One different token makes all that follow another text, so the position of the first difference is what counts. The
unpatched build against itself is the floor.
"""

from __future__ import annotations

import statistics
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamapatch.errors import NotMeasured, UsageProblem
from llamapatch.measure.arms import BASE, Arm
from llamapatch.measure.inputs import TextFile
from llamapatch.measure.runs import Run, RunFolder, failed

TOOL = "llama-completion"
ATTEMPTS = 3
PROMPT_BYTES = 800
_MAGIC = b"nsgg"  # 'ggsn', little-endian
_HEADER = struct.Struct("<4sII")  # magic, version, number of tokens


@dataclass(frozen=True)
class Writing:
    """How much is written: `tokens` tokens after each prompt, on `threads` threads."""

    tokens: int
    threads: int


@dataclass(frozen=True)
class Agreement:
    """One arm's continuations against the unpatched build's.

    `agreed` has, for each prompt, the number of tokens before the first difference (`tokens` where there is none);
    `equal` is the share of prompts without any, from 0 to 1, `mean_agreed` the mean of `agreed`.
    """

    arm: str
    tokens: int
    agreed: tuple[int, ...]

    @property
    def equal(self) -> float:
        return sum(n == self.tokens for n in self.agreed) / len(self.agreed)

    @property
    def mean_agreed(self) -> float:
        return statistics.fmean(self.agreed)


def cut_prompts(text: TextFile, count: int, folder: RunFolder, size: int = PROMPT_BYTES) -> list[Path]:
    """`count` stretches of about `size` bytes, spread evenly over the text and begun at the start of a line, as files
    of the run folder; fewer where the text has not as many. Raises `UsageProblem` for a text shorter than one."""
    content = text.path.read_text(encoding="utf-8")
    length = min(size, len(content))
    if len(content.strip()) < 16:
        raise UsageProblem(f"{text.name} is too short to be continued.", "Give a longer --text.")
    starts = []
    for i in range(min(count, max(1, len(content) // length))):
        at = i * (len(content) - length) // max(count - 1, 1)
        line = content.rfind("\n", 0, at) + 1
        starts.append(line if at - line < length else at)
    prompts = []
    for number, start in enumerate(dict.fromkeys(starts)):
        # Upstream drops one final newline of a prompt file, so a prompt must not end in any.
        prompt = content[start : start + length].rstrip()
        if not prompt:
            continue
        path = folder.path / f"greedy-{number:03d}.txt"
        path.write_text(prompt, encoding="utf-8", newline="\n")
        prompts.append(path)
    return prompts


def measure_greedy(
    folder: RunFolder,
    arms: Sequence[Arm],
    model: Path,
    prompts: Sequence[Path],
    load: Writing,
    *,
    step: Callable[[str], None] | None = None,
) -> list[Agreement]:
    """Let every arm continue every prompt and compare it with the one named base.

    All arms write after a prompt before any goes on to the next. Raises `NotMeasured` when an arm wrote too little or
    read the prompt as other tokens than base.
    """
    agreed: dict[str, list[int]] = {arm.name: [] for arm in arms if arm.name != BASE}
    lacking = [arm.name for arm in arms if not (arm.bin / TOOL).is_file()]
    if lacking:
        raise NotMeasured(f"{TOOL} is not among the tools of the arm{'s' * (len(lacking) > 1)} {', '.join(lacking)}.")
    by_name = {arm.name: arm for arm in arms}
    order = [by_name[BASE], *(arm for arm in arms if arm.name != BASE)]
    for number, prompt in enumerate(prompts):
        if step is not None:
            step(f"greedy text, prompt {number + 1} of {len(prompts)}")
        read = _continue(folder, by_name[BASE], model, prompt, load.threads, 1)[:-1]
        base: tuple[int, ...] = ()
        for arm in order:
            ids = _continue(folder, arm, model, prompt, load.threads, load.tokens, length=len(read) + load.tokens)
            if ids[: len(read)] != read:
                raise NotMeasured(f"the {arm.name} arm read {prompt.name} as other tokens than base.")
            tokens = ids[len(read) :]
            base = tokens if arm.name == BASE else base
            same = common_start(base, tokens)
            if arm.name != BASE:
                agreed[arm.name].append(same)
            folder.record("greedy", arm=arm.name, prompt=prompt.name, tokens=tokens, agreed=same)
    return [Agreement(name, load.tokens, tuple(counts)) for name, counts in agreed.items()]


def common_start(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share before they differ."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def read_session(path: Path) -> tuple[int, ...] | None:
    """The token ids of a session file; None unless it holds as many as it says.

    Format: magic, version, count, ids (32 bits each), then the context's state (upstream, `llama_state_save_file`).
    """
    try:
        with path.open("rb") as file:
            magic, _, count = _HEADER.unpack(file.read(_HEADER.size))
            raw = file.read(4 * count)
    except (OSError, struct.error):
        return None
    return struct.unpack(f"<{count}i", raw) if magic == _MAGIC and len(raw) == 4 * count else None


def _continue(
    folder: RunFolder, arm: Arm, model: Path, prompt: Path, threads: int, tokens: int, *, length: int | None = None
) -> tuple[int, ...]:
    """Token ids of prompt and continuation, `length` in all where that is known."""
    # A prompt of n bytes has at most n tokens, and one to begin.
    context = -(-(prompt.stat().st_size + 2 + tokens) // 256) * 256
    session = folder.path / f"session-{arm.name}.bin"
    args = [
        "-m", str(model), "-f", str(prompt), "-n", str(tokens), "-c", str(context), "-t", str(threads),
        "--temp", "0", "--seed", "1", "--ignore-eos", "-no-cnv", "--no-display-prompt", "--no-escape", "--no-warmup",
        "--simple-io", "--prompt-cache", str(session), "--prompt-cache-all",
    ]  # fmt: skip
    for attempt in range(1, ATTEMPTS + 1):
        session.unlink(missing_ok=True)
        run = folder.launch(arm, arm.tool(TOOL), args, what="greedy")
        try:
            return _checked(run, session, tokens, length)
        except NotMeasured:
            if attempt == ATTEMPTS or run.done.code != 0:
                raise
        finally:
            session.unlink(missing_ok=True)
    raise AssertionError("unreachable")


def _checked(run: Run, session: Path, tokens: int, length: int | None) -> tuple[int, ...]:
    if run.done.code != 0:
        raise failed(run, f"ended with status {run.done.code}")
    ids = read_session(session)
    if ids is None:
        raise failed(run, "wrote no whole session file although it ended with status 0")
    if len(ids) <= tokens or length not in (None, len(ids)):
        raise failed(run, f"its session holds {len(ids)} tokens; prompt and continuation have {length or 'more'}")
    return ids
