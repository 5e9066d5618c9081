"""A long message is read only where a registered key signed, and none above a length."""

import asyncio
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.superlink.main import create_app

from server.deploy.known_nodes import LONGEST_BODY, LONGEST_OF_ANYBODY, LONGEST_OF_PATH, OnlyKnownNodes

PATH = "/v1/fleet/push-object"
LONG = str(LONGEST_OF_ANYBODY + 1)


@pytest.fixture
def application():
    return create_app()


@pytest.fixture
def key(application):
    key = ec.generate_private_key(ec.SECP384R1())
    state = application.state.linkstate_factory.state()
    state.create_node("operator", "operator", public_key_to_bytes(key.public_key()), 0)
    return key


def of_another_kind():
    return X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signed(key, *, at=None, length="5", claims=None):
    time = (at or datetime.now(UTC)).isoformat()
    public_key = public_key_to_bytes((claims or key).public_key())
    headers = {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key).decode(),
        TIMESTAMP_HEADER: time,
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, time.encode())).decode(),
    }
    return headers | ({} if length is None else {"content-length": length})


def answer(application, headers, path=PATH):
    """The status, and whether the body was read."""
    sent, reads = [], []

    async def inner(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        reads.append(1)
        return {"type": "http.request", "body": b"hello", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "app": application,
    }
    asyncio.run(OnlyKnownNodes(inner)(scope, receive, send))
    assert "state" not in scope
    return sent[0]["status"], bool(reads)


def test_a_registered_node_is_heard(application, key):
    assert answer(application, signed(key, length=LONG)) == (200, True)
    assert answer(application, signed(key, length="0")) == (200, True)


def test_what_no_node_uses_is_passed_on(application):
    assert answer(application, {}, path="/health") == (200, True)


@pytest.mark.parametrize(
    ("length", "status"), [(str(LONGEST_BODY), 200), (str(LONGEST_BODY + 1), 413), (None, 411), ("-1", 411)]
)
def test_a_message_has_a_length(application, key, length, status):
    assert answer(application, signed(key, length=length)) == (status, status == 200)


def test_of_anybody_else_only_little_is_read(application, key):
    stranger = ec.generate_private_key(ec.SECP384R1())
    for headers in (
        {},
        signed(stranger),
        signed(stranger, claims=key),
        signed(key, at=datetime.now(UTC) - timedelta(hours=1)),
        signed(key) | {FLEET_HTTP_PUBLIC_KEY_HEADER: "?"},
        signed(key) | {TIMESTAMP_HEADER: "soon"},
        signed(key) | {FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(of_another_kind()).decode()},
    ):
        assert answer(application, headers | {"content-length": LONG}) == (401, False)
        assert answer(application, headers | {"content-length": str(LONGEST_OF_ANYBODY)}) == (200, True)


def test_a_revoked_key_is_a_strangers(application, key):
    state = application.state.linkstate_factory.state()
    node = state.get_node_id_by_public_key(public_key_to_bytes(key.public_key()))
    state.delete_node("operator", node)
    assert answer(application, signed(key, length=LONG)) == (401, False)


def test_of_the_names_of_an_answers_parts_only_a_few_are_read(application, key):
    path = "/v1/fleet/push-messages"
    longest = LONGEST_OF_PATH[path]
    assert answer(application, signed(key, length=str(longest)), path) == (200, True)
    assert answer(application, signed(key, length=str(longest + 1)), path) == (413, False)
