"""Control of the server is for its own machine; elsewhere only what nodes need is answered."""

import asyncio

import pytest

from server.deploy.this_machine import OnlyForNodes


def status_of(path, client, headers=(), kind="http"):
    sent = []

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "client": client, "headers": list(headers), "method": "POST"}
    asyncio.run(OnlyForNodes(inner)(scope, None, send))
    return sent[0].get("status", sent[0]["type"])


CLOSED = ["/v1/control/start-run", "/v1/runtime/get-nodes", "/docs", "/openapi.json", "/", "//v1/fleet/x", "/v1/fleet"]


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("client", [("192.0.2.7", 5), ("fd00::2", 5), ("::ffff:192.0.2.7", 5), ("testclient", 5), None])
def test_other_machines_are_refused(path, client):
    assert status_of(path, client) == 403


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_answered(path, address):
    assert status_of(path, (address, 5)) == 200


@pytest.mark.parametrize("header", [b"X-Forwarded-For", b"forwarded", b"X-Real-IP", b"Via"])
def test_a_request_that_a_proxy_here_passed_on_is_refused(header):
    assert status_of("/v1/control/start-run", ("127.0.0.1", 5), [(header, b"127.0.0.1")]) == 403


@pytest.mark.parametrize("path", ["/v1/fleet/get-run", "/health"])
def test_nodes_are_answered(path):
    assert status_of(path, ("192.0.2.7", 5)) == 200


def test_other_protocols_are_refused():
    assert status_of("/v1/fleet/get-run", ("192.0.2.7", 5), kind="websocket") == "websocket.close"
