"""Keys that sign and open courier files: EC, as the kits hold them."""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stsmm_core.courier.parcel import CourierError


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A private key of a kit, in OpenSSH or PEM form.

    Raises:
        CourierError: when there is none.
    """
    text = _read(path)
    try:
        if b"OPENSSH PRIVATE KEY" in text:
            key: object = serialization.load_ssh_private_key(text, None)
        else:
            key = serialization.load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CourierError(f"{path}: no EC private key without password; take the key as it was made")
    return key


def read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """A public key of a kit, in OpenSSH form.

    Raises:
        CourierError: when there is none.
    """
    return parse_public_key(_read(path), str(path))


def parse_public_key(text: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """A public key in OpenSSH form; `name` is how the error calls it.

    Raises:
        CourierError: when it is none.
    """
    try:
        key: object = serialization.load_ssh_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CourierError(f"{name}: no EC public key in OpenSSH form")
    return key


def public_key_line(key: ec.EllipticCurvePublicKey) -> str:
    """A public key in OpenSSH form."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CourierError(f"{path}: this key cannot be read ({error.strerror})") from None
