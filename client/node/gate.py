"""The site's gate: stands between Flower's node and its connection to the server, outside the app's code.

A message reaches the app only for a run that the site admits; an answer leaves only if the table of `outgoing` lists
all of it, written anew and noted in the audit log first. Whatever goes wrong here, nothing passes.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import metadata_from_proto, metadata_to_proto
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.run import Run
from google.protobuf.json_format import MessageToJson, Parse

from client.node.admission import Admitted, NotAdmittedError, admit
from client.node.ledger import IN_HAND, LOST, Ledger
from client.node.outgoing import MESSAGES
from client.node.outgoing_check import (
    HeldBackError,
    Question,
    SiteLimits,
    check_answer,
    describe_answer,
    read_question,
)
from client.node.settings import SiteSettings, cohort_folder, read_settings, state_folder, write_site_file
from stsmm_core import protocol
from stsmm_core.audit.chain import append
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.kit import AUDIT_LOG_FILE, FLOWER_FOLDER, SiteKit, read_kit
from stsmm_core.protocol import refusals
from stsmm_core.protocol.parts import bounded, check_part
from stsmm_core.run_folder import software_versions

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
"""As Flower's node has it: node id, receive, send, get_run, get_fab, pull_object, push_object, confirm."""

log = logging.getLogger("flwr.stsmm.gate")
WAITS_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Before each new try where the server has trouble; together shorter than a round's usual time-out."""
LONGEST_PULL_S = 300.0
"""A server that has not all of a message by then will not have it."""
LEAST_FREE_BYTES = 20_000_000
"""With less on the state's disk nothing begins: neither app nor audit log could be written to the end."""
_ERRORS = {
    ErrorCode.UNKNOWN: "an error",
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "the site could not load the app",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "the app failed at the site",
    ErrorCode.INVALID_FAB: "the app's signatures are not those that the site trusts",
    ErrorCode.CLIENT_APP_CRASHED: "the app stopped at the site",
}
"""The text that goes out with each of Flower's error codes; the app's own text stays."""


@dataclass(eq=False)
class _InHand:
    """A message that was let in and waits for its answer."""

    message: Message
    admitted: Admitted
    question: Question
    limits: SiteLimits
    contents: dict[str, bytes]


@dataclass(eq=False)
class _Leaving:
    """An answer of the app whose parts come in one by one."""

    message: Message
    root: str
    waiting: set[str]
    seconds: float
    contents: dict[str, bytes] = field(default_factory=dict)


