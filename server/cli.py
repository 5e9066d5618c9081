"""stsmm server: the server of a consortium."""

import typer

from server.deploy import kit_commands, run_commands

app = typer.Typer(no_args_is_help=True, help="The server of a consortium: kits for its sites, runs, results.")
app.command("provision")(kit_commands.provision)
app.command("add-site")(kit_commands.add_site)
app.command("add-key")(kit_commands.add_key)
app.command("revoke-site")(kit_commands.revoke_site)
app.command("rotate")(kit_commands.rotate)
app.command("start")(run_commands.start)
app.command("pack")(run_commands.pack)
app.command("review-key")(run_commands.review_key)
app.command("sign")(run_commands.sign)
app.command("add-signature")(run_commands.add_signature)
app.command("run")(run_commands.run)
app.command("resume")(run_commands.resume)
app.command("stop")(run_commands.stop)
app.command("results")(run_commands.results)
app.command("status")(run_commands.status)
app.command("courier")(run_commands.courier)
