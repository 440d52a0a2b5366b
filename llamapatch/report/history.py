"""The history of everything measured: one SQLite table in ``.llamapatch/history.sqlite`` that a person can query.

One row is one figure: a ratio, a quality figure, or the word of a gate's step. `COLUMNS` documents the table;
docs/how-to.md has queries. Rows are only ever added, and adding the same run again adds nothing, so that concurrent
writers, repeated gates and a rebuild from the kept runs all end in the same table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from llamapatch.errors import EnvironmentProblem
from llamapatch.judge.gate_result import EffectsResult, GatedPatch
from llamapatch.judge.result import Comparison, Quality, Ratio, RoundResult
from llamapatch.measure.arms import AGAIN, BASE, ON
from llamapatch.report.effects import kind_of
from llamapatch.report.tables import subject

HISTORY_NAME = "history.sqlite"
_VERSION = 1
# Others append a few rows at a time; whoever holds the file longer than this is stuck.
_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Row:
    """One figure. The comments are the documentation of the table's columns."""

    time: str  # when the run started, ISO 8601, UTC
    run: str  # the comparison's or effects' id, or the hash of the gate's job
    verb: str  # compare, gate, ablate, waterfall, bisect
    upstream: str  # the version of llama.cpp; empty for gates, whose job hash covers it
    chain: str  # the identity of the whole series; empty for gates
    label: str  # the build that was measured ("v0.5.0+lp.0123456789ab"); empty for gates
    commit_id: str  # the commit compiled into that build; empty for gates
    patch: str  # the patch, or the patches, comma-separated, in question
    metric: str  # tg128, peak memory, mean_kld, ln_ppl, same_top, a step of the gate, ...
    arm: str  # on, off, base-again (the A/A arm), a peer; closure or series for gates
    model: str  # name and type of the model; "kernel" for a kernel benchmark; empty for gates
    kind: str  # speed (more is better), amount (less is better), quality, gate
    value: float | None  # the arm's figure in `unit`; seconds for a gate's step
    unit: str
    ratio: float | None  # against the unpatched build; NULL for quality and gates
    low: float | None  # the interval of `ratio`, or of `value` for quality
    high: float | None
    blocks: int | None  # paired blocks behind the interval
    word: str  # the verdict: faster, same, inconclusive, pass, fail, ...
    machine: str  # id of the machine: figures of different machines must not be compared
    tool: str  # version of llamapatch; empty for gates


COLUMNS = tuple(field.name for field in fields(Row))
_KEY = ("run", "patch", "metric", "arm", "model")
_TYPES = {"value": "REAL", "ratio": "REAL", "low": "REAL", "high": "REAL", "blocks": "INTEGER"}


def rows_of_comparison(result: Comparison) -> list[Row]:
    """Every ratio, quality figure and identity of a comparison; the cases of a kernel benchmark are left to the run."""
    patch = ",".join(subject(result))
    rows = []
    for found in result.rounds:
        model = f"{found.model.name} {found.model.type}".strip()
        for ratio in (*found.speed, *found.cost):
            rows.append(_ratio_row(result, ratio, patch, model))
        for quality in found.quality:
            rows += _quality_rows(result, quality, patch, model)
        for logits in found.logits:
            rows.append(
                _row(
                    result,
                    patch=patch,
                    metric=f"logits ub{logits.ubatch}",
                    arm=logits.arm,
                    model=model,
                    kind="quality",
                    value=logits.nmse,
                    unit="NMSE",
                    word=logits.verdict,
                )
            )
        for metric, arm, kind, value, unit in _plain_figures(found):
            more = {"metric": metric, "kind": kind, "value": value, "unit": unit, "word": "info"}
            rows.append(_row(result, arm=arm, patch=patch, model=model, **more))
    for kernel in result.kernels:
        for ratio in kernel.overall:
            rows.append(_ratio_row(result, ratio, kernel.patch, "kernel"))
    return rows


def rows_of_gate(jobs: Iterable[GatedPatch]) -> list[Row]:
    """The word of each job and of each of its steps. A job that was never run has nothing to remember."""
    rows = []
    for job in jobs:
        if not job.measured_at:
            continue
        seconds = sum(step.seconds for step in job.steps)
        for metric, word, took in (("gate", job.word, seconds), *((s.name, s.word, s.seconds) for s in job.steps)):
            rows.append(
                Row(
                    time=job.measured_at,
                    run=job.job,
                    verb="gate",
                    upstream="",
                    chain="",
                    label="",
                    commit_id="",
                    patch=job.patch,
                    metric=metric,
                    arm=job.where,
                    model="",
                    kind="gate",
                    value=took,
                    unit="s",
                    ratio=None,
                    low=None,
                    high=None,
                    blocks=None,
                    word=word,
                    machine=str(job.machine.get("id", "")),
                    tool="",
                )
            )
    return rows


def rows_of_effects(result: EffectsResult) -> list[Row]:
    """The marginal effect of each patch."""
    return [
        Row(
            time=result.started,
            run=result.id,
            verb=result.kind,
            upstream=result.upstream_version,
            chain=result.series_chain,
            label="",
            commit_id="",
            patch=effect.patch,
            metric=result.metric,
            arm=ON,
            model=result.model,
            kind=kind_of(result.unit),
            value=None,
            unit=result.unit,
            ratio=effect.ratio,
            low=effect.low,
            high=effect.high,
            blocks=effect.blocks,
            word=effect.word,
            machine=str(result.machine.get("id", "")),
            tool=result.tool,
        )
        for effect in result.effects
    ]


