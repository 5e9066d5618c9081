"""What a training prints when it is done."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_results(console: Console, metrics: dict[str, Any], report: Path) -> None:
    """Print the C-index of each head with its interval, the oracle's beside it where it is known."""
    oracle = metrics["oracle"]
    tested = next(iter(metrics["heads"]))
    table = Table(title=f"Harrell's C-index on test patients ({metrics['mode']})")
    for column in ("endpoint", "head", "C [95 % CI]", "n", "events", "pairs"):
        table.add_column(column)
    if oracle is not None:
        table.add_column("oracle")
    for endpoint in metrics["test"]:
        for head, figures in metrics["heads"].items():
            c = figures[endpoint]["harrell_c"]
            value = [] if c["value"] is None else [f"[bold]{c['value']:.3f}[/bold]"]
            value += [c["reason"] if c["ci_low"] is None else f"\\[{c['ci_low']:.3f}, {c['ci_high']:.3f}]"]
            row = [endpoint, head, " ".join(value), str(c["n"]), str(c["events"]), str(c["pairs"])]
            if oracle is not None:
                row.append(f"{oracle[endpoint]:.3f}" if head == tested and oracle[endpoint] is not None else "")
            table.add_row(*row)
    console.print(table)
    console.print(f"Report: {report}", soft_wrap=True)
