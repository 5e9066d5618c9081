"""A connection of Flower's node that is one courier file instead of a socket."""

from collections.abc import Iterator
from contextlib import contextmanager

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import fab_from_proto, message_from_proto, message_to_proto, run_from_proto
from flwr.proto.fab_pb2 import Fab as ProtoFab
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.run_pb2 import Run as ProtoRun
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

from client.node.gate import Connection
from stsmm_core.courier.parcel import CourierError, Parcel


class AnsweredError(Exception):
    """The node has answered the only message there is; the way to end its loop."""

    def __init__(self, answer: Parcel) -> None:
        super().__init__()
        self.answer = answer


@contextmanager
def courier_connection(parcel: Parcel) -> Iterator[Connection]:
    """Deliver the message of a parcel, then collect the answer.

    Raises:
        AnsweredError: with the answer, when the node asks for the next message.
        CourierError: when it does so without an answer.
    """
    message = message_from_proto(ProtoMessage.FromString(parcel.message))
    run = run_from_proto(ProtoRun.FromString(parcel.run))
    fab = fab_from_proto(ProtoFab.FromString(parcel.app))
    delivered: list[Message] = []
    answers: list[tuple[bytes, bytes, float]] = []
    objects: dict[str, bytes] = {}

    def receive() -> tuple[Message, ObjectTree] | None:
        if not delivered:
            delivered.append(message)
            return message, ObjectTree.FromString(parcel.tree)
        if not answers:
            raise CourierError("the node could not work on the message; its log says why")
        text, tree, seconds = answers[0]
        raise AnsweredError(Parcel(text, tree, objects, seconds=seconds))

    def send(reply: Message, tree: ObjectTree, seconds: float) -> tuple[set[str], str]:
        if reply.has_content():
            reply = remove_content_from_message(reply)
        answers.append((message_to_proto(reply).SerializeToString(), tree.SerializeToString(), max(seconds, 0.0)))
        return {each.object_id for each in iterate_object_tree(tree)}, ""

    def push_object(_run: int, _session: str, name: str, content: bytes) -> None:
        objects[name] = content

    yield (
        message.metadata.dst_node_id,
        receive,
        send,
        lambda _run: run,
        lambda _digest, _run: fab,
        lambda _run, name: parcel.objects[name],
        push_object,
        lambda _run, _name: None,
    )