def append(path: Path, rows: Iterable[Row]) -> int:
    """Add `rows` to the history at `path`, which is made when it is not there; returns how many were new.

    Raises `EnvironmentProblem` for a damaged, foreign or unwritable file.
    """
    marks = ", ".join("?" * len(COLUMNS))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        _prepare(connection, path)
        before = connection.total_changes
        connection.executemany(f"INSERT OR IGNORE INTO history VALUES ({marks})", map(astuple, rows))  # noqa: S608
        return connection.total_changes - before


def read(
    path: Path,
    *,
    metric: str | None = None,
    patch: str | None = None,
    machine: str | None = None,
    limit: int | None = None,
) -> list[Row]:
    """The newest `limit` rows that fit, oldest first; none when there is no history yet. `patch` also finds rows that
    name several patches. Raises `EnvironmentProblem` for a damaged or foreign file."""
    if not path.is_file():
        return []
    wanted = {
        "metric = ?": metric,
        "(',' || patch || ',') LIKE ('%,' || ? || ',%')": patch,
        "machine = ?": machine,
    }
    asked = {text: value for text, value in wanted.items() if value is not None}
    where = f" WHERE {' AND '.join(asked)}" if asked else ""
    query = f"SELECT {', '.join(COLUMNS)} FROM history{where} ORDER BY time DESC, rowid DESC LIMIT ?"  # noqa: S608
    with _open(path) as connection:
        _check_version(connection, path)
        found = connection.execute(query, (*asked.values(), -1 if limit is None else limit)).fetchall()
    return [Row(*values) for values in reversed(found)]


def as_data(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """As plain JSON data, keys as the columns."""
    return [dict(zip(COLUMNS, astuple(row), strict=True)) for row in rows]


def _ratio_row(result: Comparison, ratio: Ratio, patch: str, model: str) -> Row:
    return _row(
        result,
        patch=patch,
        metric=ratio.metric,
        arm=ratio.arm,
        model=model,
        kind=ratio.kind,
        value=ratio.value,
        unit=ratio.unit,
        word=ratio.word,
        ratio=ratio.ratio,
        low=ratio.low,
        high=ratio.high,
        blocks=ratio.blocks,
    )


def _quality_rows(result: Comparison, quality: Quality, patch: str, model: str) -> list[Row]:
    arm = AGAIN if quality.floor else quality.arm
    figures: tuple[tuple[str, float, str, float | None, float | None], ...] = (
        ("perplexity", quality.perplexity, "", None, None),
        ("ln_ppl", quality.ln_ratio, "nats", quality.ln_ratio_low, quality.ln_ratio_high),
        ("mean_kld", quality.mean_kld, "nats", quality.mean_kld_low, quality.mean_kld_high),
        ("same_top", quality.same_top, "", None, None),
    )
    return [
        _row(
            result,
            patch=patch,
            # One model may be read at several context lengths.
            metric=f"{name} c{quality.context}",
            arm=arm,
            model=model,
            kind="quality",
            value=value,
            unit=unit,
            low=low,
            high=high,
            blocks=quality.windows,
            word="info",
        )
        for name, value, unit, low, high in figures
    ]


def _plain_figures(found: RoundResult) -> Iterator[tuple[str, str, str, float, str]]:
    """Figures without an interval: metric, arm, kind, value, unit."""
    for greedy in found.greedy:
        yield "greedy_equal", greedy.arm, "quality", greedy.equal, ""
    for arm, seconds in found.cpu_seconds_per_token.items():
        yield "CPU time per token", arm, "amount", seconds, "s"
    for counter, joules in found.joules_per_token.items():
        for arm, value in joules.items():
            yield f"energy per token, {counter}", arm, "amount", value, "J"
    for memory in found.memory:
        if memory.peak_gpu is not None:
            yield "peak GPU memory", memory.arm, "amount", memory.peak_gpu, "MiB"


def _row(result: Comparison, *, arm: str, **more: Any) -> Row:
    built = {known.name: known for known in result.arms}
    build = built.get(arm) or built.get(BASE)
    return Row(
        **{"ratio": None, "low": None, "high": None, "blocks": None, "value": None, **more},
        time=result.started,
        run=result.id,
        verb="compare",
        upstream=result.upstream_version,
        chain=result.series_chain,
        label=build.label if build else "",
        commit_id=build.commit if build else "",
        arm=arm,
        machine=str(result.machine.get("id", "")),
        tool=result.tool,
    )


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in which everything is one transaction; SQLite's complaints become sentences."""
    try:
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            yield connection
            if connection.in_transaction:
                connection.execute("COMMIT")
        finally:
            connection.close()  # rolls back what was not committed
    except sqlite3.OperationalError as error:
        raise EnvironmentProblem(
            f"the history {path} cannot be used: {error}.",
            "Look at the folder's permissions and free space, or wait for the process that holds it.",
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == _VERSION:
        return
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        _check_version(connection, path)
    columns = ", ".join(f"{name} {_TYPES.get(name, 'TEXT NOT NULL')}" for name in COLUMNS)
    connection.execute(f"CREATE TABLE history ({columns}, UNIQUE ({', '.join(_KEY)}))")
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _VERSION:
        raise EnvironmentProblem(
            f"the history {path} was written by a newer llamapatch (version {version}).", "Use that one, or update."
        )
    if version != _VERSION:
        raise _damaged(path, "it has no table of llamapatch's")


def _damaged(path: Path, why: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the history {path} is damaged: {why}.",
        f"Move it away (`mv {path} {path}.damaged`) and run `llamapatch history --rebuild`, which reads the runs that "
        "are kept beside it.",
    )
