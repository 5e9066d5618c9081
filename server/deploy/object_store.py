"""Flower's store of message parts, in which what a part consists of is a fact and no claim.

The name of a part is the hash of its content, the same for everybody, and Flower believes who registers it first on
what it consists of. A site knows the names in the server's next message, which carries the weights that it was sent:
with a wrong claim it could end the run for everybody.
"""

from typing import Any, cast

from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_object_children_ids_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.object_store.object_store import NoObjectInStoreError
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.objectstore_models import ObjectChild, StoredObject
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

DEEPEST = 20
"""Parts within parts; a message has 5 of them: message, records, record, array, chunk."""


class ObjectStore(SqlObjectStore):
    """Takes the last claim until the content is there, and then the content's own word.

    Claims may go in circles; where Flower follows them for ever, this store visits each part once.
    """

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """As Flower's, but an earlier claim on a part whose content has not come does not stand in the way."""
        with self._mutation_session() as session:
            for part in iterate_object_tree(object_tree):
                available = select(StoredObject.is_available).where(StoredObject.object_id == part.object_id)
                if session.scalar(available) == 1:
                    continue
                new = cast(Any, self.dialect_insert(StoredObject)).values(
                    object_id=part.object_id, content=b"", is_available=0, ref_count=0
                )
                session.execute(new.on_conflict_do_nothing(index_elements=[StoredObject.object_id]))
                _link(session, part.object_id, {child.object_id for child in part.children})
            return super().preregister(run_id, object_tree)

    def put(self, object_id: str, object_content: bytes) -> None:
        """As Flower's, which checks the content against its name."""
        with self._mutation_session() as session:
            super().put(object_id, object_content)
            _link(session, object_id, set(get_object_children_ids_from_object_content(object_content)))

    def get_object_tree(self, object_id: str) -> ObjectTree:
        """As Flower's, but what a part consists of is said once, however often it comes."""
        with self.session() as session:
            if session.scalar(select(StoredObject.object_id).where(StoredObject.object_id == object_id)) is None:
                raise NoObjectInStoreError(f"Object {object_id} was not pre-registered.")
            return _tree(session, object_id, set(), DEEPEST)

    def delete(self, object_id: str) -> None:
        """As Flower's, but however deep it goes."""
        with self._mutation_session() as session:
            waiting = [object_id]
            while waiting:
                part = waiting.pop()
                unused = StoredObject.object_id == part, StoredObject.ref_count == 0
                if session.scalar(select(StoredObject.object_id).where(*unused)) is not None:
                    waiting += _children(session, part)
                    _link(session, part, set())
                    session.execute(delete(StoredObject).where(*unused))


def _children(session: Session, parent: str) -> set[str]:
    return set(session.scalars(select(ObjectChild.child_id).where(ObjectChild.parent_id == parent)))


def _link(session: Session, parent: str, children: set[str]) -> None:
    """Let a part consist of these."""
    linked = _children(session, parent)
    for child in linked - children:
        session.execute(delete(ObjectChild).where(ObjectChild.parent_id == parent, ObjectChild.child_id == child))
    for child in children - linked:
        session.execute(insert(ObjectChild).values(parent_id=parent, child_id=child))
    for changed, by in ((linked - children, -1), (children - linked, 1)):
        counted = update(StoredObject).where(StoredObject.object_id.in_(changed))
        session.execute(counted.values(ref_count=StoredObject.ref_count + by))


def _tree(session: Session, part: str, seen: set[str], depth: int) -> ObjectTree:
    if part in seen or depth == 0:
        return ObjectTree(object_id=part)
    seen.add(part)
    children = sorted(_children(session, part))
    return ObjectTree(object_id=part, children=[_tree(session, child, seen, depth - 1) for child in children])
