"""A site is connected by its own key or by courier, never by both."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from rich.console import Console

from server.deploy import control, courier_command
from server.deploy.control import Node, ServerUnreachableError
from server.deploy.courier_key import key_file, make_key
from server.deploy.folder import ServerFolder
from server.deploy.membership import revoke_site
from stsmm_core.courier.keys import read_private_key, read_public_key
from stsmm_core.courier.parcel import CourierError
from stsmm_core.kit import KitError, verify_kit


class Flower:
    """Stands for Flower's Control API: nodes by public key."""

    def __init__(self):
        self.nodes = {}

    def register(self, request):
        self.nodes[request.public_key] = Node(len(self.nodes) + 1, request.public_key, "registered", "")
        return SimpleNamespace(node_id=len(self.nodes))

    def unregister(self, request):
        (node,) = [node for node in self.nodes.values() if node.id == request.node_id]
        self.nodes[node.public_key] = Node(node.id, node.public_key, "unregistered", "")

    def status(self, key):
        return self.nodes[public_key_to_bytes(key)].status


@pytest.fixture
def flower(monkeypatch):
    flower = Flower()

    @contextmanager
    def connection(_kit):
        yield SimpleNamespace(RegisterNode=flower.register, UnregisterNode=flower.unregister)

    monkeypatch.setattr(control, "_control", connection)
    monkeypatch.setattr(control, "list_nodes", lambda _kit: list(flower.nodes.values()))
    monkeypatch.setattr(courier_command, "list_nodes", lambda _kit: list(flower.nodes.values()))
    monkeypatch.setattr(courier_command, "is_up", lambda _kit: True)
    return flower


@pytest.fixture
def carried(monkeypatch):
    """Desks at which a courier began to work."""
    desks = []
    monkeypatch.setattr(courier_command, "_carry", lambda _console, _folder, desk: desks.append(desk))
    return desks


@pytest.fixture
def server(kits):
    return kits / "server"


def run(server, folder, *, site="leiden", make=False):
    courier_command.run_courier(Console(quiet=True), server, site, folder, make=make)


def own_key(server, site="leiden"):
    return read_public_key(server / "nodes" / f"{site}.pub")


def test_a_couriers_key_takes_the_place_of_the_sites(server, flower, carried, tmp_path):
    before = control.register_nodes(server)
    run(server, tmp_path / "exchange", make=True)
    key = key_file(server, "leiden")
    assert key.stat().st_mode & 0o777 == 0o600
    verify_kit(server)
    assert flower.status(own_key(server)) == "unregistered"
    assert flower.status(own_key(server, "paris")) == "registered"
    courier = read_private_key(key).public_key()
    assert flower.status(courier) == "registered"
    nodes = json.loads(ServerFolder(server).nodes.read_text())
    assert nodes["paris"] == before["paris"]
    assert nodes["leiden"] == flower.nodes[public_key_to_bytes(courier)].id != before["leiden"]
    (desk,) = carried
    assert (desk.consortium, desk.site) == ("sarcoma-2026", "leiden")
    assert desk.reply.public_key() == courier
    assert desk.site_key == own_key(server)
    assert desk.out.is_dir()
    assert desk.arrivals.is_dir()


def test_made_again_the_key_stays(server, flower, carried, tmp_path):
    run(server, tmp_path, make=True)
    key = key_file(server, "leiden").read_bytes()
    nodes = control.registered(ServerFolder(server))
    run(server, tmp_path, make=True)
    run(server, tmp_path)
    assert key_file(server, "leiden").read_bytes() == key
    assert control.register_nodes(server) == nodes
    assert len(carried) == 3


def test_without_make_a_connected_site_stays_connected(server, flower, carried, tmp_path):
    control.register_nodes(server)
    with pytest.raises(CourierError, match=r"not both\. --make"):
        run(server, tmp_path)
    assert flower.status(own_key(server)) == "registered"
    assert not carried


def test_a_site_that_is_online_is_not_thrown_out(server, flower, carried, tmp_path):
    node = control.register_nodes(server)["leiden"]
    own = public_key_to_bytes(own_key(server))
    flower.nodes[own] = Node(node, own, "online", "")
    with pytest.raises(CourierError, match="connected by its own key now"):
        run(server, tmp_path, make=True)
    assert not key_file(server, "leiden").exists()
    assert not carried


def test_an_unknown_site_and_a_server_that_is_down_are_named(server, flower, carried, tmp_path, monkeypatch):
    with pytest.raises(KitError, match=r"no site rome.*leiden, paris"):
        run(server, tmp_path, site="rome", make=True)
    with pytest.raises(KitError, match="no site oslo"):  # its key is still to come
        run(server, tmp_path, site="oslo", make=True)
    monkeypatch.setattr(courier_command, "is_up", lambda _kit: False)
    with pytest.raises(ServerUnreachableError, match="stsmm server start"):
        run(server, tmp_path, make=True)
    assert not key_file(server, "leiden").exists()


def test_a_revoked_site_has_no_courier(server, flower, carried, tmp_path):
    run(server, tmp_path, make=True)
    courier = read_private_key(key_file(server, "leiden")).public_key()
    revoke_site(server, "leiden")
    assert not key_file(server, "leiden").exists()
    assert flower.status(courier) == "unregistered"
    assert list(control.register_nodes(server)) == ["paris"]


def test_the_key_of_a_site_that_is_no_member_lets_nobody_in(server, flower):
    make_key(server, "rome")
    assert list(control.register_nodes(server)) == ["leiden", "paris"]
