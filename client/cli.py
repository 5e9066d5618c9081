"""stsmm site: a hospital's node in a consortium."""

import typer

from client.node.keygen import keygen

app = typer.Typer(no_args_is_help=True, help="A hospital's node: check, approve code, start, stop.")
app.command("keygen")(keygen)
