"""A comparison as Markdown, for a pull request or a file in the repository."""

from __future__ import annotations

import pandas as pd

from llamapatch.judge.result import Comparison
from llamapatch.report.tables import all_tables, headlines, provenance


def to_markdown(result: Comparison) -> str:
    """The whole comparison; ends with a newline."""
    what = ", ".join(result.asked) or "nothing"
    parts = [f"## llamapatch compare: {_escape(what)} on {_escape(result.upstream_version)}", ""]
    parts += [f"- {_escape(line)}" for line in headlines(result)]
    if result.problems:
        parts += ["", "**Not measured**", ""]
        parts += [f"- {_escape(problem.where)}: {_escape(problem.what)}" for problem in result.problems]
    for table in all_tables(result):
        parts += ["", f"### {_escape(table.title)}", "", _pipes(table.frame)]
        if table.note:
            parts += ["", _escape(table.note)]
    parts += ["", "<details><summary>Where these figures come from</summary>", ""]
    parts += [f"- {_escape(line)}" for line in provenance(result)]
    parts += ["", "</details>", ""]
    return "\n".join(parts)


def _pipes(frame: pd.DataFrame) -> str:
    filled = frame.fillna("")
    head = "| " + " | ".join(_escape(str(column)) for column in filled.columns) + " |"
    rule = "|" + "|".join(" --- " if index == 0 else " ---: " for index in range(len(filled.columns))) + "|"
    rows = ["| " + " | ".join(_escape(str(cell)) for cell in row) + " |" for row in filled.itertuples(index=False)]
    return "\n".join([head, rule, *rows])


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
