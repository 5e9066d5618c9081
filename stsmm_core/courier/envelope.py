"""A courier file: signed by who sends it, encrypted for who may read it.

line       STSMM courier file 1
header     length (4 bytes, big endian) and JSON: who, to whom, which run, which number; readable by all
content    length (8 bytes) and AES-256-GCM; key and nonce by HKDF-SHA384 from ECDH of a key made for this
           file alone and the receiver's key (SEC 1, NIST SP 800-56C); line and header are authenticated with it
signature  length (2 bytes) and ECDSA with SHA-384 of all that comes before, by the sender's key
"""

import base64
import hashlib
import struct
from dataclasses import dataclass
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stsmm_core.courier.parcel import CourierError

KIND = b"STSMM courier file "
MAGIC = KIND + b"1\n"
TO_SITE: Literal["to site"] = "to site"
TO_SERVER: Literal["to server"] = "to server"
MAX_HEADER = 100_000


class Header(BaseModel):
    """What everybody can read on a courier file, and nobody can change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consortium: str
    site: str
    direction: Literal["to site", "to server"]
    run: Annotated[int, Field(ge=0)]
    """Flower's number of the run."""
    sequence: Annotated[int, Field(ge=1)]
    """Grows from file to file to this site over all runs, from the time in seconds on; an answer has the number of
    what it answers."""
    answers: str = ""
    """On the way back: sha256 of the file that is answered."""
    certificate: str = ""
    """On the way out: the server's certificate, whose key signed the file; PEM."""
    reply_key: str = ""
    """On the way out: the public key that the answer is encrypted for; OpenSSH."""
    once: str = ""
    """Public key made for this file alone: X9.62 point in base64. `seal` fills it in."""


@dataclass(frozen=True)
class Envelope:
    """A courier file taken apart. Nothing in it is to be believed before `open_envelope`."""

    header: Header
    head: bytes
    encrypted: bytes
    signature: bytes
    sha256: str
    """Of the whole file."""


def seal(header: Header, content: bytes, *, sign: ec.EllipticCurvePrivateKey, to: ec.EllipticCurvePublicKey) -> bytes:
    """A courier file: `content` signed with one key and encrypted for another."""
    once = ec.generate_private_key(to.curve)
    point = once.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    text = header.model_copy(update={"once": base64.b64encode(point).decode()}).model_dump_json().encode()
    head = MAGIC + struct.pack(">I", len(text)) + text
    key, nonce = _secrets(once.exchange(ec.ECDH(), to))
    encrypted = AESGCM(key).encrypt(nonce, content, head)
    signed = head + struct.pack(">Q", len(encrypted)) + encrypted
    signature = sign.sign(signed, ec.ECDSA(hashes.SHA384()))
    return signed + struct.pack(">H", len(signature)) + signature


def read_envelope(data: bytes, name: str) -> Envelope:
    """Take a courier file apart.

    Args:
        name: how errors call the file.

    Raises:
        CourierError: when it is none, incomplete, or of another version.
    """
    if not data.startswith(MAGIC):
        if data.startswith(KIND):
            raise CourierError(f"{name}: made by another version of stsmm; both ends must run the same one")
        raise CourierError(f"{name}: not a courier file of stsmm; take the file as it was written")
    incomplete = CourierError(f"{name}: not complete, or changed; copy the file again, as it was written")
    try:
        (length,) = struct.unpack_from(">I", data, len(MAGIC))
        start = len(MAGIC) + 4
        if length > MAX_HEADER:
            raise incomplete
        header = Header.model_validate_json(data[start : start + length])
        head = data[: start + length]
        (size,) = struct.unpack_from(">Q", data, len(head))
        content = len(head) + 8
        (signature,) = struct.unpack_from(">H", data, content + size)
    except (struct.error, OverflowError, ValidationError):
        raise incomplete from None
    if len(data) != content + size + 2 + signature:
        raise incomplete
    return Envelope(
        header, head, data[content : content + size], data[content + size + 2 :], hashlib.sha256(data).hexdigest()
    )


def open_envelope(
    envelope: Envelope,
    name: str,
    *,
    signed_by: ec.EllipticCurvePublicKey,
    opened_with: ec.EllipticCurvePrivateKey,
    sender: str,
) -> bytes:
    """The content, when the signature holds and it was encrypted for this key.

    Args:
        sender: who should have signed, in words.

    Raises:
        CourierError: when one of the two is not so.
    """
    size = struct.pack(">Q", len(envelope.encrypted))
    try:
        signed_by.verify(envelope.signature, envelope.head + size + envelope.encrypted, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise CourierError(
            f"{name}: not signed by {sender}, or changed on the way; copy the file again, and if that does not help, "
            "ask the sender for a new one"
        ) from None
    try:
        once = ec.EllipticCurvePublicKey.from_encoded_point(
            opened_with.curve, base64.b64decode(envelope.header.once, validate=True)
        )
        key, nonce = _secrets(opened_with.exchange(ec.ECDH(), once))
        return AESGCM(key).decrypt(nonce, envelope.encrypted, envelope.head)
    except (ValueError, InvalidTag):
        raise CourierError(
            f"{name}: encrypted for another key than this one; was a key replaced after the file was written?"
        ) from None


def _secrets(shared: bytes) -> tuple[bytes, bytes]:
    """Key and nonce. The nonce may be derived: no key is ever used twice."""
    derived = HKDF(hashes.SHA384(), length=44, salt=None, info=MAGIC).derive(shared)
    return derived[:32], derived[32:]
