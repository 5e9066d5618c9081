"""Certificates of a consortium: how they are read, and named on the telephone."""

from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from stsmm_core.errors import KitError


def read_certificate(path: Path) -> x509.Certificate:
    """Read one certificate in PEM form.

    Raises:
        KitError: when there is none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise KitError(f"{path}: no such certificate; take the kit as it was sent") from None
    except OSError as error:
        raise KitError(f"{path}: cannot be read ({error.strerror}); run this as the owner of the kit") from None
    except ValueError:
        raise KitError(f"{path}: not a certificate; take the kit as it was sent") from None


def is_valid(path: Path, now: datetime) -> bool:
    """Whether a certificate has begun and not ended.

    Args:
        now: with a time zone.

    Raises:
        KitError: when there is none.
    """
    certificate = read_certificate(path)
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def certificate_sha256(certificate: x509.Certificate) -> str:
    """Fingerprint: 64 hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def spoken_fingerprint(sha256: str) -> str:
    """As `openssl x509 -noout -fingerprint -sha256` prints it: AB:CD:…"""
    return ":".join(sha256[place : place + 2] for place in range(0, len(sha256), 2)).upper()
