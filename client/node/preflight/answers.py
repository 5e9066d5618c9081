"""What the server answers: whether it knows the key, its version, its health, and what it should not answer."""

import ipaddress
import json
import socket
import ssl
from importlib.metadata import version
from typing import Any

import grpc
import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from client.node.preflight.finding import Finding
from client.node.preflight.route import SECONDS, server_url
from stsmm_core.kit import ServerAddress
from stsmm_core.protocol.node_state import NODE_PATH, NODE_STATES, VERSION_PATH, NodeState

NO_HEARTBEAT = 0.0
"""An interval that Flower never accepts: it looks the key up first, so the refusal tells whether the key is registered,
and the node is not marked as connected."""


def check_registration(
    server: ServerAddress, context: ssl.SSLContext, key: ec.EllipticCurvePrivateKey, *, running: bool
) -> Finding:
    """Whether the server lets this key in, by the request with which Flower's node begins.

    Args:
        running: whether this kit's own node runs, which then is the one that is connected.
    """
    try:
        code = _activation_refusal(server, context, key)
    except httpx.TransportError as error:
        return _no_answer(error)
    if code == httpx.codes.UNAUTHORIZED:
        return Finding(
            "registration",
            "fault",
            "The server did not accept the signature of this machine's time.",
            "Set this machine's clock by the network (NTP).",
        )
    if code not in (ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL, ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED):
        return Finding(
            "registration",
            "fault",
            "What answers is not a server that the node can join (code {code}).",
            "Compare address, port and version with the server's operator.",
            {"code": code},
        )
    state = _told_state(server, context, key)
    if state is None and code == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
        return Finding("registration", "ok", "The server knows this key.")
    if state is None:
        return Finding(
            "registration",
            "fault",
            "The server does not let this key in: it is not registered, or it was revoked.",
            "Send the fingerprint of node.pub (fingerprints.txt) to the server's operator and ask which of the two.",
        )
    return _finding_of(state, running)


def _finding_of(state: NodeState, running: bool) -> Finding:
    if state == "unknown":
        return Finding(
            "registration",
            "fault",
            "The server does not know this key: it was never registered.",
            "Ask the server's operator to register the site; with your own key, send them node.pub.",
        )
    if state == "revoked":
        return Finding(
            "registration",
            "fault",
            "The server's operator has revoked this key.",
            "Ask the operator why. A new kit brings a new key; this one cannot be used again.",
        )
    if state == "online" and not running:
        return Finding(
            "registration",
            "fault",
            "A node with this key is connected already, and it is not the one of this folder.",
            "Stop the other node: one kit is for one machine. If yours was killed, the server notices within two "
            "minutes: check again then. If you know of no other, tell the operator: the key may be stolen.",
        )
    if state == "online":
        return Finding("registration", "ok", "The server knows this key, and the node is connected.")
    if running:
        return Finding(
            "registration",
            "warning",
            "The server knows this key, but this folder's node is not connected.",
            "Wait a minute and check again; if it stays so, stop and start the node.",
        )
    return Finding("registration", "ok", "The server knows this key.")


def _activation_refusal(server: ServerAddress, context: ssl.SSLContext, key: ec.EllipticCurvePrivateKey) -> int:
    """Flower's error code, or else the HTTP status, of an activation that cannot succeed.

    Raises:
        httpx.TransportError: when nothing answers.
    """
    public_key = key.public_key()
    with FleetHttpClient(
        server_url(server), interceptors=[NodeAuthHttpInterceptor(key, public_key)], verify=context, timeout=SECONDS
    ) as client:
        try:
            client.ActivateNode(
                ActivateNodeRequest(public_key=public_key_to_bytes(public_key), heartbeat_interval=NO_HEARTBEAT)
            )
        except httpx.HTTPStatusError as error:
            refusal = FlowerError.from_json(error.response.text)
            return refusal.code if refusal else error.response.status_code
        except ValueError:  # not an answer of Flower's
            return int(httpx.codes.OK)
    return int(httpx.codes.OK)


def _told_state(server: ServerAddress, context: ssl.SSLContext, key: ec.EllipticCurvePrivateKey) -> NodeState | None:
    """What the server says of the key where it has STSMM's own answer (server/deploy/node_state.py)."""
    signer = NodeAuthHttpInterceptor(key, key.public_key())
    with httpx.Client(verify=context, timeout=SECONDS) as client:
        request = client.build_request("GET", f"{server_url(server)}{NODE_PATH}")
        message = ActivateNodeRequest()
        try:
            response = signer.intercept(
                ProtobufRequestContext(NODE_PATH, message, request), lambda signed: client.send(signed.request)
            )
        except httpx.TransportError:
            return None
    answer = _json(response)
    return next((state for state in NODE_STATES if state == answer.get("state")), None)


