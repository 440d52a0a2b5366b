"""From verdicts to terminal, Markdown and JSON."""
