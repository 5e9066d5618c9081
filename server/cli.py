"""stsmm server: the server of a consortium."""

import typer

from server.deploy import kit_commands

app = typer.Typer(no_args_is_help=True, help="The server of a consortium: kits for its sites, runs, results.")
app.command("provision")(kit_commands.provision)
app.command("add-site")(kit_commands.add_site)
app.command("add-key")(kit_commands.add_key)
app.command("revoke-site")(kit_commands.revoke_site)
app.command("rotate")(kit_commands.rotate)
