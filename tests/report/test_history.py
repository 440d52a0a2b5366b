"""The history: one table, safe with several writers, honest about damage."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from llamapatch.errors import EnvironmentProblem, ExitCode
from llamapatch.report import history
from llamapatch.report.load import rows_of
from tests.project import Project
from tests.report import samples
from tests.report.conftest import comparison


def test_a_comparison_becomes_rows(tmp_path: Path) -> None:
    file = tmp_path / ".llamapatch" / "history.sqlite"
    rows = rows_of(comparison())
    assert history.append(file, rows) == len(rows) == 4 + 3 * 4 + 3 + 2 + 1
    assert history.append(file, rows) == 0, "adding a run twice adds nothing"
    found = history.read(file)
    assert sorted(found, key=repr) == sorted(rows, key=repr)
    on = next(row for row in found if row.metric == "pp512" and row.arm == "on")
    assert on == history.Row(
        time="2026-11-23T10:00:00+00:00", run="run-1", verb="compare", upstream="v0.5.0", chain="c" * 64,
        label="v0.5.0+lp.b", commit_id="b" * 40, patch="toy", metric="pp512", arm="on", model="toy Q2_0", kind="speed",
        value=520.0, unit="tokens/s", ratio=5.2, low=5.2 * 0.96, high=5.2 * 1.04, blocks=7, word="faster", machine="m1",
        tool="0.1",
    )  # fmt: skip


def test_gates_and_effects_become_rows(tmp_path: Path) -> None:
    file = tmp_path / "h.sqlite"
    # lint and one more for each job that ran (bad has three steps), and the job itself; `never` has nothing to remember.
    assert history.append(file, rows_of(samples.everything())) == 4 + 9
    assert history.append(file, rows_of(samples.effects())) == 3
    assert [(r.patch, r.word) for r in history.read(file, metric="gate")] == [
        ("good", "pass"), ("bad", "fail"), ("open", "inconclusive"), ("deaf", "not measured")]  # fmt: skip
    assert [r.ratio for r in history.read(file, metric="tg128")] == [2.0, 0.5, 1.5]


def test_reading_filters_and_limits(tmp_path: Path) -> None:
    file = tmp_path / "h.sqlite"
    assert history.read(file) == []
    row = next(row for row in rows_of(comparison()) if row.metric == "pp512")
    many = [replace(row, run=f"r{i}", time=f"2026-11-{i:02}", patch="a,b" if i % 2 else "ab") for i in range(1, 11)]
    history.append(file, reversed(many))
    assert [r.run for r in history.read(file, limit=3)] == ["r8", "r9", "r10"]
    assert [r.run for r in history.read(file, patch="b")] == ["r1", "r3", "r5", "r7", "r9"]
    assert history.read(file, patch="a,") == [] and history.read(file, machine="other") == []


def test_the_documented_queries_run(tmp_path: Path) -> None:
    """docs/how-to.md shows them; they are run here as they stand there."""
    page = (Path(__file__).parents[2] / "docs" / "how-to.md").read_text(encoding="utf-8")
    queries = [part.split("```")[0] for part in page.split("```sql\n")[1:]]
    file = tmp_path / "h.sqlite"
    history.append(file, [*rows_of(comparison()), *rows_of(samples.everything())])
    with sqlite3.connect(file) as connection:
        results = [connection.execute(query).fetchall() for query in queries]
    assert len(results) == 3 and all(results), "each query finds something in a history with one of everything"
    for name in history.COLUMNS:
        assert f"`{name}`" in page, f"column {name} is not documented"


def _write(file: Path, number: int) -> None:
    row = next(row for row in rows_of(comparison()) if row.metric == "pp512")
    for i in range(20):
        history.append(file, [replace(row, run=f"{number}-{i}"), replace(row, run="shared")])


def test_writers_do_not_lose_each_others_rows(tmp_path: Path) -> None:
    file = tmp_path / "h.sqlite"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(file, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len({row.run for row in history.read(file)}) == len(history.read(file)) == 4 * 20 + 1


def test_a_writer_that_is_killed_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "h.sqlite"
    history.append(file, rows_of(samples.effects()))

    def broken():  # type: ignore[no-untyped-def]
        yield from rows_of(comparison())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        history.append(file, broken())
    assert len(history.read(file)) == 3


def test_damage_is_named_with_its_remedy(tmp_path: Path) -> None:
    file = tmp_path / "h.sqlite"
    rows = rows_of(comparison())

    def complaint() -> str:
        with pytest.raises(EnvironmentProblem) as caught:
            history.read(file)
        with pytest.raises(EnvironmentProblem):
            history.append(file, rows)
        return str(caught.value)

    file.write_bytes(b"this is no database, and long enough to be taken for one" * 20)
    assert complaint() == (
        f"the history {file} is damaged: file is not a database. Move it away (`mv {file} {file}.damaged`) and run "
        "`llamapatch history --rebuild`, which reads the runs that are kept beside it."
    )
    file.unlink()
    history.append(file, [replace(row, run=f"{i}") for i in range(200) for row in rows])
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    file.write_bytes(data)
    assert "is damaged: database disk image is malformed" in complaint()
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE other (x)")
    assert "it has no table of llamapatch's" in complaint()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 9")
    assert "was written by a newer llamapatch (version 9)" in complaint()
    file.unlink()
    file.mkdir()
    with pytest.raises(EnvironmentProblem, match="cannot be used: unable to open database file"):
        history.append(file, rows)


def test_the_verb(project: Project) -> None:
    def run(*words: str) -> str:
        return project.run("history", *words).out

    assert run() == f"nothing of that kind in {project.root}/.llamapatch/history.sqlite\n"
    runs = project.root / ".llamapatch" / "runs"
    for folder, name, text in (
        ("a", "comparison.json", json.dumps(comparison().data())),
        ("b", "effects.json", json.dumps(samples.effects().data())),
        ("c", "comparison.json", "{}"),
        ("d", "samples.json", "of no interest"),
    ):
        (runs / folder).mkdir(parents=True)
        (runs / folder / name).write_text(text)
    done = project.run("history", "--rebuild", "--dry-run")
    assert done.code == 0 and "would add what is new of 25 figures" in done.err
    done = project.run("history", "--rebuild", "--metric", "pp512")
    assert done.code == 0 and "25 new of 25 figures" in done.err
    assert "left out: " in done.err and "c/comparison.json" in done.err
    assert "5.20x [4.99, 5.41]" in done.out and "faster" in done.out and "v0.5.0+lp.b" in done.out
    data = json.loads(run("--json", "--patch", "two"))
    assert [row["ratio"] for row in data["rows"]] == [0.5]
    assert list(data["rows"][0]) == sorted(history.COLUMNS)
    (project.root / ".llamapatch" / "history.sqlite").write_bytes(b"damaged" * 500)
    done = project.run("history")
    assert done.code == ExitCode.ERROR and "history --rebuild" in done.err and "Traceback" not in done.err
