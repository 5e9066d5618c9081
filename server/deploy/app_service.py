"""The small service beside the SuperLink that hands it apps with their signatures, in the place of Flower's hub.

The SuperLink passes signatures to the nodes only of an app that it fetched. It listens on this machine
only; nodes get the app from the SuperLink and never talk to it.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from server.deploy.apps import APP_ID, packed_app, sha256_of_version
from server.deploy.folder import ServerFolder
from server.deploy.signatures import read_signatures
from stsmm_core.errors import StsmmError

BASE_PATH = "/v1"
FETCH_PATH = f"{BASE_PATH}/hub/fetch-fab"
_APP_PATH = re.compile(r"/apps/([0-9a-f]{64})\.fab")
_LONGEST_REQUEST = 10_000


@contextmanager
def app_service(folder: ServerFolder) -> Iterator[str]:
    """Serve the kit's apps while the block runs; the address for Flower's FLWR_SUPERGRID_API_URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{BASE_PATH}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(folder: ServerFolder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                asked = json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), _LONGEST_REQUEST)))
                sha256 = sha256_of_version(str(asked["app_version"]))
                wanted = self.path == FETCH_PATH and asked["app_id"] == APP_ID and sha256 is not None
            except (ValueError, KeyError, TypeError):
                wanted, sha256 = False, None
            if not wanted or sha256 is None:
                self._answer(HTTPStatus.NOT_FOUND, {"detail": "no such app"})
                return
            try:
                packed_app(folder, sha256)
                signatures = read_signatures(folder, sha256)
            except StsmmError as error:
                self._answer(HTTPStatus.NOT_FOUND, {"detail": str(error)})
                return
            url = f"http://127.0.0.1:{self.connection.getsockname()[1]}/apps/{sha256}.fab"
            self._answer(HTTPStatus.OK, {"fab_url": url, "verifications": signatures})

        def do_GET(self) -> None:
            match = _APP_PATH.fullmatch(self.path)
            try:
                content = packed_app(folder, match.group(1)) if match else None
            except StsmmError:
                content = None
            if content is None:
                self._answer(HTTPStatus.NOT_FOUND, {"detail": "no such app"})
                return
            self._send(HTTPStatus.OK, "application/octet-stream", content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the SuperLink's log names what it fetched."""

        def _answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
            self._send(status, "application/json", json.dumps(content).encode())

        def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
