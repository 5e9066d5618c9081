"""The key of a site's courier: made and kept at the server, where it stands in for the key of the site's own node."""

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stsmm_core.courier.keys import read_private_key
from stsmm_core.files import replace_together
from stsmm_core.kit import NODES_FOLDER, STATE_FOLDER, KitError

COURIERS_FOLDER = "couriers"
"""Within the server's state: SITE.key, and the folder SITE with the file on its way."""


def key_file(kit: Path, site: str) -> Path:
    """Where the private key of a site's courier lies."""
    return kit / STATE_FOLDER / COURIERS_FOLDER / f"{site}.key"


def make_key(kit: Path, site: str) -> None:
    """Make the key of a site's courier, readable for its owner only."""
    path = key_file(kit, site)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    replace_together({path: private})


def read_keys(kit: Path) -> Mapping[str, ec.EllipticCurvePublicKey]:
    """Public key of the courier of each site that has one and may take part.

    Raises:
        CourierError: when a key cannot be used.
    """
    paths = sorted((kit / STATE_FOLDER / COURIERS_FOLDER).glob("*.key"))
    members = [path for path in paths if site_key_file(kit, path.stem).exists()]
    return {path.stem: read_private_key(path).public_key() for path in members}


def site_key_file(kit: Path, site: str) -> Path:
    """The site's own public key; with a courier it signs and opens files, and connects no more."""
    return kit / NODES_FOLDER / f"{site}.pub"


def refuse_unknown_site(kit: Path, site: str) -> None:
    """Make sure that a site is a member with a key.

    Raises:
        KitError: naming those that are.
    """
    known = sorted(path.stem for path in (kit / NODES_FOLDER).glob("*.pub"))
    if site not in known:
        raise KitError(f"{kit}: no site {site} with a key in {NODES_FOLDER}/; there are {', '.join(known) or 'none'}")


def forget_key(kit: Path, site: str) -> None:
    """A site whose own key is revoked has no courier either; a new one is made for its next key."""
    key_file(kit, site).unlink(missing_ok=True)