def check_version(server: ServerAddress, context: ssl.SSLContext) -> Finding:
    """Whether server and site have the same software: Flower exactly, STSMM up to the last figure."""
    try:
        with httpx.Client(verify=context, timeout=SECONDS) as client:
            theirs = _json(client.get(f"{server_url(server)}{VERSION_PATH}"))
    except httpx.TransportError:
        theirs = {}
    if not all(isinstance(theirs.get(package), str) for package in ("stsmm", "flwr")):
        return Finding(
            "version",
            "warning",
            "The server does not tell its version.",
            "Ask the server's operator, and compare with: stsmm site check KIT --json.",
        )
    ours = {package: version(package) for package in ("stsmm", "flwr")}
    detail = ", ".join(f"{package} {ours[package]} here, {theirs[package]} there" for package in ours)
    if theirs["flwr"] != ours["flwr"]:
        return Finding(
            "version",
            "fault",
            "The server runs another version of Flower: the two may not understand each other.",
            "Install the version of STSMM that the server's operator names.",
            detail=detail,
        )
    if theirs["stsmm"].split(".")[:2] != ours["stsmm"].split(".")[:2]:
        return Finding(
            "version",
            "fault",
            "The server runs another version of STSMM.",
            "Install the version of STSMM that the server's operator names.",
            detail=detail,
        )
    if theirs["stsmm"] != ours["stsmm"]:
        return Finding(
            "version",
            "warning",
            "The server runs a slightly different version of STSMM.",
            "Install the server's version when you can.",
            detail=detail,
        )
    return Finding("version", "ok", "Server and site have the same versions.", detail=detail)


def check_control(server: ServerAddress, context: ssl.SSLContext) -> Finding:
    """Whether the server keeps its control interface to itself, as Flower alone does not.

    The request is a GET where only POST does anything: it changes nothing.
    """
    if _is_this_machine(server):
        return Finding("control", "skipped", "Not checked: the server is this machine, which may control it.")
    try:
        with httpx.Client(verify=context, timeout=SECONDS) as client:
            answers = [
                client.get(f"{server_url(server)}{path}").status_code for path in ("/v1/control/list-runs", "/docs")
            ]
    except httpx.TransportError as error:
        return Finding("control", "warning", "Not known: the server did not answer.", detail=type(error).__name__)
    if all(answer in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND) for answer in answers):
        return Finding("control", "ok", "The server's control interface is closed to other machines.")
    return Finding(
        "control",
        "warning",
        "The server's control interface answers from here: anybody who reaches it can start runs.",
        "Pass this on to the server's operator: start the server with stsmm server start, or close /v1/control.",
    )


def _is_this_machine(server: ServerAddress) -> bool:
    """Whether packets to the server would leave from the very address they go to."""
    try:
        family, _, _, _, address = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing
            here = probe.getsockname()[0]
    except OSError:
        return False
    return here == address[0] or ipaddress.ip_address(str(here).partition("%")[0]).is_loopback


def check_health(server: ServerAddress) -> Finding:
    """Whether the server's health service says SERVING; the node does without it."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    try:
        with grpc.insecure_channel(f"{host}:{server.health_port}") as channel:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=SECONDS)
    except grpc.RpcError:
        return Finding(
            "health",
            "warning",
            "The server's health port does not answer. The node works without it.",
            "Allow outgoing TCP to it if you want to watch the server; else nothing.",
            {"port": server.health_port},
            f"{host}:{server.health_port}",
        )
    if answer.status != HealthCheckResponse.SERVING:
        return Finding(
            "health",
            "warning",
            "The server says that it is not serving (state {state}).",
            "Tell the server's operator.",
            {"state": answer.status},
        )
    return Finding("health", "ok", "The server says that it is serving.")


def _no_answer(error: httpx.TransportError) -> Finding:
    return Finding(
        "registration",
        "fault",
        "The server did not answer the node's request.",
        "Check again; if it stays so, ask the server's operator.",
        detail=type(error).__name__,
    )


def _json(response: httpx.Response) -> dict[str, Any]:
    """The object in an answer; empty where it is an error or not one."""
    try:
        answer = response.json() if response.is_success else {}
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return answer if isinstance(answer, dict) else {}
