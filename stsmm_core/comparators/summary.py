"""What a comparison prints when it is done."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_comparison(console: Console, comparison: dict[str, Any], report: Path) -> None:
    """Print Harrell's C of each model with its interval, and how far the blended network is from it."""
    for endpoint in next(iter(comparison["results"].values())):
        table = Table(title=f"Harrell's C-index on test patients, {endpoint}")
        for column in ("model", "C [95 % CI]", "events", "network with blending minus this [95 % CI]"):
            table.add_column(column)
        differences = {each["against"]: each["difference"] for each in comparison["differences"][endpoint]}
        for model in comparison["models"]:
            figure = comparison["results"][model["key"]][endpoint]["harrell_c"]
            difference = differences.get(model["key"])
            cells = [model["label"], _cell(figure), str(figure["events"])]
            table.add_row(*map(Text, [*cells, "" if difference is None else _cell(difference, signed=True)]))
        console.print(table)
    console.print(f"Report: {report}", soft_wrap=True)


def _cell(figure: dict[str, Any], *, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    if figure["value"] is None:
        return str(figure["reason"])
    if figure["low"] is None:
        return f"{figure['value']:{form}} ({figure['reason']})"
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"
