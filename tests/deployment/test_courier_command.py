"""Whatever ends a courier is said, though Flower's connection would swallow it."""

from contextlib import contextmanager
from io import StringIO

import httpx
import pytest
from rich.console import Console

from server.deploy import courier_command
from server.deploy.courier import PENDING_FILE
from server.deploy.courier_key import key_file, make_key
from server.deploy.folder import ServerFolder
from stsmm_core.courier.parcel import CourierError


@pytest.fixture
def desk(kits, tmp_path, monkeypatch):
    make_key(kits / "server", "leiden")
    monkeypatch.setattr(courier_command.signal, "signal", lambda *_: None)
    return courier_command.open_desk(kits / "server", "leiden", tmp_path / "exchange")


@contextmanager
def connection_that_swallows(_folder, _desk):
    try:
        yield ()
    except Exception:
        return


def carry(desk, monkeypatch, error):
    """What a courier printed that ended in this way."""

    def ends(_connection, _desk, say):
        say("Warning: [1] is shown as it is, \x1b[2J is not")
        raise error

    monkeypatch.setattr(courier_command, "carry", ends)
    monkeypatch.setattr(courier_command, "_connection", connection_that_swallows)
    console = Console(record=True, quiet=False, width=80)
    folder = ServerFolder(desk.state.parents[2])
    courier_command._carry(console, folder, desk)
    return console.export_text()


def test_an_error_is_raised(desk, monkeypatch):
    with pytest.raises(CourierError, match="no key"):
        carry(desk, monkeypatch, CourierError("no key"))


def test_a_refusal_of_the_server_is_explained(desk, monkeypatch):
    response = httpx.Response(404, request=httpx.Request("POST", "https://127.0.0.1"))
    with pytest.raises(CourierError, match="was the site revoked"):
        carry(desk, monkeypatch, httpx.HTTPStatusError("404", request=response.request, response=response))


def test_an_interruption_is_no_error_unless_the_site_was_revoked(desk, monkeypatch):
    said = carry(desk, monkeypatch, KeyboardInterrupt())
    assert "[1] is shown as it is, ?[2J is not" in said
    assert "The courier ends" in said
    key_file(desk.state.parents[2], "leiden").unlink()
    with pytest.raises(CourierError, match="leiden was revoked"):
        carry(desk, monkeypatch, KeyboardInterrupt())


def test_the_screen_shows_what_the_courier_waits_for(desk):
    def shown():
        console = Console(force_terminal=True, width=300, record=True, file=StringIO())
        with courier_command._shown(console, desk):
            pass
        return console.export_text()

    assert "Waiting for the server's next message" in shown()
    desk.state.mkdir()
    (desk.state / PENDING_FILE).write_bytes(b"")
    assert f"waiting for the answer in {desk.arrivals}" in shown()
