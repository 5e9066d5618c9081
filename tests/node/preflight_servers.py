"""Small real servers on loopback, and kits that point at them."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)
Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def authority(name: str = "consortium") -> Signed:
    return certificate(name, None, days=(-400, 3650))


def certificate(
    name: str, signer: Signed | None, *, days: tuple[float, float] = (-1, 300), hosts: tuple[str, ...] = ()
) -> Signed:
    """A certificate valid from and until so many days from now; an authority where nobody else signs."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[0].subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=days[0]))
        .not_valid_after(NOW + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )
    if hosts:
        names = [
            x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer[1] if signer else key, hashes.SHA384()), key


def pem(signed: Signed) -> bytes:
    return signed[0].public_bytes(serialization.Encoding.PEM)


def server_context(folder: Path, signed: Signed) -> ssl.SSLContext:
    path = folder / "server-and-key.pem"
    private = signed[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pem(signed) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@contextmanager
def https_server(
    context: ssl.SSLContext | None, *, ahead: float = 0, answer: Callable[[str], tuple[int, bytes]] | None = None
) -> Iterator[int]:
    """A web server; its clock is so many seconds ahead of ours. Gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp=None):
            return formatdate(datetime.datetime.now(datetime.UTC).timestamp() + ahead, usegmt=True)

        def do_GET(self):
            status, body = answer(self.path) if answer else (404, b"{}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # a failed handshake is what the tests are about

        def get_request(self):
            connection, address = super().get_request()
            connection.settimeout(5)
            return (context.wrap_socket(connection, server_side=True) if context else connection), address

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def raw_server(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server that hands each connection to a function. Gives its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def forwarding_proxy(seen: list[bytes], refuse: int = 0) -> Callable[[socket.socket], None]:
    """A proxy that notes each CONNECT and opens it, or refuses with a status."""

    def handle(client: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(1)
        seen.append(request)
        if refuse:
            client.sendall(f"HTTP/1.1 {refuse} No\r\n\r\n".encode())
            client.close()
            return
        host, port = request.split()[1].decode().rsplit(":", 1)
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=_copy, args=(server, client), daemon=True).start()
        _copy(client, server)

    return handle


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
