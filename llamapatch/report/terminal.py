"""A comparison in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from llamapatch.judge.result import Comparison
from llamapatch.report.tables import Table, all_tables, headlines, provenance

WIDTH = 140
_STYLES = {
    "faster": "bold green",
    "slower": "bold red",
    "different": "bold red",
    "identical": "green",
    "unfit": "yellow",
    "inconclusive": "yellow",
}


def wide_console(console: Console) -> Console:
    """`console`, or one of 140 columns where it is a file or a pipe: 80 would fold every interval."""
    return console if console.is_terminal else Console(file=console.file, width=WIDTH, highlight=False)


def print_comparison(result: Comparison, console: Console) -> None:
    """Print headlines, tables, problems, and where the figures come from."""
    wide = wide_console(console)
    for line in headlines(result):
        console.print(Text(f"* {line}"), soft_wrap=True)
    for table in all_tables(result):
        wide.print()
        wide.print(rich_table(table))
    console.print()
    for line in provenance(result):
        console.print(Text(line, style="dim"), soft_wrap=True)
    console.print(Text(f"raw data: {result.raw}", style="dim"), soft_wrap=True)
    for problem in result.problems:
        console.print(Text(f"not measured: {problem.where}: {problem.what}", style="bold red"), soft_wrap=True)


def rich_table(table: Table) -> RichTable:
    """A `Table` for rich."""
    shown = RichTable(
        title=table.title,
        caption=table.note or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
    )
    for index, column in enumerate(table.frame.columns):
        shown.add_column(str(column), justify="left" if index == 0 else "right", overflow="fold")
    for row in table.frame.fillna("").itertuples(index=False):
        shown.add_row(*(Text(str(cell), style=_style(str(cell))) for cell in row))
    return shown


def _style(cell: str) -> str:
    return next((style for word, style in _STYLES.items() if cell.startswith(word)), "")
