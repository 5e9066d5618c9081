"""The server's certificate, and this machine's clock."""

import socket
import ssl
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from cryptography import x509
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

from client.node.preflight.finding import Finding
from client.node.preflight.route import SECONDS, Proxy, connect, server_url
from stsmm_core.kit import WARNED_BEFORE, ServerAddress

SOON_DAYS = WARNED_BEFORE.days
"""From here a certificate's end is worth a word."""

# OpenSSL's verification errors (x509_vfy.h).
_NOT_YET_VALID = 9
_EXPIRED = 10
_OTHER_NAME = (62, 64)


def kit_context(ca: Path) -> ssl.SSLContext:
    """As Flower's node makes it: trust in the consortium's authority and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.read_text(encoding="ascii"))
    return context


def check_certificate(server: ServerAddress, proxy: Proxy | None, ca: Path) -> Finding:
    """Whether the server proves that it is the one of the kit; if not, why not."""
    try:
        context = kit_context(ca)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return Finding(
            "certificate",
            "fault",
            "The kit's ca.pem is missing or not a certificate.",
            "Take the kit as it was sent.",
        )
    try:
        with connect(server, proxy) as plain, context.wrap_socket(plain, server_hostname=server.host) as encrypted:
            ends = ssl.cert_time_to_seconds(str((encrypted.getpeercert() or {})["notAfter"]))
    except ssl.SSLCertVerificationError as error:
        return _not_verified(error, server, proxy)
    except ssl.SSLEOFError:
        return _broken_off()
    except ssl.SSLError:
        return Finding(
            "certificate",
            "fault",
            "What answers on this port does not speak TLS as the server does.",
            "Compare address and port with the server's operator; it may be another program.",
        )
    except TimeoutError:
        return Finding(
            "certificate",
            "fault",
            "The port is open, but nothing answers on it.",
            "A firewall may hold the connection, or the server hangs: ask your network team, then the operator.",
        )
    except OSError:
        return _broken_off()
    days = int((ends - time.time()) // 86400)
    if days < SOON_DAYS:
        return Finding(
            "certificate",
            "warning",
            "The server's certificate is valid, but ends in {days} days.",
            "Tell the server's operator: stsmm server rotate.",
            {"days": days},
        )
    return Finding("certificate", "ok", "The server's certificate is valid for {days} days.", numbers={"days": days})


def _broken_off() -> Finding:
    return Finding(
        "certificate",
        "fault",
        "The connection is closed as soon as encryption begins.",
        "A firewall that inspects traffic does this: ask your network team for an exception for the server.",
    )


def _not_verified(error: ssl.SSLCertVerificationError, server: ServerAddress, proxy: Proxy | None) -> Finding:
    if error.verify_code == _EXPIRED:
        return Finding(
            "certificate",
            "fault",
            "The server's certificate, or its authority's, has expired by this machine's clock.",
            "If the clock below is right, tell the server's operator: stsmm server rotate.",
        )
    if error.verify_code == _NOT_YET_VALID:
        return Finding(
            "certificate",
            "fault",
            "The server's certificate, or its authority's, is not valid yet by this machine's clock.",
            "Set this machine's clock. If it is right, tell the server's operator.",
        )
    if error.verify_code in _OTHER_NAME:
        return Finding(
            "certificate",
            "fault",
            "The certificate is the consortium's, but for another host name or address.",
            "Tell the server's operator the address you use: it belongs into consortium.toml (host, also).",
            detail=str(server),
        )
    return Finding(
        "certificate",
        "fault",
        "The certificate is not from the kit's authority.",
        "Either the kit is of another consortium or out of date (compare fingerprints), or a device of the hospital "
        "opens encrypted traffic: ask your network team for an exception for the server.",
        detail=_issuer(server, proxy),
    )


def _issuer(server: ServerAddress, proxy: Proxy | None) -> str:
    """Who signed the certificate that was shown, for the network team to recognise its own device."""
    try:
        with (
            connect(server, proxy) as plain,
            _unverified().wrap_socket(plain, server_hostname=server.host) as encrypted,
        ):
            shown = x509.load_der_x509_certificate(encrypted.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return ""
    return f"signed by {shown.issuer.rfc4514_string()}"


def _unverified() -> ssl.SSLContext:
    """For what is only looked at: nothing secret is sent and nothing received is relied on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_clock(server: ServerAddress) -> Finding:
    """Whether the signed times of this machine fall into the window that the server accepts.

    Flower accepts a time from 5 s ahead of the server's to 305 s behind it. The server's time is the Date header, in
    whole seconds; the certificate is not looked at, since a wrong clock makes a right one look expired.
    """
    start = time.time()
    try:
        with httpx.Client(verify=_unverified(), timeout=SECONDS) as client:
            stated = client.get(server_url(server)).headers["date"]
        end = time.time()
        theirs = parsedate_to_datetime(stated).timestamp() + 0.5
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError, socket.gaierror):
        return Finding(
            "clock",
            "warning",
            "The server did not tell its time, so this machine's clock was not compared.",
            "Make sure that the clock is set by the network (NTP).",
        )
    ahead = (start + end) / 2 - theirs
    error = 0.5 + (end - start) / 2
    detail = f"here {datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M:%S} UTC"
    numbers = {"seconds": round(abs(ahead)), "most": SYSTEM_TIME_TOLERANCE}
    if ahead - error > SYSTEM_TIME_TOLERANCE:
        return Finding(
            "clock",
            "fault",
            "This machine's clock is {seconds} s ahead of the server's; the server accepts {most} s.",
            "Set the clock by the network (NTP): every request of the node is refused meanwhile.",
            numbers,
            detail,
        )
    numbers["most"] = TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
    if -ahead - error > numbers["most"]:
        return Finding(
            "clock",
            "fault",
            "This machine's clock is {seconds} s behind the server's; the server accepts {most} s.",
            "Set the clock by the network (NTP): every request of the node is refused meanwhile.",
            numbers,
            detail,
        )
    if ahead > 2 + error or -ahead > 60 + error:
        return Finding(
            "clock",
            "warning",
            "This machine's clock is {seconds} s off the server's: still accepted, but it drifts.",
            "Have the clock set by the network (NTP).",
            numbers,
            detail,
        )
    return Finding("clock", "ok", "This machine's clock and the server's agree.", detail=detail)
