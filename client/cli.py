"""stsmm site: a hospital's node in a consortium."""

import typer

from client.node import commands
from client.node.keygen import keygen
from client.node.preflight.command import check

app = typer.Typer(no_args_is_help=True, help="A hospital's node: check, approve code, start, stop.")
app.command("keygen")(keygen)
app.command("check")(check)
app.command("approve")(commands.approve)
app.command("start")(commands.start)
app.command("status")(commands.status)
app.command("stop")(commands.stop)
app.command("courier")(commands.courier)
