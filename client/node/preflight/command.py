"""stsmm site check: run the checks, show them, and write a support bundle."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.node.preflight.finding import Finding

STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red", "skipped": "dim"}


def check(
    kit: Annotated[Path, typer.Argument(help="The site's kit: the folder that was unpacked.", metavar="KIT")],
    config: Annotated[
        Path | None, typer.Option(help="An experiment file: also estimate its memory and disk.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON. It names this machine.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Write a support bundle that names no patient, person or machine.", metavar="FILE.zip"),
    ] = None,
) -> None:
    """Check everything that a node needs, before it starts; code 1 if there is a fault."""
    from client.node.preflight.checks import run_checks
    from stsmm_core.config import read_experiment

    experiment = read_experiment(config) if config is not None else None
    console = Console(stderr=True)
    with console.status("Checking") as status:
        findings = run_checks(kit, experiment, begin=lambda name: status.update(f"Checking {name}"))
    if as_json:
        typer.echo(json.dumps([asdict(finding) | {"what": finding.sentence()} for finding in findings], indent=2))
    else:
        show(Console(), findings)
    if bundle is not None:
        from client.node.preflight.bundle import write_bundle

        write_bundle(bundle, kit, findings)
        console.print(Text(f"Wrote {bundle}. Look into it before you send it: it is plain text."), soft_wrap=True)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


def show(console: Console, findings: Sequence[Finding]) -> None:
    """Print the findings as a table with what to do, and a verdict."""
    table = Table(show_lines=False)
    table.add_column("Check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("What was found, and what to do", overflow="fold")
    for finding in findings:
        told = Text(finding.sentence())
        if finding.detail:
            told.append(f"\n{finding.detail}", style="dim")
        if finding.remedy and finding.state != "ok":
            told.append(f"\nDo: {finding.remedy}", style="bold")
        table.add_row(finding.check, Text(finding.state, style=STYLES[finding.state]), told)
    console.print(table)
    faults = [finding.check for finding in findings if finding.state == "fault"]
    if faults:
        named = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}: {', '.join(faults)}."
        console.print(Text(f"{named} Mend from the top, then check again.", style="bold red"))
    else:
        console.print(Text("No fault. The node can start: stsmm site start KIT", style="bold green"))
