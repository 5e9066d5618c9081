"""The way to the server, against small real servers on loopback."""

import time

import pytest
from preflight_servers import (
    authority,
    certificate,
    closed_port,
    forwarding_proxy,
    https_server,
    pem,
    raw_server,
    server_context,
)

from client.node.preflight.encryption import check_certificate, check_clock, kit_context
from client.node.preflight.route import check_name, check_port, check_proxy, find_proxy
from stsmm_core.kit import ServerAddress

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def consortium():
    return authority()


@pytest.fixture
def ca(tmp_path, consortium):
    path = tmp_path / "ca.pem"
    path.write_bytes(pem(consortium))
    return path


def at(port, host="127.0.0.1"):
    return ServerAddress(host=host, port=port, health_port=1)


def test_a_known_and_an_unknown_name():
    assert check_name(at(1, "localhost"), None).state == "ok"
    unknown = check_name(at(1, "nobody.invalid"), None)
    assert unknown.state == "fault"
    assert "nobody.invalid" not in unknown.sentence() + unknown.remedy


def test_a_closed_port_is_refused():
    finding = check_port(at(closed_port()), None)
    assert finding.state == "fault"
    assert "refused" in finding.what


def test_a_port_that_never_answers_times_out(monkeypatch):
    def silent(*args, **kwargs):
        raise TimeoutError

    monkeypatch.setattr("socket.create_connection", silent)
    assert "firewall drops" in check_port(at(1), None).what


def test_no_route_is_told_apart(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.create_connection", unreachable)
    assert "network cannot be reached" in check_port(at(1), None).what


def test_an_open_port_answers():
    with raw_server(lambda connection: connection.close()) as port:
        assert check_port(at(port), None).state == "ok"


@pytest.mark.parametrize(
    ("days", "hosts", "state", "said"),
    [
        ((-1, 300), ("127.0.0.1",), "ok", "valid for 299 days"),
        ((-1, 9.5), ("127.0.0.1",), "warning", "ends in 9 days"),
        ((-20, -1), ("127.0.0.1",), "fault", "expired"),
        ((2, 30), ("127.0.0.1",), "fault", "not valid yet"),
        ((-1, 300), ("10.1.2.3", "elsewhere.example"), "fault", "another host name or address"),
    ],
)
def test_certificates_are_told_apart(tmp_path, consortium, ca, days, hosts, state, said):
    context = server_context(tmp_path, certificate("server", consortium, days=days, hosts=hosts))
    with https_server(context) as port:
        finding = check_certificate(at(port), None, ca)
    assert finding.state == state
    assert said in finding.sentence()


def test_another_authority_is_named_here_only(tmp_path, ca):
    context = server_context(
        tmp_path, certificate("server", authority("Hospital TLS inspection"), hosts=("127.0.0.1",))
    )
    with https_server(context) as port:
        finding = check_certificate(at(port), None, ca)
    assert "not from the kit's authority" in finding.what
    assert "Hospital TLS inspection" in finding.detail
    assert "Hospital TLS inspection" not in finding.sentence() + finding.remedy


def test_a_port_that_does_not_speak_tls(ca):
    with https_server(None) as port:
        assert "does not speak TLS" in check_certificate(at(port), None, ca).what


def test_a_port_that_hangs_and_one_that_hangs_up(ca, monkeypatch):
    monkeypatch.setattr("client.node.preflight.route.SECONDS", 0.3)
    with raw_server(lambda connection: time.sleep(2)) as port:
        assert "nothing answers" in check_certificate(at(port), None, ca).what
    with raw_server(lambda connection: connection.close()) as port:
        assert "closed as soon as" in check_certificate(at(port), None, ca).what


@pytest.mark.parametrize(
    ("server_ahead", "state", "said"),
    [
        (0, "ok", "agree"),
        (-86400, "fault", "ahead"),
        (-8, "fault", "ahead"),
        (86400, "fault", "behind"),
        (200, "warning", "drifts"),
        (-1.5, "ok", "agree"),
    ],
)
def test_the_clock_is_held_against_the_servers_date(tmp_path, consortium, server_ahead, state, said):
    context = server_context(tmp_path, certificate("server", consortium, hosts=("127.0.0.1",)))
    with https_server(context, ahead=server_ahead) as port:
        finding = check_clock(at(port))
    assert (finding.state, said in finding.sentence()) == (state, True)


def test_flowers_client_takes_the_proxy_that_is_found(tmp_path, consortium, ca, monkeypatch):
    """Flower's own HTTP client goes through HTTPS_PROXY by CONNECT, and past it where NO_PROXY says so."""
    import httpx
    from flwr.proto.fleet_pb2 import ActivateNodeRequest
    from flwr.supernode.fleet_http_client import FleetHttpClient

    def ask(port):
        client = FleetHttpClient.from_server_address(f"127.0.0.1:{port}", False, ca.read_bytes(), [])
        with client, pytest.raises(httpx.HTTPStatusError):  # the small server knows no POST
            client.ActivateNode(ActivateNodeRequest())

    context = server_context(tmp_path, certificate("server", consortium, hosts=("127.0.0.1",)))
    seen: list[bytes] = []
    with https_server(context) as port, raw_server(forwarding_proxy(seen)) as proxy_port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{proxy_port}")
        ask(port)
        assert seen[0].startswith(f"CONNECT 127.0.0.1:{port} ".encode())
        proxy = find_proxy(at(port))
        assert proxy is not None
        assert (proxy.host, proxy.port, proxy.credentials) == ("127.0.0.1", proxy_port, "user:p@ss")
        shown = check_proxy(at(port))
        assert shown.state == "ok"
        assert "user" not in shown.detail
        assert "ss@" not in shown.detail
        assert check_port(at(port), proxy).state == "ok"
        assert check_certificate(at(port), proxy, ca).state == "ok"
        authorised = [line for line in seen[1].split(b"\r\n") if line.startswith(b"Proxy-Authorization")]
        assert authorised[0] in seen[0]  # as Flower's client puts it
        assert check_clock(at(port)).state == "ok"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        before = len(seen)
        ask(port)
        assert len(seen) == before
        assert find_proxy(at(port)) is None


@pytest.mark.parametrize(
    ("status", "said"), [(407, "user and a password"), (403, "answered 403"), (502, "could not reach the server")]
)
def test_a_proxy_that_refuses(monkeypatch, status, said):
    with raw_server(forwarding_proxy([], refuse=status)) as proxy_port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy_port}")
        finding = check_port(at(9), find_proxy(at(9)))
    assert finding.state == "fault"
    assert said in finding.sentence()


def test_a_proxy_that_cannot_be_used(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    assert "SOCKS" in check_proxy(at(9)).what
    monkeypatch.setenv("HTTPS_PROXY", "http://")
    assert "not an address" in check_proxy(at(9)).what


def test_a_kit_without_certificate(tmp_path):
    assert "ca.pem" in check_certificate(at(1), None, tmp_path / "ca.pem").what
    with pytest.raises(OSError, match=r"ca\.pem"):
        kit_context(tmp_path / "ca.pem")
