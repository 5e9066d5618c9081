"""`stsmm site keygen`: a site makes its node's key itself, and sends the public part only."""

from pathlib import Path
from typing import Annotated

import typer


def keygen(kit: Annotated[Path, typer.Argument(help="The site's kit.")]) -> None:
    """Make the node's key here; only node.pub is for the server."""
    from stsmm_core.kit import FINGERPRINTS_FILE, NODE_KEY_FILE, NODE_PUBLIC_KEY_FILE, SiteKit, read_kit, verify_kit
    from stsmm_core.node_keys import new_node_key

    site = read_kit(kit, SiteKit).site
    verify_kit(kit)
    fingerprint = new_node_key(kit, site)
    typer.echo(f"{kit / NODE_KEY_FILE}: the private key; it stays here")
    typer.echo(
        f"{kit / NODE_PUBLIC_KEY_FILE}: send this to the person who runs the server, and read out on the telephone:"
    )
    typer.echo(f"  {fingerprint}")
    typer.echo(f"In the same call, compare the authority's fingerprint ({FINGERPRINTS_FILE}):\n")
    typer.echo((kit / FINGERPRINTS_FILE).read_text(encoding="utf-8"))
