"""stsmm audit: read and verify an audit log."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from stsmm_core.audit import chain
from stsmm_core.kit import AUDIT_LOG_FILE, STATE_FOLDER
from stsmm_core.printable import printable

app = typer.Typer(no_args_is_help=True, help="Verify the audit log of a server, a site or a run.")

File = Annotated[Path, typer.Argument(help="A kit, a run, or the audit.jsonl of one.")]


@app.command()
def verify(
    file: File,
    head: Annotated[
        str | None, typer.Option(help="A head hash of this log that was noted elsewhere, now or at an earlier time.")
    ] = None,
) -> None:
    """Show whether anybody changed the log; ends with code 1 and the first line that does not fit if so."""
    lines = chain.verify(_log(file), head)
    console = Console(soft_wrap=True)
    console.print(f"{lines} lines, none changed, removed, inserted or moved.", highlight=False)
    if head is not None:
        console.print("The hash you noted is that of one of them.")
    cut_off = sum(chain.CHAIN in entry for entry in chain.read(_log(file)))
    if cut_off:
        console.print(f"Writing was cut off {cut_off} times (power, full disk); the log notes where.", highlight=False)
    console.print(f"Head: {chain.head(_log(file)).sha256}", highlight=False)


@app.command()
def show(file: File) -> None:
    """The lines, without their hashes. It does not judge whether they are genuine: verify does."""
    console = Console(soft_wrap=True)
    for number, entry in enumerate(chain.read(_log(file)), start=1):
        said = {key: value for key, value in entry.items() if key not in ("time", "event", "previous")}
        head = " ".join(_plain(entry[key]) for key in ("time", "event") if key in entry)
        console.print(Text.assemble(f"{number}  ", (head, "bold"), f"  {_pairs(said)}"))


def _log(path: Path) -> Path:
    """The log of a kit or run where its folder is given."""
    for log in (path / STATE_FOLDER / AUDIT_LOG_FILE, path / AUDIT_LOG_FILE):
        if log.exists():
            return log
    if not path.is_file():
        raise chain.AuditError(
            f"{path}: no log. A run has one once a reply was left out of it, a kit once it was used; "
            "else it is another folder"
        )
    return path


def _pairs(more: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {_plain(value)}" for key, value in more.items())


def _plain(value: object) -> str:
    """A value as one line without control characters: a log may hold what somebody else sent."""
    if value is None:
        return ""
    return printable(value if isinstance(value, str) else json.dumps(value))
