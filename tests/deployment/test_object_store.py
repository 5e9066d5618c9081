"""A site's claims on what a message consists of neither stop the server's messages nor keep the store busy."""

import hashlib
import itertools

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from server.deploy.object_store import DEEPEST, ObjectStore

RUN = 1


@pytest.fixture
def store(tmp_path):
    store = ObjectStore(str(tmp_path / "objects.db"))
    store.initialize()
    return store


def message(number):
    """Of rounds with the same weights."""
    weights = ArrayRecord({"weights": Array(np.arange(4, dtype="float32"))})
    return RecordDict({"config": ConfigRecord({"server-round": number}), "arrays": weights})


def name(text):
    return hashlib.sha256(text.encode()).hexdigest()


def claim(store, *names):
    """That each of the names consists of the next."""
    tree = ObjectTree(object_id=names[-1])
    for parent in reversed(names[:-1]):
        tree = ObjectTree(object_id=parent, children=[tree])
    return store.preregister(RUN, tree)


def upload(store, content):
    wanted = store.preregister(RUN, get_object_tree(content))
    for part, value in get_all_nested_objects(content).items():
        if part in wanted:
            store.put(part, value.deflate())


def download(store, content):
    parts = [part.object_id for part in iterate_object_tree(store.get_object_tree(content.object_id))]
    return inflate_object_from_contents(content.object_id, {part: store.get(part) for part in parts})


@pytest.mark.parametrize("part", ["weights", "arrays"])
@pytest.mark.parametrize("when", ["before", "while it is sent"])
def test_a_false_claim_on_the_servers_next_message_changes_nothing(store, part, when):
    upload(store, message(1))
    store.delete(message(1).object_id)
    assert len(store) == 0
    wrong = message(1)["arrays"] if part == "arrays" else message(1)["arrays"]["weights"]
    if when == "before":
        claim(store, name("answer"), wrong.object_id, name("nothing"))
        upload(store, message(2))
    else:
        store.preregister(RUN, get_object_tree(message(2)))
        claim(store, wrong.object_id, name("nothing"))
        for each, value in get_all_nested_objects(message(2)).items():
            store.put(each, value.deflate())
    assert download(store, message(2)).object_id == message(2).object_id


def test_two_messages_share_parts_until_both_are_gone(store):
    upload(store, message(1))
    assert store.preregister(RUN, get_object_tree(message(1))) == []
    upload(store, message(2))
    store.delete(message(1).object_id)
    assert download(store, message(2)).object_id == message(2).object_id
    store.delete(message(2).object_id)
    assert len(store) == 0


def test_a_circle_ends(store):
    """A part's content names one that is claimed to consist of it."""
    content = f"ConfigRecord {name('other')} 2".encode() + b"\0{}"
    part = get_object_id(content)
    claim(store, name("other"), part)
    store.put(part, content)
    names = [each.object_id for each in iterate_object_tree(store.get_object_tree(part))]
    assert names == [part, name("other"), part]
    store.delete(part)
    store.delete_objects_in_run(RUN)


def test_claims_without_end_end(store):
    steps = [name(str(step)) for step in range(2000)]
    for parent, child in itertools.pairwise(steps):
        claim(store, parent, child)
    assert len(list(iterate_object_tree(store.get_object_tree(steps[0])))) == DEEPEST + 1
    store.delete(steps[0])
    assert len(store) == 0


def test_a_part_that_comes_often_is_said_once(store):
    """Two parts at each level that consist of both of the next would be two to the power of the levels."""
    levels = 15
    for level in range(levels):
        for side in "ab":
            children = [ObjectTree(object_id=name(f"{level + 1}{each}")) for each in "ab"]
            store.preregister(RUN, ObjectTree(object_id=name(f"{level}{side}"), children=children))
    assert len(list(iterate_object_tree(store.get_object_tree(name("0a"))))) < 4 * levels
