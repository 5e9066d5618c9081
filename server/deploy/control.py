"""Telling the running server what to do, over Flower's Control API on this machine."""

import json
import ssl
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from server.deploy.apps import specification
from server.deploy.courier_key import read_keys as read_courier_keys
from server.deploy.folder import ServerFolder
from stsmm_core.errors import StsmmError
from stsmm_core.files import write_text_atomically
from stsmm_core.kit import CA_FILE, NODES_FOLDER, KitError

UNREGISTERED = "unregistered"
_LONGEST_LIST = 1000


class ServerUnreachableError(StsmmError):
    """The server does not run, or refuses what it was asked."""


@dataclass(frozen=True)
class Node:
    """A node as Flower knows it.

    Attributes:
        status: registered (not connected yet), online, offline or unregistered.
        since: when it got this status, ISO 8601; empty if never.
    """

    id: int
    public_key: bytes
    status: str
    since: str


@dataclass(frozen=True)
class FlowerRun:
    """A run as Flower knows it.

    Attributes:
        status: pending, starting, running or finished.
    """

    id: int
    status: str


def is_up(kit: Path) -> bool:
    """Whether the server of a kit answers on this machine."""
    try:
        return bool(_http(kit).get(f"{_base(kit)}/health").is_success)
    except httpx.HTTPError:
        return False


def register_nodes(kit: Path) -> dict[str, int]:
    """Let exactly the sites with a key in nodes/ connect; their node ids, also written to state/nodes.json.

    Where a site has a courier, that one connects with its own key, and the site's key may not.

    Raises:
        StsmmError: when the server does not run, or a key is not usable.
    """
    folder = ServerFolder(kit)
    keys = node_keys(kit)
    known = {node.public_key: node for node in list_nodes(kit)}
    nodes = {}
    with _control(kit) as control:
        for key, node in known.items():
            if key not in keys.values() and node.status != UNREGISTERED:
                control.UnregisterNode(UnregisterNodeRequest(node_id=node.id))
                folder.note("node unregistered", node=node.id)
        for name, key in keys.items():
            if key in known and known[key].status == UNREGISTERED:
                raise KitError(
                    f"the key of {name} was revoked and cannot be used again; make a new one (stsmm server rotate)"
                )
            if key in known:
                nodes[name] = known[key].id
            else:
                nodes[name] = control.RegisterNode(RegisterNodeRequest(public_key=key, name=name)).node_id
                folder.note("site registered", site=name, node=nodes[name])
    write_text_atomically(folder.nodes, json.dumps(nodes, indent=2) + "\n")
    return nodes


def node_keys(kit: Path) -> dict[str, bytes]:
    """The public key of each site that may connect.

    Raises:
        KitError: when one is not usable, or two sites have the same.
    """
    keys = {path.stem: _read_key(path) for path in sorted((kit / NODES_FOLDER).glob("*.pub"))}
    keys |= {name: public_key_to_bytes(key) for name, key in read_courier_keys(kit).items()}
    twice = [name for name, key in keys.items() if list(keys.values()).count(key) > 1]
    if twice:
        raise KitError(
            f"the sites {', '.join(twice)} have the same key; each needs one of its own (stsmm server rotate)"
        )
    return keys


def unregister_node(kit: Path, name: str) -> None:
    """Let a site connect no more, at once.

    Raises:
        StsmmError: when the server does not run. At its next start only sites with a key in nodes/ may connect anyway.
    """
    folder = ServerFolder(kit)
    nodes = registered(folder)
    if name not in nodes:
        return
    with _control(kit) as control:
        control.UnregisterNode(UnregisterNodeRequest(node_id=nodes[name]))
    write_text_atomically(
        folder.nodes, json.dumps({site: node for site, node in nodes.items() if site != name}, indent=2) + "\n"
    )
    folder.note("site unregistered", site=name, node=nodes[name])


def registered(folder: ServerFolder) -> dict[str, int]:
    """Node ids of the sites that may connect; none before the first start."""
    if not folder.nodes.exists():
        return {}
    nodes: dict[str, int] = json.loads(folder.nodes.read_text(encoding="utf-8"))
    return nodes


def list_nodes(kit: Path) -> list[Node]:
    """All nodes that Flower knows, the unregistered among them."""
    with _control(kit) as control:
        found = control.ListNodes(ListNodesRequest()).nodes_info
    seen = {"online": "last_activated_at", "offline": "last_deactivated_at", UNREGISTERED: "unregistered_at"}
    return [
        Node(node.node_id, node.public_key, node.status, str(getattr(node, seen.get(node.status, "registered_at"))))
        for node in found
    ]


def list_runs(kit: Path) -> list[FlowerRun]:
    """The newest runs that Flower knows."""
    with _control(kit) as control:
        found = control.ListRuns(ListRunsRequest(limit=_LONGEST_LIST)).run_dict
    return [FlowerRun(run.run_id, run.status.status) for run in found.values()]


def submit(kit: Path, app: str, run_config: Mapping[str, str | int]) -> int:
    """Start an app of the kit by its sha256; Flower's number of the run.

    Raises:
        ServerUnreachableError: when Flower does not accept it.
    """
    request = StartRunRequest(app_spec=specification(app), override_config=user_config_to_proto(dict(run_config)))
    with _control(kit) as control:
        response = control.StartRun(request)
    if not response.HasField("run_id"):
        raise ServerUnreachableError("Flower did not accept the run; state/superlink.log says why")
    return int(response.run_id)


def stop(kit: Path, run_id: int) -> None:
    """End a run."""
    with _control(kit) as control:
        control.StopRun(StopRunRequest(run_id=run_id))


def end_runs(kit: Path, numbers: Collection[int]) -> list[int]:
    """End those of the runs that Flower takes for going on; the numbers of the ended ones."""
    ended = []
    for run in list_runs(kit):
        if run.id in numbers and run.status != "finished":
            with suppress(ServerUnreachableError):  # it has just ended by itself
                stop(kit, run.id)
                ended.append(run.id)
    return ended


@contextmanager
def _control(kit: Path) -> Iterator[ControlHttpClient]:
    client = ControlHttpClient(_base(kit), verify=_trust(kit))
    client._client = _http(kit)  # as Flower makes it, but without the proxy of the environment
    try:
        yield client
    except httpx.ConnectError:
        raise ServerUnreachableError(
            f"the server of {kit} does not answer on this machine; start it with `stsmm server start {kit}`"
        ) from None
    except httpx.HTTPStatusError as error:
        raise ServerUnreachableError(f"the server refused: {error.response.text.strip()[:500]}") from None
    except httpx.HTTPError as error:
        raise ServerUnreachableError(f"the server of {kit} does not answer ({type(error).__name__})") from None
    finally:
        client.close()


def _http(kit: Path) -> httpx.Client:
    return httpx.Client(verify=_trust(kit), trust_env=False, timeout=30.0)


def _trust(kit: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(kit / CA_FILE))
    except OSError as error:
        raise KitError(f"{kit / CA_FILE}: cannot be read ({error.strerror})") from None


def _base(kit: Path) -> str:
    return f"https://127.0.0.1:{ServerFolder(kit).settings().server.port}"


def _read_key(path: Path) -> bytes:
    """A public key as the node sends it: OpenSSH form without a comment."""
    from cryptography.hazmat.primitives import serialization

    try:
        return public_key_to_bytes(serialization.load_ssh_public_key(path.read_bytes()))  # type: ignore[arg-type]
    except ValueError:
        raise KitError(f"{path}: no public key in OpenSSH form") from None