class Gate:
    """Wraps a connection; one a kit."""

    def __init__(self, kit: Path, settings: SiteSettings, *, stop_asked: Callable[[], None] = lambda: None) -> None:
        self._kit, self._settings, self._stop_asked = kit, settings, stop_asked
        self._ledger = Ledger(kit)
        self._audit = state_folder(kit) / AUDIT_LOG_FILE
        self._site = read_kit(kit, SiteKit).site
        self._runs: dict[int, tuple[Run, Fab]] = {}
        self._in_hand: dict[str, _InHand] = {}
        self._leaving: dict[str, _Leaving] = {}
        self._lock = threading.Lock()

    def __call__(self, connection: Connection) -> Connection:
        """The connection as the node may use it."""
        node_id, self._receive, self._send, self._get_run, self._get_fab, self._pull, self._push, self._confirm = (
            connection
        )
        return (
            node_id,
            self.receive,
            self.send,
            lambda run_id: self._runs[run_id][0],
            lambda _hash, run_id: self._runs[run_id][1],
            self.pull_object,
            self.push_object,
            self.confirm,
        )

    def give_up_lost(self) -> None:
        """Say that a message, over which the node was ended, has no answer: the round would wait for it."""
        try:
            lost = self._ledger.noted(LOST)
            if lost is None:
                return
            self._ledger.note(LOST, None)
            message = make_message(metadata_from_proto(Parse(lost["metadata"], ProtoMetadata())), RecordDict())
            self._transmit(_refusal(message, refusals.INTERRUPTED), 0.0)
            self._note_refusal({key: lost[key] for key in ("run", "message", "code")}, refusals.INTERRUPTED)
        except Exception as error:
            log.error("The message in hand at the last end could not be given up (%s)", type(error).__name__)

    def receive(self) -> tuple[Message, ObjectTree] | None:
        """A message that the app may see; any other is answered here."""
        self._stop_asked()
        received = self._receive()
        self._note("contact", {})
        if received is None:
            return None
        message, tree = received
        try:
            hand = self._let_in(message, tree)
        except NotAdmittedError as refusal:
            self._refuse(message, tree, str(refusal))
        except Exception as error:
            # A fault of the cohort names its patients: this log may go into a support bundle.
            log.error("The gate could not judge a message (%s); stsmm site check says more", type(error).__name__)
            self._refuse(message, tree, refusals.GATE_FAILED)
        else:
            self._in_hand = {message.metadata.message_id: hand}
            self._note(IN_HAND, _describe_hand(hand))
            return received
        return None

    def pull_object(self, run_id: int, object_id: str) -> bytes:
        """A part of the message in hand, as the gate read it."""
        for hand in self._in_hand.values():
            if hand.message.metadata.run_id == run_id and object_id in hand.contents:
                return hand.contents[object_id]
        raise HeldBackError("the node asked for a part of a message that the gate did not let in")

    def confirm(self, run_id: int, message_id: str) -> None:
        """The node has the whole message."""
        self._confirm(run_id, message_id)
        if message_id in self._in_hand:
            self._in_hand[message_id].contents.clear()

    def send(self, message: Message, tree: ObjectTree, seconds: float) -> tuple[set[str], str]:
        """Ask the node for every part of an answer; nothing leaves before the last has come and was checked."""
        parts = {part.object_id for part in iterate_object_tree(tree)}
        session = f"gate-{tree.object_id}"
        with self._lock:
            self._leaving = {session: _Leaving(message, tree.object_id, parts, seconds)}
        return parts, session

    def push_object(self, run_id: int, session: str, object_id: str, content: bytes) -> None:
        """Take a part of an answer; with the last one the answer is checked and sent."""
        with self._lock:
            leaving = self._leaving.get(session)
            if leaving is None or object_id not in leaving.waiting or leaving.message.metadata.run_id != run_id:
                raise HeldBackError("the node pushed a part of no answer")
            check_part(content)
            leaving.waiting.remove(object_id)
            leaving.contents[object_id] = content
            if leaving.waiting:
                return
            del self._leaving[session]
            hand = self._in_hand.pop(leaving.message.metadata.reply_to_message_id, None)
        if hand is None:
            raise HeldBackError("an answer to no message in hand")
        self._answer(hand, leaving)

    def _let_in(self, message: Message, tree: ObjectTree) -> _InHand:
        metadata = message.metadata
        if metadata.message_type not in MESSAGES:
            raise NotAdmittedError(refusals.UNKNOWN_MESSAGE)
        if shutil.disk_usage(state_folder(self._kit)).free < LEAST_FREE_BYTES:
            raise NotAdmittedError(refusals.NO_SPACE)
        # What the site decides holds from the next message on, in the gate and in the app.
        self._settings = read_settings(self._kit)
        write_site_file(self._kit, self._settings)
        run, fab = self._run(metadata.run_id)
        try:
            admitted = admit(run, fab, kit=self._kit, ledger=self._ledger, policy=self._settings.policy)
        except NotAdmittedError as refusal:
            self._ledger.note_run(run.run_id, "", run.fab_hash, "", str(refusal))
            raise
        self._ledger.note_run(run.run_id, admitted.name, admitted.code, admitted.config, "admitted")
        contents = self._parts(run.run_id, tree)
        whole = inflate_object_from_contents(tree.object_id, contents, keep_object_contents=True)
        if not isinstance(whole, Message) or whole.metadata.message_type != metadata.message_type:
            raise NotAdmittedError(refusals.UNKNOWN_MESSAGE)
        question = read_question(metadata.message_type, whole.content)
        limits = self._limits(run)
        if metadata.message_type == "train":
            self._count_round(admitted, question)
        # An app is installed once and then used as it lies there: what lies there must be what was judged.
        shutil.rmtree(state_folder(self._kit) / FLOWER_FOLDER / "apps", ignore_errors=True)
        return _InHand(message, admitted, question, limits, contents)

    def _parts(self, run_id: int, tree: ObjectTree) -> dict[str, bytes]:
        """All parts of a message, once the server has them."""
        ids = [part.object_id for part in iterate_object_tree(tree)]
        pull = bounded(partial(self._pull, run_id))
        return pull_objects(list(dict.fromkeys(ids)), pull, max_time=LONGEST_PULL_S)

    def _run(self, run_id: int) -> tuple[Run, Fab]:
        """A run as it was first told: Flower's node keeps that too, and what is judged must be what runs."""
        if run_id not in self._runs:
            run = self._get_run(run_id)
            if run.series_id and any(known.series_id == run.series_id for known, _ in self._runs.values()):
                # Flower keeps an app's state, and its configuration, by series.
                raise NotAdmittedError(refusals.BAD_CONFIGURATION)
            self._runs[run_id] = run, self._get_fab(run.fab_hash, run_id)
        return self._runs[run_id]

    def _limits(self, run: Run) -> SiteLimits:
        cohort = load_cohort(cohort_folder(self._kit, self._settings))
        versions = frozenset({software_versions()["stsmm"], run.fab_version})
        return SiteLimits(
            self._site, len(cohort.patients), cohort.manifest.channels, self._settings.min_cell_size, versions
        )

    def _count_round(self, admitted: Admitted, question: Question) -> None:
        if question.fold is None or question.round is None:
            raise NotAdmittedError(refusals.BAD_CONFIGURATION)
        limit = self._settings.policy.rounds_a_day
        if not self._ledger.serve_round(admitted.name, question.fold, question.round, limit=limit):
            raise NotAdmittedError(refusals.ROUNDS_A_DAY)

    def _answer(self, hand: _InHand, leaving: _Leaving) -> None:
        event = {
            "run": hand.admitted.name,
            "message": hand.question.message,
            "fold": hand.question.fold,
            "round": hand.question.round,
            "code": hand.admitted.code,
            "config": hand.admitted.config,
        }
        try:
            reply, what = self._checked(hand, leaving)
            size = sum(len(part.deflate()) for part in get_all_nested_objects(reply).values())
            append(self._audit, event | what | {"bytes": size})
        except Exception as error:
            # Nothing of an unforeseen error's text is known to be free of patients: its kind alone is logged.
            said = str(error) if isinstance(error, HeldBackError) else type(error).__name__
            log.error("The gate held an answer to '%s' back: %s", hand.question.message, said)
            reply = _refusal(hand.message, refusals.HELD_BACK)
            self._note_refusal(event, refusals.HELD_BACK, said)
        try:
            self._transmit(reply, leaving.seconds)
        finally:
            self._note(IN_HAND, None)
        self._note("last message", {"run": hand.admitted.name, "message": hand.question.message})

    def _checked(self, hand: _InHand, leaving: _Leaving) -> tuple[Message, dict[str, Any]]:
        """The answer to send, and what the audit log says of it."""
        answer = inflate_object_from_contents(leaving.root, leaving.contents)
        if not isinstance(answer, Message):
            raise HeldBackError("the answer is no message")
        if answer.has_error():
            code = answer.error.code if answer.error.code in _ERRORS else ErrorCode.UNKNOWN
            return Message(Error(code, _ERRORS[code]), reply_to=hand.message), {"event": "error", "error": code}
        _check_metadata(answer, hand.message)
        content = check_answer(answer.content, hand.question, hand.admitted.experiment, hand.limits)
        if protocol.REFUSAL in content:
            reason = str(content.config_records[protocol.REFUSAL]["reason"])
            what: dict[str, Any] = {"event": "refused by the app", "reason": reason}
        else:
            what = {"event": "sent", "fields": describe_answer(content)}
        return Message(content, reply_to=hand.message), what

    def _refuse(self, message: Message, tree: ObjectTree, sentence: str) -> None:
        kind = message.metadata.message_type
        log.warning("Refused a message '%s' of run %s: %s", kind, message.metadata.run_id, sentence)
        run = self._runs.get(message.metadata.run_id)
        code = run[0].fab_hash if run else ""
        known = kind if kind in MESSAGES else "unknown"
        self._note_refusal({"run": str(message.metadata.run_id), "message": known, "code": code}, sentence)
        try:
            # The server may still be taking in parts that other sites' messages share: what is confirmed before all
            # of them are there is thrown away under its hands, and that ends the run for everybody.
            self._parts(message.metadata.run_id, tree)
            self._transmit(_refusal(message, sentence), 0.0)
            self._confirm(message.metadata.run_id, message.metadata.message_id)
        except Exception as error:
            log.error("A refusal could not be sent (%s); the server will wait for its time-out", type(error).__name__)

    def _transmit(self, reply: Message, seconds: float) -> None:
        reply.metadata.__dict__["_message_id"] = reply.object_id
        tree = get_object_tree(reply)
        wanted, session = _patiently(self._send, reply, tree, seconds)
        push = partial(_patiently, self._push, reply.metadata.run_id, session)
        push_objects(get_all_nested_objects(reply), push, object_ids_to_push=wanted)

    def _note_refusal(self, event: dict[str, Any], sentence: str, detail: str = "") -> None:
        """A refusal tells nothing, and goes out even where it cannot be noted."""
        try:
            append(self._audit, {"event": "refused"} | event | {"reason": sentence, "detail": detail})
        except Exception as error:
            log.error("The audit log could not be written: %s", error)
        self._note("last refusal", {"reason": sentence, "detail": detail})

    def _note(self, key: str, value: dict[str, Any] | None) -> None:
        try:
            self._ledger.note(key, value)
        except Exception as error:
            log.error("%s", error)


