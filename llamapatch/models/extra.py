"""Whether the optional extra ``train`` (torch, tokenizers, safetensors) is installed."""

from __future__ import annotations

from importlib.util import find_spec

from llamapatch.errors import EnvironmentProblem

_NEEDED = ("torch", "tokenizers", "safetensors")


def need_train() -> None:
    """Raise `EnvironmentProblem` that names what is missing and how to install it."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"this needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            "Install the extra: pip install 'llamapatch[train]'",
        )
