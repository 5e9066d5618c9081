"""Commands on kits: provision, add-site, add-key, revoke-site, rotate."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from stsmm_core.errors import KitError

ServerKitFolder = Annotated[Path, typer.Argument(help="The server's kit.")]
SiteName = Annotated[str, typer.Argument(help="Name of the site.")]
CaKey = Annotated[
    Path | None, typer.Option("--ca-key", help="The authority's key, where it was moved out of the server's kit.")
]

_TOLD = "A running server knows at once; one that does not run, at its next start."


def provision(
    project: Annotated[Path, typer.Argument(help="The project file, consortium.toml.")],
    out: Annotated[Path, typer.Argument(help="The folder to make: OUT/server, and OUT/sites/NAME for each site.")],
    csr: Annotated[
        list[str] | None,
        typer.Option("--csr", help="A site that makes its key itself; its kit carries none. Once for each such site."),
    ] = None,
) -> None:
    """Make the kits of a consortium: authority, server certificate, node keys, settings, guides."""
    from server.deploy import provision as kits
    from server.deploy.project import read_project

    consortium = read_project(project)
    own_keys = csr or []
    kits.provision(consortium, out, own_keys=own_keys, now=datetime.now(UTC))
    typer.echo(
        f"{out / kits.SERVER_FOLDER}: the server's kit. ca.key makes new sites and certificates: keep it elsewhere."
    )
    for site in consortium.site:
        key = "without a key: the site makes it" if site.name in own_keys else "with its private key: send it sealed"
        typer.echo(f"{out / kits.SITES_FOLDER / site.name}: kit of {site.name}, {key}")


def add_site(
    kit: ServerKitFolder,
    name: SiteName,
    out: Annotated[Path, typer.Option("--out", help="The folder to make: the site's kit.")],
    csr: Annotated[bool, typer.Option("--csr", help="The site makes its key itself; the kit carries none.")] = False,
    contact: Annotated[str, typer.Option("--contact", help="Who looks after the node there.")] = "",
    ca_key: CaKey = None,
) -> None:
    """Make a kit for one more site."""
    from server.deploy import membership

    membership.add_site(kit, name, out, own_key=csr, contact=contact, ca_key=ca_key)
    typer.echo(f"{out}: kit of {name}" + (", without a key: the site makes it" if csr else ", with its private key"))


def add_key(
    kit: ServerKitFolder,
    name: SiteName,
    public_key: Annotated[Path, typer.Argument(help="The site's node.pub.")],
    replace: Annotated[bool, typer.Option("--replace", help="Revoke the key that the site has now.")] = False,
) -> None:
    """Let in the key that a site made with `stsmm site keygen`."""
    from server.deploy import membership

    fingerprint = membership.add_key(kit, name, public_key, replace=replace)
    typer.echo(f"{name}: {fingerprint}")
    typer.echo(_TOLD)
    typer.echo(
        "Compare it with what the site reads out on the telephone; if it differs: "
        f"stsmm server revoke-site {kit} {name}"
    )


def revoke_site(kit: ServerKitFolder, name: SiteName) -> None:
    """Let a site's key in no more."""
    from server.deploy import membership

    membership.revoke_site(kit, name)
    typer.echo(_TOLD)
    typer.echo(f"{name}: revoked. It comes back with a new key: stsmm server rotate {kit} --site {name} --out DIR")


def rotate(
    kit: ServerKitFolder,
    site: Annotated[str | None, typer.Option("--site", help="Make a new key in a new kit for this site.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="With --site: the folder to make.")] = None,
    also: Annotated[
        list[str] | None, typer.Option("--also", help="A further name or address for the server's certificate.")
    ] = None,
    ca_key: CaKey = None,
) -> None:
    """Renew the server's certificate, or with --site the key of a site's node."""
    from server.deploy import membership

    if site is None:
        if out is not None:
            raise KitError("--out is for --site: the server's certificate is renewed in its kit")
        end = membership.renew_server_certificate(kit, also=also or [], ca_key=ca_key, now=datetime.now(UTC))
        typer.echo(f"The server's certificate is new, and ends on {end:%Y-%m-%d}. Start the server again to use it.")
        return
    if out is None or also:
        raise KitError("--site needs --out DIR, the folder for the new kit, and has no use for --also")
    membership.renew_site_kit(kit, site, out, ca_key=ca_key)
    typer.echo(f"{out}: new kit of {site} with a new private key; the old key is revoked")
