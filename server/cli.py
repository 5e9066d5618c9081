"""stsmm server: the server of a consortium."""

import typer

app = typer.Typer(no_args_is_help=True, help="The server of a consortium: kits for its sites, runs, results.")
