"""A comparison as Markdown, for a pull request or a file in the repository."""

from __future__ import annotations

import pandas as pd

from llamapatch.judge.result import Comparison
from llamapatch.report.tables import all_tables, headlines, provenance


def to_markdown(result: Comparison) -> str:
    """The whole comparison; ends with a newline."""
    what = ", ".join(result.asked) or "nothing"
    parts = [f"## llamapatch compare: {escape(what)} on {escape(result.upstream_version)}", ""]
    parts += [f"- {escape(line)}" for line in headlines(result)]
    if result.problems:
        parts += ["", "**Not measured**", ""]
        parts += [f"- {escape(problem.where)}: {escape(problem.what)}" for problem in result.problems]
    for table in all_tables(result):
        parts += ["", f"### {escape(table.title)}", "", pipes(table.frame)]
        if table.note:
            parts += ["", escape(table.note)]
    parts += ["", "<details><summary>Where these figures come from</summary>", ""]
    parts += [f"- {escape(line)}" for line in provenance(result)]
    parts += ["", "</details>", ""]
    return "\n".join(parts)


def pipes(frame: pd.DataFrame) -> str:
    """A frame of strings as a table; numbers stand to the right, the first column to the left."""
    filled = frame.fillna("")
    head = "| " + " | ".join(escape(str(column)) for column in filled.columns) + " |"
    rule = "|" + "|".join(" --- " if index == 0 else " ---: " for index in range(len(filled.columns))) + "|"
    rows = ["| " + " | ".join(escape(str(cell)) for cell in row) + " |" for row in filled.itertuples(index=False)]
    return "\n".join([head, rule, *rows])


def escape(text: str) -> str:
    """`text` as it is, inside a paragraph or a cell."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
