"""What the server answers `stsmm site check`: the state of the site's key, and versions.

Flower's own API answers a key that was never registered, one that was revoked and one that is connected already with
the same error. The SuperLink's database tells them apart.
"""

from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.constant import NodeStatus
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.dependencies.linkstate import get_linkstate
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from server.deploy.known_nodes import signer
from stsmm_core.protocol.node_state import NODE_PATH, VERSION_PATH, NodeState

_STATES: dict[str, NodeState] = {
    NodeStatus.REGISTERED: "registered",
    NodeStatus.ONLINE: "online",
    NodeStatus.OFFLINE: "offline",
    NodeStatus.UNREGISTERED: "revoked",
}


class NodeStateMiddleware:
    """Answers GET `NODE_PATH` and `VERSION_PATH`; hands everything else on.

    It goes outside Flower's own middleware, for example through `flwr.superlink.extensions.get_middleware`.
    """

    def __init__(self, app: ASGIApp, revoked: Path) -> None:
        self._app = app
        self._revoked = revoked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in (NODE_PATH, VERSION_PATH):
            await self._app(scope, receive, send)
        elif scope["path"] == VERSION_PATH:
            await JSONResponse({"stsmm": version("stsmm"), "flwr": version("flwr")})(scope, receive, send)
        else:
            response = await run_in_threadpool(_answer, Request(scope, receive), self._revoked)
            await response(scope, receive, send)


def node_state(linkstate: LinkState, public_key: bytes, revoked: Path) -> NodeState:
    """What the server knows of a key.

    Args:
        public_key: PEM, as Flower sends it.
        revoked: folder of keys, in OpenSSH form, that may not connect any more.
    """
    if public_key in _keys(revoked):
        return "revoked"
    for node in linkstate.get_node_info():
        if node.public_key == public_key:
            return _STATES[node.status]
    return "unknown"


def _answer(request: Request, revoked: Path) -> JSONResponse:
    try:
        public_key = signer(request)
    except HTTPException as error:
        return JSONResponse({"detail": error.detail}, status_code=error.status_code)
    return JSONResponse({"state": node_state(get_linkstate(request), public_key, revoked)})


def _keys(folder: Path) -> set[bytes]:
    """The public keys of a folder, as PEM."""
    keys = (load_ssh_public_key(path.read_bytes()) for path in sorted(folder.glob("*.pub")))
    return {public_key_to_bytes(key) for key in keys if isinstance(key, ec.EllipticCurvePublicKey)}
