"""stsmm audit: read and verify an audit log."""

import typer

app = typer.Typer(no_args_is_help=True, help="Verify the audit log of a server, a site or a run.")
