"""What a real SuperLink's HTTP API answers, over TLS on loopback, with STSMM's own answers mounted outside it."""

import threading
import time

import grpc
import pytest
import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.main import create_app
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from preflight_servers import authority, certificate, closed_port, https_server, pem, server_context

from client.node.preflight import answers
from client.node.preflight.answers import check_control, check_health, check_registration, check_version
from client.node.preflight.encryption import kit_context
from server.deploy.node_state import NodeStateMiddleware
from stsmm_core.kit import ServerAddress


class Running:
    """A SuperLink's API in a thread: where it is, whom it trusts, what it knows."""

    def __init__(self, folder, *, tells_state):
        signer = authority()
        ca = folder / "ca.pem"
        ca.write_bytes(pem(signer))
        self.context = kit_context(ca)
        server_context(folder, certificate("server", signer, hosts=("127.0.0.1",)))
        self.revoked = folder / "revoked"
        self.revoked.mkdir()
        application = create_app()
        application.state.enable_supernode_auth = True
        if tells_state:
            application.add_middleware(NodeStateMiddleware, revoked=self.revoked)
        self.linkstate = application.state.linkstate_factory.state()
        port = closed_port()
        self.server = uvicorn.Server(
            uvicorn.Config(
                application, host="127.0.0.1", port=port, ssl_certfile=folder / "server-and-key.pem", log_level="error"
            )
        )
        threading.Thread(target=self.server.run, daemon=True).start()
        while not self.server.started:
            time.sleep(0.02)
        self.address = ServerAddress(host="127.0.0.1", port=port, health_port=1)

    def register(self, key):
        return self.linkstate.create_node("operator", "operator", public_key_to_bytes(key.public_key()), 0)

    def check(self, key, running=False):
        return check_registration(self.address, self.context, key, running=running)


@pytest.fixture(scope="module", params=[True, False], ids=["stsmm", "flower alone"])
def superlink(request, tmp_path_factory):
    running = Running(tmp_path_factory.mktemp("superlink"), tells_state=request.param)
    running.tells_state = request.param
    yield running
    running.server.should_exit = True


@pytest.fixture
def key():
    return ec.generate_private_key(ec.SECP384R1())


def test_a_key_that_was_never_registered(superlink, key):
    finding = superlink.check(key)
    assert finding.state == "fault"
    assert ("never registered" if superlink.tells_state else "not registered, or it was revoked") in finding.what


def test_a_registered_key_is_known_and_not_marked_connected(superlink, key):
    node = superlink.register(key)
    assert superlink.check(key).state == "ok"
    assert [info.status for info in superlink.linkstate.get_node_info(node_ids=[node])] == ["registered"]


def test_a_revoked_key(superlink, key):
    superlink.linkstate.delete_node("operator", superlink.register(key))
    finding = superlink.check(key)
    assert finding.state == "fault"
    assert "revoked" in finding.what
    assert ("never" in finding.what, "or" in finding.what.split()) == (False, not superlink.tells_state)


def test_a_key_in_the_revoked_folder_though_still_registered(superlink, key):
    superlink.register(key)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (superlink.revoked / "leiden.pub").write_bytes(public)
    assert superlink.check(key).state == ("fault" if superlink.tells_state else "ok")
    (superlink.revoked / "leiden.pub").unlink()


def test_a_key_that_another_node_uses(superlink, key):
    superlink.linkstate.activate_node(superlink.register(key), 30)
    if superlink.tells_state:
        assert "connected already" in superlink.check(key).what
    assert superlink.check(key, running=True).state == "ok"


def test_a_clock_that_is_off(superlink, key, monkeypatch):
    import datetime

    superlink.register(key)
    late = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    monkeypatch.setattr("flwr.supernode.node_auth_http_interceptor.now", lambda: late)
    assert "signature of this machine's time" in superlink.check(key).what


def test_versions(superlink, monkeypatch):
    finding = check_version(superlink.address, superlink.context)
    assert finding.state == ("ok" if superlink.tells_state else "warning")
    if superlink.tells_state:
        monkeypatch.setattr(answers, "version", lambda package: {"stsmm": "0.0.9", "flwr": "1.41.0"}[package])
        assert "another version of STSMM" in check_version(superlink.address, superlink.context).what
        monkeypatch.setattr(answers, "version", lambda package: {"stsmm": "0.1.0", "flwr": "1.40.0"}[package])
        assert "another version of Flower" in check_version(superlink.address, superlink.context).what


def test_an_open_control_interface_is_noticed_from_another_machine(superlink, monkeypatch):
    assert check_control(superlink.address, superlink.context).state == "skipped"
    monkeypatch.setattr(answers, "_is_this_machine", lambda server: False)
    assert check_control(superlink.address, superlink.context).state == "warning"


def test_a_closed_control_interface(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "_is_this_machine", lambda server: False)
    signer = authority()
    (tmp_path / "ca.pem").write_bytes(pem(signer))
    context = server_context(tmp_path, certificate("server", signer, hosts=("127.0.0.1",)))
    with https_server(context, answer=lambda path: (403, b"")) as port:
        address = ServerAddress(host="127.0.0.1", port=port, health_port=1)
        assert check_control(address, kit_context(tmp_path / "ca.pem")).state == "ok"


def test_another_program_on_the_port(tmp_path, key):
    signer = authority()
    (tmp_path / "ca.pem").write_bytes(pem(signer))
    context = server_context(tmp_path, certificate("server", signer, hosts=("127.0.0.1",)))
    with https_server(context) as port:
        address = ServerAddress(host="127.0.0.1", port=port, health_port=1)
        finding = check_registration(address, kit_context(tmp_path / "ca.pem"), key, running=False)
    assert "not a server that the node can join" in finding.what


@pytest.mark.parametrize("serving", [True, False])
def test_grpc_health(serving):
    from concurrent.futures import ThreadPoolExecutor

    service = health.HealthServicer()
    status = health_pb2.HealthCheckResponse
    service.set("", status.SERVING if serving else status.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    finding = check_health(ServerAddress(host="127.0.0.1", port=1, health_port=port))
    server.stop(0)
    assert finding.state == ("ok" if serving else "warning")


def test_grpc_health_that_is_closed():
    finding = check_health(ServerAddress(host="127.0.0.1", port=1, health_port=closed_port()))
    assert (finding.state, "without it" in finding.what) == ("warning", True)
