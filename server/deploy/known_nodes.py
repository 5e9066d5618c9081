"""Who may send the server a message: Flower reads one whole, whatever its length, before it asks whose it is."""

from base64 import b64decode
from http import HTTPStatus

from cryptography.exceptions import UnsupportedAlgorithm
from fastapi import HTTPException, Request
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.superlink.dependencies.linkstate import get_linkstate
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

FOR_NODES = "/v1/fleet/"
"""What nodes use."""
LONGEST_BODY = 100_000_000
"""Bytes; weights travel in parts of 5 MB, the sums of a Cox model in one piece."""
LONGEST_OF_PATH = {FOR_NODES + "push-messages": 100_000}
"""The names of an answer's parts, some 15: the database is locked while they are noted."""
LONGEST_OF_ANYBODY = 10_000
"""So much is read of anybody: nearly all requests are shorter, and Flower asks for the signature next."""


class OnlyKnownNodes:
    """ASGI middleware: a long request is read only with the signature of a registered key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it unread."""
        refusal = None
        if scope["type"] == "http" and scope["path"].startswith(FOR_NODES):
            refusal = await run_in_threadpool(_refusal, Request(dict(scope, state={})))
        await (refusal or self._app)(scope, receive, send)


def signer(request: Request) -> bytes:
    """The key, in PEM, that signed the request's time, by Flower's own check.

    Raises:
        HTTPException: 401 where the signature or the time is not right.
    """
    try:
        public_key = b64decode(request.headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER, ""), validate=True)
    except ValueError:
        public_key = b""  # refused below
    request.state.protobuf_request = ActivateNodeRequest(public_key=public_key)
    try:
        authenticate_node(request)
    except (AttributeError, UnsupportedAlgorithm):  # a key of another kind, which Flower does not expect
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "Invalid SuperNode authentication") from None
    return public_key


def _refusal(request: Request) -> PlainTextResponse | None:
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        return PlainTextResponse("The length must be said.", HTTPStatus.LENGTH_REQUIRED)
    if int(length) <= LONGEST_OF_ANYBODY:
        return None
    longest = LONGEST_OF_PATH.get(request.url.path, LONGEST_BODY)
    if int(length) > longest:
        return PlainTextResponse(f"At most {longest} bytes are read.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    try:
        known = get_linkstate(request).get_node_id_by_public_key(signer(request)) is not None
    except HTTPException as error:
        return PlainTextResponse(error.detail, error.status_code)
    return None if known else PlainTextResponse("The key is not registered.", HTTPStatus.UNAUTHORIZED)
