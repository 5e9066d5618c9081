"""What a comparison prints when it is done."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stsmm_core.report.joining import NAMES, Joining, advice_by_site, show_figure


def print_joining(console: Console, report: Path, joining: Joining) -> None:
    """Print the models and their gaps over all sites, and the answer for each site."""
    table = Table(title="Federated, centralised and alone: C-index [95 % CI] of the selected and the final round")
    for column in ("endpoint", "", "selected", "final", "n", "events"):
        table.add_column(column)
    for endpoint in joining.endpoints:
        for name, label in NAMES.items():
            selected = joining.find(name, endpoint)
            final = joining.find(name, endpoint, weights="final")
            if selected is not None:
                counts = (str(selected.n), str(selected.events))
                table.add_row(endpoint, label, escape(show_figure(selected)), escape(show_figure(final)), *counts)
    console.print(table)
    for endpoint in joining.endpoints:
        for site, sentence in advice_by_site(joining, endpoint).items():
            console.print(f"{endpoint}, {site}: {escape(sentence)}", soft_wrap=True)
    console.print(f"Report: {report}", soft_wrap=True)
