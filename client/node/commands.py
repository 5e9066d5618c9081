"""stsmm site approve, start, status, stop, courier."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stsmm_core.errors import ConfigError
from stsmm_core.printable import printable

Kit = Annotated[Path, typer.Argument(metavar="KIT", help="The folder of the site's kit.", exists=True, file_okay=False)]


def approve(
    kit: Kit,
    app: Annotated[Path | None, typer.Argument(help="An app (.fab), or with --key a public key.")] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Show every changed line.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    key: Annotated[str | None, typer.Option(help="Trust a reviewer's key under this id; needs --of.")] = None,
    of: Annotated[str | None, typer.Option("--of", help="The reviewer's site.")] = None,
    remove_key: Annotated[str | None, typer.Option(help="Trust this key no more.")] = None,
    revoke: Annotated[str | None, typer.Option(help="Take the approval of this sha256 back.")] = None,
) -> None:
    """Approve an app after a look at what changed; without one, list the approvals."""
    from client.node import approval, reviewers
    from client.node.ledger import Ledger

    console = Console(soft_wrap=True, highlight=False)
    if remove_key is not None:
        reviewers.remove_reviewer(kit, remove_key)
        console.print(f"The key {remove_key} is trusted no more.")
    elif revoke is not None:
        console.print(f"{approval.revoke(kit, revoke)} is approved no more; the next message of its runs is refused.")
    elif key is not None:
        if of is None or app is None:
            raise ConfigError("a key needs its file and the site of its reviewer: --key ID --of SITE FILE")
        reviewers.add_reviewer(kit, key, app, of)
        console.print(f"The key {key} of {of} is trusted from the next start of the node on.")
    elif app is None:
        for each in Ledger(kit).approvals():
            state = "approved" if each.holds else f"revoked {each.revoked_at}"
            told = f"{each.sha256}  {each.app}  {each.approved_at}  by {each.approved_by}  {state}"
            console.print(printable(told), markup=False)
    else:
        _approve(console, kit, app, diff=diff, yes=yes)


def start(kit: Kit, detach: Annotated[bool, typer.Option("--detach", help="Go on in the background.")] = False) -> None:
    """Start the node; it runs until it is stopped."""
    from client.node import node

    if not detach:
        node.start(kit)
        return
    import subprocess
    import sys

    from client.node.settings import state_folder

    node.check_ready(kit)
    path = state_folder(kit) / "node.out"
    path.touch(mode=0o600)
    with path.open("wb") as out:
        command = "from stsmm_core.cli import main; main()"
        subprocess.Popen(
            [sys.executable, "-c", command, "site", "start", str(kit)], stdout=out, stderr=out, start_new_session=True
        )
    Console().print(f"Started; stsmm site status {kit} says how it goes.")


def status(kit: Kit) -> None:
    """Whether the node runs and is connected, and what it did."""
    from client.node import node
    from client.node.ledger import IN_HAND, Ledger

    console, ledger = Console(soft_wrap=True, highlight=False), Ledger(kit)
    running, started = node.is_running(kit), ledger.noted("node")
    since = "" if started is None else f" since {started['at']}"
    console.print(f"node: running{since}" if running else "node: not running")
    console.print(f"connected: {'yes' if running and node.is_connected(ledger) else 'no'}")
    for key in (IN_HAND, "last message", "last refusal"):
        noted = ledger.noted(key)
        text = "none" if noted is None else f"{noted['at']}  {noted.get('message', noted.get('reason'))}"
        console.print(f"{key}: {text}")
    console.print(f"rounds today: {ledger.rounds_today()}")
    table = Table("run", "seen", "decision", "code")
    for run in ledger.runs():
        table.add_row(run.name or run.run_id, run.seen_at, run.decision, Text(printable(run.code[:12])))
    if ledger.runs():
        console.print(table)


def stop(
    kit: Kit, now: Annotated[bool, typer.Option("--now", help="Do not wait for the message in hand.")] = False
) -> None:
    """End the node after the message in hand."""
    import time

    from client.node import node

    console = Console(soft_wrap=True, highlight=False)
    if not node.stop(kit, now=now):
        console.print("No node of this kit runs.")
        return
    console.print("The node ends" + (" now." if now else " after the message in hand; --now does not wait for it."))
    while node.is_running(kit):
        time.sleep(0.5)
    console.print("The node has ended.")


def courier(
    kit: Kit,
    file: Annotated[Path, typer.Argument(help="The file from the server.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Argument(help="The file to write for the server, or a folder for it.")],
) -> None:
    """Answer a file from the server, for a site without a connection."""
    from client.node.courier_process import answer

    console = Console(soft_wrap=True, highlight=False)
    target = out / f"{file.stem}-answer.courier" if out.is_dir() else out
    with console.status("The site works on the file"):
        new = answer(kit, file, target)
    said = "Answered" if new else "This file was answered before; the same answer again"
    console.print(f"{said}: bring {target} to the server.", markup=False)


def _approve(console: Console, kit: Path, path: Path, *, diff: bool, yes: bool) -> None:
    from client.node import approval

    new, (old, broken) = approval.read_app(path), approval.last_approved(kit)
    console.print(f"{new.name}, sha256 {new.sha256}", markup=False)
    changes = approval.compare(old, new)
    for sha256 in broken:
        console.print(f"The copy of the approved {sha256} is missing or broken; nothing is compared with it.")
    if old is not None:
        console.print(f"Against the last approved, {old.sha256}:")
    elif not broken:
        console.print("The first app here.")
    for word, names in (("added", changes.added), ("removed", changes.removed), ("changed", changes.changed)):
        console.print(f"{len(names)} files {word}")
        if old is not None:
            for name in names:
                console.print(f"  {printable(name)}", markup=False)
    if diff:
        console.print(approval.unified_diff(old, new), markup=False)
    if not yes and not typer.confirm("May this code work on the site's patients?"):
        raise typer.Abort
    approval.approve(kit, new)
    console.print("Approved.")
