"""``llamapatch status``."""

from __future__ import annotations

import click

from llamapatch.cli.common import emit_json, json_option, out, settings
from llamapatch.series.load import load_series
from llamapatch.tree.state import State, read_state


@click.command()
@json_option
def command(as_json: bool) -> None:
    """The base, the series, what is applied and how, and whether its worktree is clean."""
    config = settings()
    state = read_state(config, load_series(config))
    if as_json:
        emit_json(_as_data(state))
        return
    for name, value in _lines(state):
        out.print(f"{name:<10}{value}", markup=False)


def _lines(state: State) -> list[tuple[str, str]]:
    kind = "came with llamapatch, read-only" if state.packaged else str(state.series)
    lines = [
        ("base", f"llama.cpp {state.version}, tree {state.tree}"),
        ("series", f"{state.chain[:12]}, lock {state.lock} ({kind})"),
    ]
    if state.rebase:
        lines.append(("rebase", f"{state.rebase}; `llamapatch rebase --continue`, `--skip` or `--abort`"))
    if not state.applied:
        return [*lines, ("applied", "nothing")]
    if state.editing:
        lines.append(("editing", f"{state.editing}; `llamapatch refresh`, then `llamapatch edit --done`"))
    lines += [("applied", ", ".join(state.applied)), ("", _HOW[state.how]), ("commit", state.commit or "")]
    return [*lines, ("worktree", f"{state.worktree}: {_worktree(state)}")]


_HOW = {
    "exact": "exact: the tree that series.lock proves",
    "merged": "merged: a subset, merged three ways; not proven by series.lock",
    "stale": "stale: the series has changed since; run `llamapatch apply` again",
}


def _worktree(state: State) -> str:
    if state.moving:
        return "a move was interrupted; the next `apply` or `verify` finishes it"
    if state.dirt is None:
        return "not checked out"
    parts = [
        f"{word} {', '.join(paths)}"
        for word, paths in (
            ("edited", state.dirt.edited),
            ("untracked", state.dirt.untracked),
            ("deleted", state.dirt.deleted),
        )
        if paths
    ]
    return "; ".join(parts) or "clean"


def _as_data(state: State) -> dict[str, object]:
    dirt = state.dirt
    return {
        "schema": 1,
        "base": {"version": state.version, "tree": state.tree},
        "series": {"path": str(state.series), "packaged": state.packaged, "chain": state.chain, "lock": state.lock},
        "applied": {"ids": list(state.applied), "how": state.how, "commit": state.commit},
        "editing": state.editing,
        "rebase": state.rebase or None,
        "worktree": {
            "path": str(state.worktree),
            "moving": state.moving,
            "present": dirt is not None,
            "edited": list(dirt.edited) if dirt else [],
            "untracked": list(dirt.untracked) if dirt else [],
            "deleted": list(dirt.deleted) if dirt else [],
        },
    }