def _patiently(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call the server, again and again where it has trouble of its own: the work behind an answer is not done twice."""
    for wait in WAITS_S:
        try:
            return call(*arguments)
        except (httpx.HTTPStatusError, ObjectPushError) as error:
            if isinstance(error, httpx.HTTPStatusError) and not error.response.is_server_error:
                raise
            log.warning("The server has trouble (%s); once more in %.0f s", type(error).__name__, wait)
            time.sleep(wait)
    return call(*arguments)


def _check_metadata(answer: Message, question: Message) -> None:
    """An answer's metadata must follow from the question's; the answer that leaves gets its own anyway."""
    said, asked = answer.metadata, question.metadata
    if (said.group_id, said.message_type, said.reply_to_message_id, said.run_id) != (
        asked.group_id,
        asked.message_type,
        asked.message_id,
        asked.run_id,
    ):
        raise HeldBackError("the answer's metadata is not that of the question")


def _describe_hand(hand: _InHand) -> dict[str, str]:
    """For the ledger: what a later process needs to give the message up."""
    return {
        "run": hand.admitted.name,
        "message": hand.question.message,
        "code": hand.admitted.code,
        "metadata": MessageToJson(metadata_to_proto(hand.message.metadata)),
    }


def _refusal(message: Message, sentence: str) -> Message:
    return Message(RecordDict({protocol.REFUSAL: ConfigRecord({"reason": sentence})}), reply_to=message)
