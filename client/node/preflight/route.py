"""The way to the server: proxy, name, port."""

import base64
import errno
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import httpx
from httpx._utils import URLPattern, get_environment_proxies  # the very rules by which Flower's HTTP client chooses

from client.node.preflight.finding import Finding
from stsmm_core.kit import ServerAddress

SECONDS = 4.0
"""Patience with one address."""


@dataclass(frozen=True)
class Proxy:
    """A proxy of the hospital, from its environment variables."""

    scheme: str
    host: str
    port: int
    credentials: str = ""
    """user:password; never shown."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


class ProxyRefusalError(OSError):
    """The proxy answered, but not with a connection to the server."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the proxy answered {status}")
        self.status = status


def server_url(server: ServerAddress) -> str:
    """Where Flower's node connects to."""
    return f"https://{server}"


def find_proxy(server: ServerAddress) -> Proxy | None:
    """The proxy that Flower's node would take: HTTPS_PROXY or ALL_PROXY, unless NO_PROXY names the server.

    Raises:
        ValueError: when the variable is not an address.
    """
    url = httpx.URL(server_url(server))
    patterns = sorted((URLPattern(key), proxy) for key, proxy in get_environment_proxies().items())
    address = next((proxy for pattern, proxy in patterns if pattern.matches(url)), None)
    if address is None:
        return None
    parts = urlsplit(address)
    if not parts.hostname:
        raise ValueError("no host in the proxy's address")
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    standard = {"https": 443, "socks5": 1080, "socks5h": 1080}.get(parts.scheme, 80)
    return Proxy(parts.scheme, parts.hostname, parts.port or standard, credentials)


def connect(server: ServerAddress, proxy: Proxy | None) -> socket.socket:
    """An open connection to the server's port, through the proxy where there is one.

    Raises:
        ProxyRefusalError: when the proxy does not let it through.
        OSError: when nothing answers.
    """
    host, port = (proxy.host, proxy.port) if proxy else (server.host, server.port)
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # All of a name's addresses together get two patiences, so that a name with many does not take for ever.
    connection = socket.create_connection((host, port), timeout=2 * SECONDS / max(len(addresses), 2))
    connection.settimeout(SECONDS)
    if proxy is None:
        return connection
    try:
        if proxy.scheme == "https":
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=proxy.host)
        _open_tunnel(connection, server, proxy)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_tunnel(connection: socket.socket, server: ServerAddress, proxy: Proxy) -> None:
    """HTTP CONNECT (RFC 9110, 9.3.6), as Flower's HTTP client sends it."""
    lines = [f"CONNECT {server} HTTP/1.1", f"Host: {server}"]
    if proxy.credentials:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.credentials.encode()).decode()}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < 65536:
        received = connection.recv(1)  # not a byte more: what follows is the server's
        if not received:
            break
        answer += received
    words = answer.split(maxsplit=2)
    status = int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else 0
    if not 200 <= status < 300:
        raise ProxyRefusalError(status)


def check_proxy(server: ServerAddress) -> Finding:
    """Whether the environment names a proxy, and one that Flower's node can use."""
    try:
        proxy = find_proxy(server)
    except ValueError:
        return Finding(
            "proxy",
            "fault",
            "The proxy variable of this machine is not an address.",
            "Set HTTPS_PROXY to http://HOST:PORT, or unset it; NO_PROXY may name the server.",
        )
    if proxy is None:
        return Finding("proxy", "ok", "No proxy is used for the server.")
    if proxy.scheme not in ("http", "https"):
        return Finding(
            "proxy",
            "fault",
            "The proxy is of a kind that the node cannot use (SOCKS).",
            "Set HTTPS_PROXY to an HTTP proxy that allows CONNECT, or name the server in NO_PROXY.",
            detail=str(proxy),
        )
    return Finding("proxy", "ok", "A proxy is used for the server.", detail=str(proxy))


def check_name(server: ServerAddress, proxy: Proxy | None) -> Finding:
    """Whether the name of the server, or of the proxy in between, is known here."""
    host = proxy.host if proxy else server.host
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL):
            return Finding(
                "name",
                "fault",
                "No name server answered.",
                "Ask your network team for this machine's name server (DNS); try again later.",
                detail=host,
            )
        return Finding(
            "name",
            "fault",
            "The name is not known here (DNS).",
            "Compare it with the server operator's; ask your network team whether outside names are resolved here.",
            detail=host,
        )
    except UnicodeError:
        return Finding("name", "fault", "The name is not a valid host name.", "Ask the server's operator.", detail=host)
    addresses = sorted({str(address[4][0]) for address in found})
    return Finding("name", "ok", "The name is known.", detail=f"{host} is {', '.join(addresses)}")


def check_port(server: ServerAddress, proxy: Proxy | None) -> Finding:
    """Whether a connection can be opened: refused, timed out, unreachable and the proxy's no told apart."""
    where = f"{server} through {proxy}" if proxy else str(server)
    try:
        connect(server, proxy).close()
    except ProxyRefusalError as error:
        return _refused_by_proxy(error.status, where)
    except ConnectionRefusedError:
        return Finding(
            "port",
            "fault",
            "The connection was refused: the machine answers, but nothing listens on this port.",
            "Ask the server's operator whether the server runs; a firewall that answers for it looks the same.",
            detail=where,
        )
    except TimeoutError:
        return Finding(
            "port",
            "fault",
            "No answer: a firewall drops the connection, or the server is off.",
            "Ask your network team to allow outgoing TCP to this address and port.",
            detail=where,
        )
    except ssl.SSLError:
        return Finding(
            "port",
            "fault",
            "No encrypted connection to the proxy itself.",
            "Set HTTPS_PROXY to the proxy's http:// address, or have its certificate trusted on this machine.",
            detail=where,
        )
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EACCES, errno.EPERM):
            return Finding(
                "port",
                "fault",
                "The network cannot be reached from this machine.",
                "Check that this machine has a network and a route to the outside.",
                detail=where,
            )
        return Finding(
            "port",
            "fault",
            "The connection broke off.",
            "Ask your network team whether a firewall closes connections to this address and port.",
            detail=f"{where}: {error}",
        )
    return Finding("port", "ok", "The port answers.", detail=where)


def _refused_by_proxy(status: int, where: str) -> Finding:
    if status == 407:
        return Finding(
            "port",
            "fault",
            "The proxy asks for a user and a password, or does not accept those given.",
            "Put them into HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT), or ask for an exception for the server.",
            detail=where,
        )
    if status in (502, 503, 504):
        return Finding(
            "port",
            "fault",
            "The proxy could not reach the server.",
            "Ask the server's operator whether it runs, and your network team whether the proxy may reach it.",
            {"status": status},
            where,
        )
    return Finding(
        "port",
        "fault",
        "The proxy does not allow a connection to this address and port (it answered {status}).",
        "Ask your network team to allow CONNECT to it.",
        {"status": status},
        where,
    )
