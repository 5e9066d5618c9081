"""The stsmm command: composed of what the installed packages offer, so that no package imports an outer one."""

import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console

from stsmm_core.errors import StsmmError

INTERRUPTED = 130
"""Exit code with which the command line library ends after Ctrl-C."""
GO_ON = {"train", "simulate", "compare"}
"""Commands that go on from where they were interrupted."""


def build_app() -> typer.Typer:
    """All commands and command groups of the entry-point group `stsmm.commands`."""
    app = typer.Typer(
        name="stsmm",
        help="Federated multimodal survival prediction in soft-tissue sarcoma.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for entry in sorted(entry_points(group="stsmm.commands"), key=lambda entry: entry.name):
        command = entry.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)
    return app


def main() -> None:
    """Run a command; an error meant for the user is printed without a traceback and ends with code 1."""
    try:
        build_app()()
    except StsmmError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]Error:[/bold red] {_escaped(error)}", highlight=False)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            goes_on = bool(GO_ON & set(sys.argv[1:2]))
            hint = "; the run goes on from its last round when the command is given again" if goes_on else ""
            Console(stderr=True, soft_wrap=True).print(f"Interrupted{hint}.")
        raise


def _escaped(error: StsmmError) -> str:
    from rich.markup import escape

    from stsmm_core.printable import printable

    return escape("\n".join(map(printable, str(error).split("\n"))))  # it may quote a file that somebody else made
