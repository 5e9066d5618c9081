"""`stsmm server courier`: one site's courier at work, with what it waits for on the screen."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from server.deploy.control import ServerUnreachableError, is_up, list_nodes, register_nodes, registered
from server.deploy.courier import PENDING_FILE, Connection, CourierDesk, alone, carry, clear
from server.deploy.courier_key import COURIERS_FOLDER, key_file, make_key, refuse_unknown_site, site_key_file
from server.deploy.folder import ServerFolder
from stsmm_core.courier.keys import read_private_key, read_public_key
from stsmm_core.courier.parcel import CourierError
from stsmm_core.kit import AUDIT_LOG_FILE, CA_FILE, SERVER_CERTIFICATE_FILE, SERVER_KEY_FILE
from stsmm_core.printable import printable


def run_courier(console: Console, kit: Path, site: str, exchange: Path, *, make: bool) -> None:
    """Carry the messages of a site as files, until interrupted.

    Args:
        exchange: the folder with `out` and `in`.
        make: make the courier's key where there is none; the site's own key may then connect no more.

    Raises:
        StsmmError: when the server does not run, the site has no courier, or the server refuses it.
    """
    folder = ServerFolder(kit)
    folder.settings()
    refuse_unknown_site(kit, site)
    if not is_up(kit):
        raise ServerUnreachableError(
            f"the server of {kit} does not answer on this machine; start it with `stsmm server start {kit}`"
        )
    if make:
        _make(console, folder, site, exchange)
    if not key_file(kit, site).exists():
        raise CourierError(
            f"{site} has no courier: a site is connected by its own key or by courier, not both. --make changes it to "
            "a courier; its own key may then connect no more"
        )
    desk = open_desk(kit, site, exchange)
    with alone(desk):
        for place in (desk.out, desk.arrivals):
            place.mkdir(parents=True, exist_ok=True)
        _carry(console, folder, desk)


def open_desk(kit: Path, site: str, exchange: Path) -> CourierDesk:
    """The desk of a site's courier, from the server's kit."""
    folder = ServerFolder(kit)
    return CourierDesk(
        consortium=folder.settings().consortium,
        site=site,
        certificate=(kit / SERVER_CERTIFICATE_FILE).read_text(encoding="ascii"),
        sign=read_private_key(kit / SERVER_KEY_FILE),
        reply=read_private_key(key_file(kit, site)),
        site_key=read_public_key(site_key_file(kit, site)),
        folder=exchange,
        state=folder.state / COURIERS_FOLDER / site,
        audit=folder.state / AUDIT_LOG_FILE,
    )


def _make(console: Console, folder: ServerFolder, site: str, exchange: Path) -> None:
    """Let the courier in, in the place of the site's own node."""
    if not key_file(folder.kit, site).exists():
        status = {node.id: node.status for node in list_nodes(folder.kit)}
        if status.get(registered(folder).get(site, 0)) == "online":
            raise CourierError(
                f"{site} is connected by its own key now, and a site is connected by its own key or by courier, not "
                "both; let the site stop its node (stsmm site stop), then make the courier"
            )
        make_key(folder.kit, site)
        desk = open_desk(folder.kit, site, exchange)
        if (desk.state / PENDING_FILE).exists():
            clear(desk)  # of an earlier courier, whose key is gone
        folder.note("courier made", site=site)
    register_nodes(folder.kit)
    console.print(
        f"{site} takes part by courier from now on: its own key opens and signs files, and may connect no more. To "
        f"connect again it needs a new kit: stsmm server rotate {folder.kit} --site {site} --out DIR",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _carry(console: Console, folder: ServerFolder, desk: CourierDesk) -> None:
    def say(sentence: str) -> None:
        told = f"{datetime.now():%Y-%m-%d %H:%M}  {printable(sentence)}"  # a file that is refused may be anybody's
        console.print(told, soft_wrap=True, highlight=False, markup=False)

    for each in (signal.SIGTERM, signal.SIGINT):  # either way the server is told that the node leaves
        signal.signal(each, signal.default_int_handler)
    failed: Exception | None = None
    try:
        with _connection(folder, desk) as connection, _shown(console, desk):
            try:
                carry(connection, desk, say)
            except Exception as error:  # Flower's connection would take it for its own, and end in silence
                failed = error
    except KeyboardInterrupt:
        if not key_file(folder.kit, desk.site).exists():  # Flower interrupts a node whose key it knows no more
            raise CourierError(f"{desk.site} was revoked; its courier ends") from None
        say("The courier ends; the file on its way is kept. Start it again soon: the server holds the site for lost")
        return
    if isinstance(failed, httpx.HTTPError):
        raise CourierError(
            f"the server did not accept the courier of {desk.site} any more ({failed}); was the site revoked? "
            "Start the courier again"
        )
    if failed is not None:
        raise failed


@contextmanager
def _connection(folder: ServerFolder, desk: CourierDesk) -> Iterator[Connection]:
    """Flower's own connection of a node, with the courier's key, to this machine."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["no_proxy"] = "127.0.0.1"
    from flwr.supernode.fleet_http_connection import http_request_response

    address = f"127.0.0.1:{folder.settings().server.port}"
    keys = (desk.reply, desk.reply.public_key())
    try:
        with http_request_response(address, False, str(folder.kit / CA_FILE), keys) as connection:
            yield connection
    except SystemExit:
        raise CourierError(
            f"the server did not let the courier of {desk.site} in; is its key registered (--make), and no other "
            "courier of the site connected? A courier that was killed counts as connected for a minute"
        ) from None


@contextmanager
def _shown(console: Console, desk: CourierDesk) -> Iterator[None]:
    """What the courier waits for, at the foot of the screen."""
    spinner = Spinner("dots")

    def waiting() -> Spinner:
        pending = desk.state / PENDING_FILE
        try:
            since = datetime.fromtimestamp(pending.stat().st_mtime)
            text = f"Since {since:%Y-%m-%d %H:%M} a file is on its way; waiting for the answer in {desk.arrivals}"
        except FileNotFoundError:
            text = "Waiting for the server's next message"
        spinner.update(text=f"{text}. Ctrl-C ends the courier.")
        return spinner

    with Live(get_renderable=waiting, console=console, refresh_per_second=4, transient=True):
        yield
