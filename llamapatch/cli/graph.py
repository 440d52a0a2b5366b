"""``llamapatch graph``."""

from __future__ import annotations

import click

from llamapatch.cli.common import emit_json, json_option, say, settings, upstream_option
from llamapatch.series.load import load_series
from llamapatch.tree.graph import as_dot, as_mermaid, as_text, read_graph


@click.command()
@click.option("--dot", "form", flag_value="dot", help="Graphviz: `llamapatch graph --dot | dot -Tsvg`.")
@click.option("--mermaid", "form", flag_value="mermaid", help="Mermaid, as Markdown pages render it.")
@json_option
@upstream_option
def command(form: str | None, as_json: bool, upstream: str | None) -> None:
    """Which patch needs which: declared in patch.toml, and shown by the patches themselves.

    A need that is shown but not declared is UNDECLARED; one that is declared but that nothing in the text shows may
    still be needed to build or to run.
    """
    config = settings(upstream=upstream)
    graph = read_graph(config, load_series(config), say)
    if as_json:
        edges = [
            {
                "patch": edge.patch,
                "needs": edge.needs,
                "shown": list(edge.shown),
                "why": edge.why,
                "declared": edge.declared,
                "verdict": edge.verdict,
            }
            for edge in graph.edges
        ]
        emit_json({"schema": 1, "patches": [{"id": i, "phase": graph.phases[i]} for i in graph.ids], "edges": edges})
    else:
        click.echo({"dot": as_dot, "mermaid": as_mermaid}.get(form or "", as_text)(graph), nl=False)
