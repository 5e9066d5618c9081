"""The hospital's end of the courier mode: one file in, the node works on it as on any message, one file out."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from filelock import FileLock

from stsmm_core.audit.chain import append
from stsmm_core.courier.envelope import TO_SERVER, TO_SITE, Envelope, Header, open_envelope, read_envelope, seal
from stsmm_core.courier.keys import parse_public_key, read_private_key
from stsmm_core.courier.parcel import CourierError, Parcel, pack, unpack
from stsmm_core.files import write_atomically
from stsmm_core.kit import AUDIT_LOG_FILE, CA_FILE, NODE_KEY_FILE, STATE_FOLDER, SiteKit, read_kit

COURIER_FOLDER = "courier"
"""Within the state of the site's kit."""
LAST_ANSWER_FILE = "last-answer.courier"
"""The answer to the last file; its header says which file that was."""
LOCK_FILE = ".lock"


@dataclass(frozen=True)
class SiteDesk:
    """What the hospital needs to open files and to answer them.

    Attributes:
        host: name or address of the server, as the kit has it.
        state: folder that survives between files.
        audit: the site's audit log.
    """

    consortium: str
    site: str
    host: str
    authority: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    state: Path
    audit: Path


def open_desk(kit: Path) -> SiteDesk:
    """The desk of a site's kit; it needs no file that the other modes do not."""
    described = read_kit(kit, SiteKit)
    try:
        authority = x509.load_pem_x509_certificate((kit / CA_FILE).read_bytes())
    except (OSError, ValueError):
        raise CourierError(f"{kit / CA_FILE}: no certificate; take the kit as it was sent") from None
    return SiteDesk(
        described.consortium,
        described.site,
        described.server.host,
        authority,
        read_private_key(kit / NODE_KEY_FILE),
        kit / STATE_FOLDER / COURIER_FOLDER,
        kit / STATE_FOLDER / AUDIT_LOG_FILE,
    )


def answer_file(desk: SiteDesk, file: Path, out: Path, work: Callable[[Parcel], Parcel]) -> bool:
    """Answer a courier file: whether the work was done now; False where it had been, and `out` is the same answer.

    A file is worked on once. An answer is kept until the next file comes: the server sends that only after the answer.

    Args:
        file: from the server.
        out: the file for the server.
        work: lets the site's node answer a message.

    Raises:
        CourierError: when the file is not the next one from the server to this site, or the same as the last.
    """
    desk.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(desk.state / LOCK_FILE):
        try:
            data = file.read_bytes()
        except OSError as error:
            raise CourierError(f"{file}: cannot be read ({error.strerror})") from None
        try:
            answer, new = _answer(desk, data, file.name, work)
        except CourierError as refusal:
            append(
                desk.audit, {"courier": "refused", "sha256": hashlib.sha256(data).hexdigest(), "reason": str(refusal)}
            )
            raise
        write_atomically(out, lambda temporary: temporary.write_bytes(answer))
        return new


def _answer(desk: SiteDesk, data: bytes, name: str, work: Callable[[Parcel], Parcel]) -> tuple[bytes, bool]:
    """The answer to a file, and whether it was worked on now."""
    envelope = read_envelope(data, name)
    content = _open(desk, envelope, name)
    header = envelope.header
    kept = desk.state / LAST_ANSWER_FILE
    if kept.exists():
        last = read_envelope(kept.read_bytes(), str(kept)).header
        if last.answers == envelope.sha256:
            append(desk.audit, _noted("answered again, with the same file", envelope, kept.read_bytes()))
            return kept.read_bytes(), False
        if header.sequence <= last.sequence:
            raise CourierError(
                f"{name}: file {header.sequence} from the server, but file {last.sequence} was answered already; this "
                "one is old or was replaced, and is not worked on. Bring the latest file"
            )
    append(desk.audit, _noted("received", envelope, data))
    reply = work(unpack(content))
    reply_header = Header(
        consortium=desk.consortium,
        site=desk.site,
        direction=TO_SERVER,
        run=header.run,
        sequence=header.sequence,
        answers=envelope.sha256,
    )
    reply_key = parse_public_key(header.reply_key.encode(), f"{name}: key of the answer")
    answer = seal(reply_header, pack(reply), sign=desk.key, to=reply_key)
    write_atomically(kept, lambda temporary: temporary.write_bytes(answer))
    append(desk.audit, _noted("answered", envelope, answer))
    return answer, True


def _open(desk: SiteDesk, envelope: Envelope, name: str) -> bytes:
    """The content of a file from this consortium's server to this site."""
    header = envelope.header
    if header.direction != TO_SITE:
        raise CourierError(f"{name}: an answer of a site to the server; bring the file that came from the server")
    if header.consortium != desk.consortium:
        raise CourierError(f"{name}: of the consortium {header.consortium}; this kit belongs to {desk.consortium}")
    if header.site != desk.site:
        raise CourierError(f"{name}: for the site {header.site}; this kit is that of {desk.site}")
    return open_envelope(
        envelope, name, signed_by=_server_key(desk, header, name), opened_with=desk.key, sender="the server"
    )


def _server_key(desk: SiteDesk, header: Header, name: str) -> ec.EllipticCurvePublicKey:
    """The key of a server certificate that this consortium's authority issued for the server of the kit."""
    refused = f"{name}: not signed by the server {desk.host} of this consortium"
    try:
        certificate = x509.load_pem_x509_certificate(header.certificate.encode())
        certificate.verify_directly_issued_by(desk.authority)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        raise CourierError(f"{refused}; do not use it, and tell the coordinating centre") from None
    if x509.oid.ExtendedKeyUsageOID.SERVER_AUTH not in usage or not _is_named(names, desk.host):
        raise CourierError(f"{refused}: its certificate is for something else")
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        raise CourierError(
            f"{name}: the server's certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}; if this machine's clock is right, the server needs a new one"
        )
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CourierError(f"{refused}: its key is no EC key")
    return key


def _is_named(names: x509.SubjectAlternativeName, host: str) -> bool:
    try:
        return ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        return host.lower() in [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def _noted(what: str, envelope: Envelope, data: bytes) -> dict[str, object]:
    header = envelope.header
    return {
        "courier": what,
        "run": header.run,
        "sequence": header.sequence,
        "file": envelope.sha256,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
