"""An app, and a server that is a tuple of functions."""

import hashlib
import io
import zipfile
from pathlib import Path

from flwr.app import Message
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode import start_client_internal as flower_node
from flwr.supernode.nodestate import NodeStateFactory

from client.node.gate import Gate
from client.node.settings import read_settings
from stsmm_core.config import parse_experiment, to_toml

EXPERIMENT = 'model.kind = "cox"\ndata.modalities = ["clinical"]\nevaluation.bootstrap_replicates = 100\n'


def make_app(extra: str = "", component: str = "client.app:app", also: str = "") -> bytes:
    """A small app bundle; `also` names a further file."""
    files = {
        "pyproject.toml": (
            '[project]\nname = "stsmm"\nversion = "0.1.0"\n[tool.flwr.app]\npublisher = "stsmm"\n'
            f'[tool.flwr.app.components]\nserverapp = "server.app:app"\nclientapp = "{component}"\n'
            '[tool.flwr.app.config]\nexperiment = ""\nsites = 1\nrun = ""\n'
        ),
        "client/app.py": f"# the app\n{extra}",
    }
    if also:
        files[also] = ""
    listed = [f"{name},{hashlib.sha256(text.encode()).hexdigest()},1" for name, text in files.items()]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in (files | {".info/CONTENT": "\n".join(listed)}).items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


def write_site(kit: Path, text: str) -> None:
    (kit / "site.toml").write_text(text)


class Server:
    """What the gate connects to; keeps what reaches it."""

    def __init__(self, fab: bytes, experiment: str = EXPERIMENT, **run) -> None:
        self.sent: list[Message] = []
        self.waiting: list[Message] = []
        self.confirmed_whole: list[bool] = []
        code = hashlib.sha256(fab).hexdigest()
        self.fab = Fab(code, fab, {"valid_license": "Valid"})
        self.run = Run.create_empty(7)
        self.run.fab_id, self.run.fab_version, self.run.fab_hash = "stsmm/stsmm", "0.1.0", code
        experiment = to_toml(parse_experiment(experiment, source="test"))
        self.run.override_config = {"experiment": experiment, "sites": 1, "run": "demo"}
        for name, value in run.items():
            setattr(self.run, name, value)
        self._contents: dict[str, bytes] = {}

    def ask(self, message: Message) -> None:
        message.metadata.__dict__.update(_run_id=7, _dst_node_id=5, _src_node_id=1)
        message.metadata.__dict__["_message_id"] = message.object_id
        self.waiting.append(message)

    def connection(self):
        def receive():
            if not self.waiting:
                return None
            message = self.waiting.pop()
            self._pulled: set[str] = set()
            self._contents = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
            return message, get_object_tree(message)

        def send(message, tree, seconds):
            self._root, self._parts = tree.object_id, {}
            self._expected = {part.object_id for part in flower_node.iterate_object_tree(tree)}
            return set(self._expected), "session"

        def pull(run_id, key):
            self._pulled.add(key)
            return self._contents[key]

        def confirm(run_id, key):
            self.confirmed_whole.append(self._pulled == set(self._contents))

        def push(run_id, session, key, content):
            assert (run_id, session) == (7, "session")
            self._parts[key] = content
            if set(self._parts) == self._expected:
                self.sent.append(inflate_object_from_contents(self._root, self._parts))

        return (
            5,
            receive,
            send,
            lambda run_id: self.run,
            lambda code, run_id: self.fab,
            pull,
            push,
            confirm,
        )


class Node:
    """Flower's own loop, a step at a time, with a function in the app's place."""

    def __init__(self, kit: Path, server: Server) -> None:
        self.store = ObjectStoreFactory()
        self.state = NodeStateFactory(objectstore_factory=self.store).state()
        self.state.set_node_id(5)
        self.gate = Gate(kit, read_settings(kit))
        self.connection = self.gate(server.connection())
        self.started = 0

    def turn(self, app) -> None:
        """Receive a message, let the app answer it, send the answer."""
        _, receive, send, get_run, get_fab, pull, push, confirm = self.connection
        run_id = flower_node._pull_and_store_message(
            self.state, self.store.store(), {}, receive, get_run, get_fab, pull, confirm, None
        )
        if run_id is None:
            return
        self.started += 1
        (message,) = self.state.get_messages_legacy(run_ids=[7], is_reply=False)
        whole = inflate_object_from_contents(
            message.metadata.message_id,
            {key: self.store.store().get(key) for key in ids(self.store.store(), message.metadata.message_id)},
        )
        whole.metadata.__dict__["_message_id"] = message.metadata.message_id
        flower_node._insert_message(app(whole), self.state, self.store.store())
        flower_node._push_messages(self.state, self.store.store(), send, push)


def ids(store, root):
    return [tree.object_id for tree in flower_node.iterate_object_tree(store.get_object_tree(root))]
