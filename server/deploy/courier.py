"""The server's end of the courier mode: stands in for a site's node, with files in the place of its app."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from filelock import FileLock, Timeout
from flwr.app import Message
from flwr.common.serde import fab_to_proto, message_from_proto, message_to_proto, run_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import pull_objects, push_object_contents_from_iterable
from flwr.supercore.run import Run, RunNotRunningException

from stsmm_core import protocol
from stsmm_core.audit.chain import append
from stsmm_core.config import parse_experiment
from stsmm_core.courier.envelope import TO_SERVER, TO_SITE, Header, open_envelope, read_envelope, seal
from stsmm_core.courier.keys import public_key_line
from stsmm_core.courier.parcel import CourierError, Parcel, pack, unpack
from stsmm_core.errors import ConfigError
from stsmm_core.files import write_atomically

SHORTEST_WAIT_S = 24 * 3600.0
"""A courier needs a day; a run that waits for less is warned of."""
OUT_FOLDER = "out"
IN_FOLDER = "in"
PENDING_FILE = "pending.courier"
"""In the state of a courier: the file on its way, until its answer was sent on."""
PENDING_MESSAGE_FILE = "pending.message"
COUNTER_FILE = "sequence"
POLL_S = 2.0
RUN_CHECK_S = 60.0

Connection = tuple[
    int,
    Callable[[], tuple[Message, ObjectTree] | None],
    Callable[[Message, ObjectTree, float], tuple[set[str], str]],
    Callable[[int], Run],
    Callable[[str, int], Fab],
    Callable[[int, str], bytes],
    Callable[[int, str, str, bytes], None],
    Callable[[int, str], None],
]
"""What Flower's node has of its server: node id, receive, send, get_run, get_fab, pull_object, push_object, confirm."""


@dataclass(frozen=True)
class CourierDesk:
    """What the server needs to write files for one site and to read its answers.

    Attributes:
        certificate: of the server, PEM.
        sign: the certificate's key.
        reply: the courier's own key, for which the site encrypts its answers.
        site_key: the site's public key.
        folder: where people fetch `out` and bring `in`.
        state: of this courier; the file on its way survives a restart here.
    """

    consortium: str
    site: str
    certificate: str
    sign: ec.EllipticCurvePrivateKey
    reply: ec.EllipticCurvePrivateKey
    site_key: ec.EllipticCurvePublicKey
    folder: Path
    state: Path
    audit: Path

    @property
    def out(self) -> Path:
        """Files for the site."""
        return self.folder / OUT_FOLDER

    @property
    def arrivals(self) -> Path:
        """Files from the site."""
        return self.folder / IN_FOLDER


def carry(connection: Connection, desk: CourierDesk, say: Callable[[str], None], *, poll_s: float = POLL_S) -> None:
    """Exchange messages of the server with files, one after the other, until interrupted."""
    _, _, send, get_run, _, _, push_object, _ = connection
    refused: set[str] = set()
    while True:
        if not (desk.state / PENDING_FILE).exists() and not _take_message(connection, desk, say):
            time.sleep(poll_s)
            continue
        say(f"{_lay_out(desk)}: bring this file to {desk.site}, and the answer to {desk.arrivals}")
        arrived = _wait(desk, get_run, say, refused, poll_s)
        if arrived is not None:
            file, answer = arrived
            _send_on(desk, answer, send, push_object, say)
            file.unlink()
        clear(desk)


def write_out(desk: CourierDesk, parcel: Parcel, run: int) -> Path:
    """Write the next file for the site, and keep what is needed to know its answer: where the file lies."""
    for folder in (desk.out, desk.arrivals, desk.state):
        folder.mkdir(parents=True, exist_ok=True)
    counter = desk.state / COUNTER_FILE
    # Sites work on no number that is not above the last, and the counter may be lost or come from an old backup.
    sequence = max(int(time.time()), (int(counter.read_text()) if counter.exists() else 0) + 1)
    header = Header(
        consortium=desk.consortium,
        site=desk.site,
        direction=TO_SITE,
        run=run,
        sequence=sequence,
        certificate=desk.certificate,
        reply_key=public_key_line(desk.reply.public_key()),
    )
    data = seal(header, pack(parcel), sign=desk.sign, to=desk.site_key)
    write_atomically(counter, lambda temporary: temporary.write_text(str(sequence)))
    write_atomically(desk.state / PENDING_MESSAGE_FILE, lambda temporary: temporary.write_bytes(parcel.message))
    write_atomically(desk.state / PENDING_FILE, lambda temporary: temporary.write_bytes(data))
    append(desk.audit, _noted(desk, "sent", run, sequence, len(data)))
    return _lay_out(desk)


