"""The certificate authority of a consortium: EC P-384, one level, for the server's certificate and the kits' manifests."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stsmm_core.certificates import read_certificate
from stsmm_core.errors import KitError
from stsmm_core.kit import CA_FILE, CA_KEY_FILE

BACKDATED = timedelta(hours=1)
"""A site's clock may be a little behind."""


@dataclass(frozen=True, eq=False)
class Authority:
    """The authority's certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def sign(self, content: bytes) -> bytes:
        """ECDSA with SHA-384, DER: `openssl dgst -sha384 -verify` checks it."""
        return self.key.sign(content, ec.ECDSA(hashes.SHA384()))


def new_authority(consortium: str, days: int, now: datetime) -> Authority:
    """A self-signed authority that may sign certificates of servers, but no further authority."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = _subject(consortium, "authority")
    builder = _builder(name, key.public_key(), now, now + timedelta(days=days)).issuer_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    return Authority(builder.sign(key, hashes.SHA384()), key)


def read_authority(kit: Path, ca_key: Path | None) -> Authority:
    """The authority of a server kit.

    Args:
        ca_key: where its key is, if it was moved out of the kit.

    Raises:
        KitError: when the key is not there or belongs to another authority.
    """
    certificate = read_certificate(kit / CA_FILE)
    path = kit / CA_KEY_FILE if ca_key is None else ca_key
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (FileNotFoundError, IsADirectoryError):
        raise KitError(
            f"{path}: the key of the certificate authority is not there, and this needs it; "
            "if it is kept elsewhere, give it with --ca-key PATH"
        ) from None
    except (ValueError, TypeError):
        raise KitError(f"{path}: not a private key without password in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise KitError(f"{path}: not the key of {kit / CA_FILE}; find the one that was made with this consortium")
    return Authority(certificate, key)


def new_server_certificate(
    authority: Authority, consortium: str, names: Sequence[str], days: int, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for the server with a key of its own; it ends with its authority at the latest.

    Args:
        names: DNS names and addresses by which the server is reached.

    Raises:
        KitError: when the authority has ended.
    """
    issuer = authority.certificate
    if now >= issuer.not_valid_after_utc:
        raise KitError(
            f"the certificate authority ended on {issuer.not_valid_after_utc:%Y-%m-%d}: provision the consortium anew, "
            "and send each site a new kit"
        )
    key = ec.generate_private_key(ec.SECP384R1())
    end = min(now + timedelta(days=days), issuer.not_valid_after_utc)
    builder = _builder(_subject(consortium, "server"), key.public_key(), now, end).issuer_name(issuer.subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )
    return builder.sign(authority.key, hashes.SHA384()), key


def pem(thing: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate, or a private key without a password, as text."""
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    return thing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _subject(consortium: str, role: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "STSMM"), x509.NameAttribute(NameOID.COMMON_NAME, f"{consortium} {role}")]
    )


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Both kinds sign: the server its handshakes, the authority the manifests of the kits."""
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
