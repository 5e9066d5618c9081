"""The certificates of a kit, judged by Python's own TLS on a loopback connection."""

import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from server.deploy.provision import provision
from stsmm_core.certificates import read_certificate


def new_kits(project, out, now=None):
    provision(project, out, own_keys=[], now=now or datetime.now(UTC))
    return out


@pytest.fixture(scope="module")
def kits(project, tmp_path_factory):
    return new_kits(project, tmp_path_factory.mktemp("certificates") / "kits")


def handshake(server_kit, ca, name):
    """Connect as a node does; returns the version of TLS, or raises what the client sees."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(server_kit / "server.pem", server_kit / "server.key")
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialling.verify_flags |= ssl.VERIFY_X509_STRICT
    dialling.load_verify_locations(ca)

    def serve():
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # the client broke off, and says why
            serving.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            plain = socket.create_connection(listener.getsockname(), timeout=10)
            with plain, dialling.wrap_socket(plain, server_hostname=name) as secured:
                return secured.version()
        finally:
            thread.join()


@pytest.mark.parametrize("name", ["stsmm.example.org", "10.0.0.5", "localhost", "127.0.0.1"])
def test_every_name_of_the_project_passes(kits, name):
    assert handshake(kits / "server", kits / "sites/leiden/ca.pem", name) == "TLSv1.3"


@pytest.mark.parametrize("name", ["other.example.org", "10.0.0.6", "sub.stsmm.example.org", "example.org"])
def test_another_name_fails(kits, name):
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(kits / "server", kits / "sites/leiden/ca.pem", name)


def test_another_authority_of_the_same_name_fails(kits, project, tmp_path):
    other = new_kits(project, tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"signature failure|unable to get local issuer|self.signed"):
        handshake(kits / "server", other / "sites/leiden/ca.pem", "localhost")


@pytest.mark.parametrize(("days", "said"), [(-400, "certificate has expired"), (1, "certificate is not yet valid")])
def test_a_certificate_out_of_its_time_fails(project, tmp_path, days, said):
    kits = new_kits(project, tmp_path / "kits", datetime.now(UTC) + timedelta(days=days))
    with pytest.raises(ssl.SSLCertVerificationError, match=said):
        handshake(kits / "server", kits / "sites/leiden/ca.pem", "localhost")


def test_the_servers_certificate_signs_no_other(kits):
    authority, server = read_certificate(kits / "server/ca.pem"), read_certificate(kits / "server/server.pem")
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not server.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    usage = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.SERVER_AUTH]


def test_openssl_finds_the_chain_in_order(kits):
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "stsmm.example.org"]
    done = subprocess.run(
        [*command, "-CAfile", kits / "server/ca.pem", kits / "server/server.pem"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
