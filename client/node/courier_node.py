"""Flower's own node at work on one courier file: same loop, same Runtime API, same app process as with a connection."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from flwr.app.user_config import UserConfig
from flwr.common.serde import context_from_proto, context_to_proto, run_from_proto
from flwr.proto.message_pb2 import Context as ProtoContext
from flwr.proto.run_pb2 import Run as ProtoRun
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode import start_client_internal as flower_node
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeState, NodeStateFactory

from client.node.courier_connection import AnsweredError, Connection, courier_connection
from stsmm_core.courier.parcel import CourierError, Parcel
from stsmm_core.files import write_atomically

Gate = Callable[[Connection], Connection]
"""Looks at everything that comes in and goes out between the server and the app."""
LAST_STATE_S = 60.0
"""How long the app process may take to hand back its state after its answer."""


def work_on(
    parcel: Parcel, *, gate: Gate, node_config: UserConfig, contexts: Path, trusted: Mapping[str, str] | None = None
) -> Parcel:
    """Let the node answer the message of a parcel. Runs once a process: it ends Flower's endless loop.

    Args:
        gate: the site's, the same as with a connection.
        node_config: of the node.
        contexts: folder that keeps what the app stored in its context, a file a series of runs.
        trusted: Ed25519 keys of the reviewers by id, where the site asks for signatures.

    Raises:
        CourierError: when the node ends without an answer.
    """
    series = run_from_proto(ProtoRun.FromString(parcel.run)).series_id
    kept = contexts / f"{series}.context"
    states = NodeStateFactory(ObjectStoreFactory())
    if kept.exists():
        states.state().set_run_series_context(series, context_from_proto(ProtoContext.FromString(kept.read_bytes())))
    answer = _answer(parcel, states, gate, node_config, trusted)
    context = states.state().get_run_series_context(series)
    if context is not None:  # None: the gate refused before the app began
        content = context_to_proto(context).SerializeToString()
        write_atomically(kept, lambda temporary: temporary.write_bytes(content))
    return answer


def _answer(
    parcel: Parcel,
    states: NodeStateFactory,
    gate: Gate,
    node_config: UserConfig,
    trusted: Mapping[str, str] | None,
) -> Parcel:
    """Run Flower's loop until it has sent the answer, and the service for the app until the app has ended."""
    with _runtime_api(states) as address, _instead_of_a_socket(parcel, gate):
        try:
            flower_node.start_client_internal(
                state_factory=states,
                server_address=address,
                insecure=True,  # of the connection that the courier stands in for: there is none
                node_config=node_config,
                runtime_api_address=address,
                trusted_entities=dict(trusted) if trusted else None,
                runtime_dependency_install=False,
            )
        except AnsweredError as done:
            _wait_for_app(states.state())
            return done.answer
    raise CourierError("the node ended without an answer; its log says why")


@contextmanager
def _instead_of_a_socket(parcel: Parcel, gate: Gate) -> Iterator[None]:
    """Let Flower's node connect to the parcel."""

    @contextmanager
    def connect(**_: object) -> Iterator[Connection]:
        with courier_connection(parcel) as connection:
            yield gate(connection)

    socket_connection = flower_node._init_connection
    flower_node._init_connection = connect  # type: ignore[assignment]
    try:
        yield
    finally:
        flower_node._init_connection = socket_connection


@contextmanager
def _runtime_api(states: NodeStateFactory) -> Iterator[str]:
    """What the app process talks to, on this machine alone: its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = uvicorn.Config(create_app(states), host="127.0.0.1", port=port, access_log=False, workers=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.1)
    if not server.started:
        raise CourierError("the node's own service on this machine could not start; its log says why")
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def _wait_for_app(state: NodeState) -> None:
    """The app hands back its state after its answer, when its process ends."""
    deadline = time.monotonic() + LAST_STATE_S
    while any(not task.finished_at for task in state.get_tasks()):
        if time.monotonic() > deadline:
            raise CourierError("the app did not end after its answer; bring the same file again")
        time.sleep(0.2)
