"""The commands of a server that runs: start, apps and signatures, runs, couriers."""

from pathlib import Path
from typing import Annotated

import typer

Kit = Annotated[Path, typer.Argument(help="The server's kit, made by `stsmm server provision`.", metavar="KIT")]
RunName = Annotated[str, typer.Argument(help="Name of the run.", metavar="RUN")]
Follow = Annotated[bool, typer.Option("--follow/--no-follow", help="Show the progress until the run ends.")]


def start(kit: Kit) -> None:
    """Run the server in the foreground until it is told to end (Ctrl-C or SIGTERM)."""
    from rich.console import Console

    from server.deploy.superlink import start_server

    start_server(Console(), kit)


def pack(kit: Kit) -> None:
    """Pack the installed code into the app that runs at the sites; they approve it by its sha256."""
    from server.deploy.apps import pack

    path = pack(kit)
    typer.echo(f"sha256 {path.stem}\n{path}")


def review_key(out: Annotated[Path, typer.Argument(help="File of the private key.")]) -> None:
    """Make a reviewer's key pair; a site that trusts the reviewer adds the line to its reviewers.yaml."""
    from server.deploy.signatures import make_review_key

    reviewer = make_review_key(out)
    typer.echo(
        f"Private key: {out} (keep it)\nEach site that trusts you, with {out}.pub:\n"
        f"stsmm site approve KIT --key {reviewer.id} --of YOUR-SITE {out.name}.pub"
    )


def sign(
    app: Annotated[Path, typer.Argument(help="SHA256.fab, as packed and reviewed.")],
    key: Annotated[Path, typer.Argument(help="The reviewer's private key.")],
) -> None:
    """Sign an app that you reviewed; send the signature file to whoever runs the server."""
    from server.deploy.signatures import sign_app

    typer.echo(f"Signature: {sign_app(app, key)}")


def add_signature(kit: Kit, file: Annotated[Path, typer.Argument(help="A file of `stsmm server sign`.")]) -> None:
    """Put a reviewer's signature to an app of the server."""
    from server.deploy.signatures import add_signature

    typer.echo(f"Signature of {add_signature(kit, file)} added.")


def run(
    kit: Kit,
    config: Annotated[Path, typer.Argument(help="Experiment file.", metavar="CONFIG")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the run.", show_default="CONFIG-NUMBER")] = None,
    sites: Annotated[
        int | None, typer.Option("--sites", min=1, help="Sites to wait for at the start.", show_default="all")
    ] = None,
    follow: Follow = True,
) -> None:
    """Train over the sites; the run goes on at the server when this command ends."""
    from rich.console import Console

    from server.deploy.runs import start_run

    start_run(Console(), kit, config, name=name, sites=sites, follow=follow)


def resume(kit: Kit, run: RunName, follow: Follow = True) -> None:
    """Go on with a run from its last checkpoint, after a crash or a stop."""
    from rich.console import Console

    from server.deploy.runs import resume_run

    resume_run(Console(), kit, run, follow=follow)


def stop(kit: Kit, run: RunName) -> None:
    """End a run; `resume` goes on with it."""
    from server.deploy.runs import stop_run

    stop_run(kit, run)
    typer.echo(f"Run {run} is stopped.")


def results(kit: Kit, run: RunName) -> None:
    """Print the results of a finished run and where its report is."""
    from rich.console import Console

    from server.deploy.runs import show_results

    show_results(Console(), kit, run)


def status(
    kit: Kit,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """The server, its sites, its runs."""
    import json
    import time

    from rich.console import Console
    from rich.live import Live

    from server.deploy.status import WATCH_S, read_status, show_status

    if as_json:
        typer.echo(json.dumps(read_status(kit), indent=2))
        return
    if not watch:
        Console().print(show_status(read_status(kit)))
        return
    with Live(show_status(read_status(kit)), auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_S)
            live.update(show_status(read_status(kit)), refresh=True)


def courier(
    kit: Kit,
    site: Annotated[str, typer.Argument(help="The site without a connection.", metavar="SITE")],
    folder: Annotated[Path, typer.Argument(help="Files for the site come into out/, answers belong into in/.")],
    make: Annotated[
        bool, typer.Option("--make", help="From now on the site takes part by courier; its own key connects no more.")
    ] = False,
) -> None:
    """Carry the messages of a site without a connection as files, until Ctrl-C."""
    from rich.console import Console

    from server.deploy.courier_command import run_courier

    run_courier(Console(), kit, site, folder, make=make)