def _lay_out(desk: CourierDesk) -> Path:
    """Put the file on its way where people fetch it; after a restart it may lie there already."""
    data = (desk.state / PENDING_FILE).read_bytes()
    path = desk.out / f"{desk.site}-{read_envelope(data, PENDING_FILE).header.sequence:06d}.courier"
    write_atomically(path, lambda temporary: temporary.write_bytes(data))
    return path


def read_answer(desk: CourierDesk, file: Path) -> Parcel:
    """The site's answer to the file that is on its way.

    Raises:
        CourierError: when the file is anything else.
    """
    pending = read_envelope((desk.state / PENDING_FILE).read_bytes(), PENDING_FILE)
    try:
        envelope = read_envelope(file.read_bytes(), file.name)
    except OSError as error:
        raise CourierError(f"{file}: cannot be read ({error.strerror})") from None
    header = envelope.header
    if header.direction != TO_SERVER:
        raise CourierError(f"{file.name}: a file from the server to a site; bring the answer that the site wrote")
    if header.consortium != desk.consortium:
        raise CourierError(f"{file.name}: of the consortium {header.consortium}; this is {desk.consortium}")
    if header.site != desk.site:
        raise CourierError(f"{file.name}: from the site {header.site}; this folder is that of {desk.site}")
    content = open_envelope(
        envelope, file.name, signed_by=desk.site_key, opened_with=desk.reply, sender=f"the site {desk.site}"
    )
    if header.run != pending.header.run:
        raise CourierError(f"{file.name}: belongs to another run; bring the answer to file {pending.header.sequence}")
    if header.answers != pending.sha256:
        raise CourierError(
            f"{file.name}: answers file {header.sequence}, or another version of it, but file "
            f"{pending.header.sequence} is on its way; bring the answer to that one"
        )
    parcel = unpack(content)
    _check_reply(desk, parcel, file.name)
    return parcel


def clear(desk: CourierDesk) -> None:
    """Forget the file on its way."""
    sequence = read_envelope((desk.state / PENDING_FILE).read_bytes(), PENDING_FILE).header.sequence
    (desk.out / f"{desk.site}-{sequence:06d}.courier").unlink(missing_ok=True)
    (desk.state / PENDING_FILE).unlink()
    (desk.state / PENDING_MESSAGE_FILE).unlink(missing_ok=True)


def parcel_of(message: Message, tree: ObjectTree, objects: dict[str, bytes], run: Run, fab: Fab) -> Parcel:
    """What the site's node needs to answer a message, as bytes."""
    return Parcel(
        message=message_to_proto(message).SerializeToString(),
        tree=tree.SerializeToString(),
        objects=objects,
        run=run_to_proto(run).SerializeToString(),
        app=fab_to_proto(fab).SerializeToString(),
    )


def short_wait(run: Run) -> str | None:
    """A warning where the run does not wait long enough for a courier."""
    try:
        experiment = parse_experiment(str(run.override_config.get(protocol.EXPERIMENT, "")), source="the run")
    except ConfigError:
        return None  # an app that is not ours
    if experiment.federation.timeout_s >= SHORTEST_WAIT_S:
        return None
    return (
        f"Warning: the run waits {experiment.federation.timeout_s:g} s for an answer and then goes on without it; "
        f"for a courier set federation.timeout_s to {SHORTEST_WAIT_S:g} (a day) or more"
    )


@contextmanager
def alone(desk: CourierDesk) -> Iterator[None]:
    """One courier a site at a time."""
    desk.state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(desk.state / ".lock", blocking=False)
    try:
        with lock:
            yield
    except Timeout:
        raise CourierError(f"another courier for {desk.site} is running on this machine; use that one") from None


def _take_message(connection: Connection, desk: CourierDesk, say: Callable[[str], None]) -> bool:
    """Write the server's next message as a file: whether there was one."""
    _, receive, _, get_run, get_fab, pull_object, _, confirm = connection
    try:
        received = receive()
        if received is None:
            return False
        message, tree = received
        number = message.metadata.run_id
        run = get_run(number)
        fab = get_fab(run.fab_hash, number)
        names = [each.object_id for each in iterate_object_tree(tree)]
        objects = pull_objects(names, pull_object_fn=lambda name: pull_object(number, name))
        write_out(desk, parcel_of(message, tree, objects, run, fab), number)
        if warning := short_wait(run):
            say(warning)
        confirm(number, message.metadata.message_id)
    except RunNotRunningException:
        return (desk.state / PENDING_FILE).exists()
    return True


