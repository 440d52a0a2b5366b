"""Exit codes and the exceptions that carry them: the command line's contract.

Each message says what is wrong and where; `remedy` says what to type next. The command line prints both as one
paragraph, never a traceback.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a llamapatch process returns; tests assert these numbers."""

    OK = 0
    ERROR = 1
    USAGE = 2
    CONFLICT = 3
    MISMATCH = 4
    DIRTY = 5
    GATE_FAILED = 6
    INCONCLUSIVE = 7
    NOT_MEASURED = 8
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class LlamapatchError(Exception):
    """Base of every error that a user may see."""

    exit_code = ExitCode.ERROR

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class EnvironmentProblem(LlamapatchError):
    """The machine lacks something: a compiler, disk space, a readable folder, the network."""


class InternalError(LlamapatchError):
    """llamapatch contradicts itself: a bug worth reporting."""


class UsageProblem(LlamapatchError):
    """Bad input: an unknown id, malformed TOML, a file that is no GGUF."""

    exit_code = ExitCode.USAGE


class ConflictError(LlamapatchError):
    """Patches that cannot stand together, or text that cannot be merged."""

    exit_code = ExitCode.CONFLICT


class MismatchError(LlamapatchError):
    """Something is not the bytes it should be: a tree, a hash, a file."""

    exit_code = ExitCode.MISMATCH


class DirtyError(LlamapatchError):
    """Unsaved edits, a foreign folder, or another process at work."""

    exit_code = ExitCode.DIRTY


class GateFailed(LlamapatchError):
    """A declared budget or claim does not hold."""

    exit_code = ExitCode.GATE_FAILED


class Inconclusive(LlamapatchError):
    """The data allow no verdict."""

    exit_code = ExitCode.INCONCLUSIVE


class NotMeasured(LlamapatchError):
    """A tool ran but measured nothing that can be trusted."""

    exit_code = ExitCode.NOT_MEASURED
