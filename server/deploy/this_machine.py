"""What of the SuperLink's one port answers whom: Flower has no accounts, so control is for this machine only."""

from ipaddress import ip_address

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from server.deploy.known_nodes import FOR_NODES
from stsmm_core.protocol.node_state import NODE_PATH, VERSION_PATH

FOR_ALL = ("/health", NODE_PATH, VERSION_PATH)
"""What a site may ask before it joins; its own state only with its signature."""


class OnlyForNodes:
    """ASGI middleware: from another machine nothing is answered but what a node needs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or _is_here(scope) or (scope["type"] == "http" and _is_open(scope["path"])):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = PlainTextResponse("This is answered on the server's own machine only.", status_code=403)
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


def _is_open(path: str) -> bool:
    return path.startswith(FOR_NODES) or path in FOR_ALL


def _is_here(scope: Scope) -> bool:
    """Whether the request comes from this machine; one that a proxy passed on counts as from elsewhere."""
    client = scope.get("client")
    if client is None:
        return False
    passed_on = {b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via"} & {
        name.lower() for name, _ in scope["headers"]
    }
    try:
        address = ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return not passed_on and (mapped or address).is_loopback
