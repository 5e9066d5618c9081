"""Keys of the sites' nodes: EC P-384 in OpenSSH form, as Flower's node authentication wants them."""

import base64
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stsmm_core.errors import KitError
from stsmm_core.kit import NODE_KEY_FILE, NODE_PUBLIC_KEY_FILE

PRIVATE = 0o600


def new_node_key(folder: Path, comment: str) -> str:
    """Make node.key (readable for its owner only) and node.pub in a folder.

    Args:
        comment: what stands at the end of the public key's line, such as the site's name.

    Returns:
        The fingerprint.

    Raises:
        KitError: when the folder has a key already.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    path = folder / NODE_KEY_FILE
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except FileExistsError:
        raise KitError(f"{path}: there is a key already; to make a new one, move it away first") from None
    with os.fdopen(handle, "wb") as file:
        file.write(private)
    public_path = folder / NODE_PUBLIC_KEY_FILE
    public_path.write_bytes(node_public_key_line(key.public_key(), comment))
    public_path.chmod(PRIVATE)
    return node_key_fingerprint(key.public_key())


def read_node_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Read a public key in OpenSSH form.

    Raises:
        KitError: when it is missing, no EC P-384 key, or a private one.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise KitError(f"{path}: no such public key; `stsmm site keygen` at the site makes {NODE_PUBLIC_KEY_FILE}") from None
    if b"PRIVATE KEY" in text:
        raise KitError(
            f"{path}: this is a PRIVATE key, which must not leave the site; delete it here, let the site make a new "
            f"one and send {NODE_PUBLIC_KEY_FILE} only"
        )
    try:
        key = serialization.load_ssh_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise KitError(f"{path}: not a public key in OpenSSH form; ask the site for its {NODE_PUBLIC_KEY_FILE}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise KitError(f"{path}: not an EC P-384 key; `stsmm site keygen` makes one that fits")
    return key


def node_key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """What `ssh-keygen -lf node.pub` prints: SHA256: and the digest of the public key in base64."""
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def node_public_key_line(key: ec.EllipticCurvePublicKey, comment: str) -> bytes:
    """The key as a line of its own, without what else its file may have held."""
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line + f" {comment}\n".encode()
