"""Running CMake and Ninja: every line into a log file, progress, and failures that show the lines that matter."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from llamapatch.build.progress import NINJA_STATUS, BuildProgress, parse_step
from llamapatch.errors import EnvironmentProblem, LlamapatchError, UsageProblem
from llamapatch.process import Completed, run

_TAIL = 20
_WIDTH = 400


class BuildFailed(LlamapatchError):
    """CMake or a compiler refused; the message has its last lines, `log` the whole output."""

    def __init__(self, what: str, lines: Sequence[str], log: Path, remedy: str = "") -> None:
        shown = "\n".join(line if len(line) <= _WIDTH else line[:_WIDTH] + " ..." for line in lines[-_TAIL:])
        super().__init__(f"{what}:\n{shown}\nAll output: {log}\n", remedy)
        self.log = log


@dataclass(frozen=True)
class Ran:
    """A finished Ninja run: the steps it took, in the order they ended, and the CPU time of the whole family."""

    steps: tuple[str, ...]
    cpu_seconds: float


class Log:
    """A log file that two reader threads may write lines to."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w", encoding="utf-8", errors="surrogateescape")
        self._lock = threading.Lock()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, line: str) -> None:
        with self._lock:
            self._file.write(line + "\n")


def configure(argv: Sequence[str | os.PathLike[str]], cwd: Path, env: Mapping[str, str], title: str, log: Log) -> float:
    """Run CMake's configure step; returns its CPU seconds, raises `BuildFailed` with CMake's own error text."""
    log.write(f"$ {' '.join(os.fspath(a) for a in argv)}")
    done = run(argv, cwd=cwd, env=env, check=False, on_line=log.write)
    if done.code != 0:
        full = _full_disk(done, log)
        if full is not None:
            raise full
        text = f"{done.stdout}\n{done.stderr}"
        start = text.find("CMake Error")
        lines = [line for line in text[max(start, 0) :].splitlines() if line.strip()]
        shown = lines[:_TAIL] if start >= 0 else lines[-_TAIL:]
        raise BuildFailed(f"configuring {title} failed", shown, log.path, "`llamapatch doctor` shows what is missing.")
    return done.cpu_seconds


def build_targets(
    ninja: Path,
    out: Path,
    targets: Sequence[str],
    *,
    jobs: int,
    env: Mapping[str, str],
    title: str,
    log: Log,
    report: Callable[[str], None] | None = None,
) -> Ran:
    """Bring `targets` up to date in the configured folder `out`.

    Raises `UsageProblem` for an unknown target and `BuildFailed` when a step fails. Interrupted, Ninja is asked to end
    first: it stops the compilers and removes what they had half written, so that the next run goes on from there.
    """
    argv: list[str | os.PathLike[str]] = [ninja, "-C", out, "-j", str(jobs), *targets]
    log.write(f"$ {' '.join(os.fspath(a) for a in argv)}")
    steps: list[str] = []
    with BuildProgress(title, report) as progress:

        def line(text: str) -> None:
            log.write(text)
            step = parse_step(text)
            if step is not None:
                steps.append(step[2])
            progress.line(text)

        done = run(argv, env=dict(env) | {"NINJA_STATUS": NINJA_STATUS}, check=False, on_line=line)
    if done.code != 0:
        raise _failure(done, title, log)
    return Ran(tuple(steps), done.cpu_seconds)


def _failure(done: Completed, title: str, log: Log) -> LlamapatchError:
    full = _full_disk(done, log)
    if full is not None:
        return full
    text = f"{done.stdout}\n{done.stderr}"
    unknown = re.search(r"ninja: error: unknown target '([^']+)'(?:, did you mean '([^']+)'\?)?", text)
    if unknown:
        hint = f" The nearest is `{unknown.group(2)}`." if unknown.group(2) else ""
        return UsageProblem(
            f"{title} has no target `{unknown.group(1)}`.{hint}", "Give --targets that its CMake files define."
        )
    lines, what = _first_failure(done.stdout.splitlines())
    if not lines:
        lines = [line for line in text.splitlines() if line.strip()]
    remedy = "Mend it and run the same command again; what was built stays."
    if re.search(r"Killed signal terminated program|std::bad_alloc|virtual memory exhausted", text):
        remedy = "The compiler ran out of memory: try again with --jobs 1; what was built stays."
    return BuildFailed(f"building {title} failed{what}", lines, log.path, remedy)


def _first_failure(lines: list[str]) -> tuple[list[str], str]:
    """The output of the first failed step without its command line, and " at <what>"."""
    for i, line in enumerate(lines):
        if line.startswith("FAILED: "):
            end = next(
                (j for j in range(i + 1, len(lines)) if parse_step(lines[j]) or lines[j].startswith("ninja: ")), None
            )
            said = lines[i + 2 : end]
            # Errors before their consequences: the first one is the one to mend.
            first = next((k for k, text in enumerate(said) if "error" in text.lower()), 0)
            what = re.sub(r"^\[code=\d+\] ", "", line.removeprefix("FAILED: ")).strip()
            return said[max(first - 2, 0) :][:_TAIL], f" at {what}"
    return [], ""


def _full_disk(done: Completed, log: Log) -> EnvironmentProblem | None:
    if not any("No space left on device" in text for text in (done.stdout, done.stderr)):
        return None
    return EnvironmentProblem(
        f"the disk of {log.path.parent} is full.",
        "Free some space and run the same command again; what was built stays.",
    )