def _wait(
    desk: CourierDesk, get_run: Callable[[int], Run], say: Callable[[str], None], refused: set[str], poll_s: float
) -> tuple[Path, Parcel] | None:
    """The site's answer and its file; None when nobody waits for it any more."""
    message = message_from_proto(ProtoMessage.FromString((desk.state / PENDING_MESSAGE_FILE).read_bytes()))
    pending = read_envelope((desk.state / PENDING_FILE).read_bytes(), PENDING_FILE).header
    checked = time.monotonic()
    while True:
        for file in sorted(each for each in desk.arrivals.iterdir() if each.is_file() and each.name[0] != "."):
            try:
                return file, read_answer(desk, file)
            except CourierError as refusal:
                if str(refusal) not in refused:
                    refused.add(str(refusal))
                    say(f"Not used: {refusal}")
                    append(
                        desk.audit, _noted(desk, "refused", pending.run, pending.sequence, 0) | {"reason": str(refusal)}
                    )
        if message.metadata.created_at + message.metadata.ttl < datetime.now(UTC).timestamp():
            _given_up(desk, say, pending, "the run waited for it as long as it could")
            return None
        if time.monotonic() - checked > RUN_CHECK_S:
            checked = time.monotonic()
            if not _is_running(get_run, pending.run):
                _given_up(desk, say, pending, "its run has ended")
                return None
        time.sleep(poll_s)


def _given_up(desk: CourierDesk, say: Callable[[str], None], pending: Header, why: str) -> None:
    say(f"File {pending.sequence} is of no use any more: {why}")
    append(desk.audit, _noted(desk, "given up", pending.run, pending.sequence, 0) | {"reason": why})


def _is_running(get_run: Callable[[int], Run], run: int) -> bool:
    try:
        return get_run(run).status.status != "finished"
    except RunNotRunningException:
        return False


def _send_on(
    desk: CourierDesk,
    answer: Parcel,
    send: Callable[[Message, ObjectTree, float], tuple[set[str], str]],
    push_object: Callable[[int, str, str, bytes], None],
    say: Callable[[str], None],
) -> None:
    """Hand an answer to the server, as the node itself would have."""
    pending = read_envelope((desk.state / PENDING_FILE).read_bytes(), PENDING_FILE).header
    message = message_from_proto(ProtoMessage.FromString(answer.message))
    tree = ObjectTree.FromString(answer.tree)
    run = message.metadata.run_id
    try:
        wanted, session = send(message, tree, answer.seconds)
        push_object_contents_from_iterable(
            ((name, content) for name, content in answer.objects.items() if name in wanted),
            push_object_fn=lambda name, content: push_object(run, session, name, content),
        )
    except RunNotRunningException:
        _given_up(desk, say, pending, "its run has ended")
        return
    say(f"The answer to file {pending.sequence} was sent on")
    append(desk.audit, _noted(desk, "answer sent on", run, pending.sequence, sum(map(len, answer.objects.values()))))


def _check_reply(desk: CourierDesk, answer: Parcel, name: str) -> None:
    """Make sure that an answer speaks for nobody else."""
    asked = message_from_proto(ProtoMessage.FromString((desk.state / PENDING_MESSAGE_FILE).read_bytes())).metadata
    no_answer = CourierError(f"{name}: holds no answer to the message that was sent; ask the site {desk.site} again")
    try:
        said = message_from_proto(ProtoMessage.FromString(answer.message)).metadata
        tree = ObjectTree.FromString(answer.tree)
    except Exception:  # whatever the site put there: Flower's reading raises all kinds, and must not end the courier
        raise no_answer from None
    if (said.run_id, said.reply_to_message_id, said.src_node_id, said.message_type) != (
        asked.run_id,
        asked.message_id,
        asked.dst_node_id,
        asked.message_type,
    ) or {each.object_id for each in iterate_object_tree(tree)} != set(answer.objects):
        raise no_answer


def _noted(desk: CourierDesk, what: str, run: int, sequence: int, size: int) -> dict[str, Any]:
    return {"courier": what, "site": desk.site, "run": run, "sequence": sequence, "bytes": size}
