"""Flower's own node works on a courier file, with the app in a process of its own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from courier_ends import message_in, wrapped
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run

from server.deploy.courier import parcel_of
from stsmm_core.courier.parcel import Parcel, pack, unpack

APP = """
from flwr.app import ConfigRecord, MetricRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    times = context.state.get("times", ConfigRecord({"n": 0}))
    times["n"] += 1
    context.state["times"] = times
    content = RecordDict({
        "metrics": MetricRecord({"times": times["n"], "round": message.content["config"]["round"]}),
        "config": ConfigRecord({"site": context.node_config["site"], "run": context.run_config["name"]}),
    })
    return Message(content=content, reply_to=message)
"""
PROJECT = """
[project]
name = "counting"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "test"
[tool.flwr.app.components]
serverapp = "counting.client:app"
clientapp = "counting.client:app"
[tool.flwr.app.config]
name = "none"
"""
NODE = """
import sys
from pathlib import Path
from client.node.courier_node import work_on
from stsmm_core.courier.parcel import pack, unpack

parcel, answer, contexts, seen = map(Path, sys.argv[1:])

def gate(connection):
    seen.write_text("the gate was passed")
    return connection

done = work_on(unpack(parcel.read_bytes()), gate=gate, node_config={"site": "leiden"}, contexts=contexts)
answer.write_bytes(pack(done))
"""


@pytest.mark.slow
def test_the_node_answers_and_what_the_app_stored_survives(tmp_path):
    app = tmp_path / "app"
    (app / "counting").mkdir(parents=True)
    (app / "counting" / "__init__.py").touch()
    (app / "counting" / "client.py").write_text(APP)
    (app / "pyproject.toml").write_text(PROJECT)
    fab = build_fab_from_disk(app)
    for number in (1, 2):
        parcel, asked = question(number, fab)
        answer = work(parcel, tmp_path)
        said = message_in(answer)
        assert not said.has_error(), said.error
        assert dict(said.content["metrics"]) == {"times": number, "round": number}
        assert said.content["config"]["site"] == "leiden"
        assert said.content["config"]["run"] == "first"
        assert said.metadata.reply_to_message_id == asked
        assert answer.seconds > 0
        (tmp_path / "seen").unlink()  # the gate was passed


def question(number: int, fab: bytes) -> tuple[Parcel, str]:
    """A message of round `number` and its id, as the server hands it to a node."""
    message = Message(RecordDict({"config": ConfigRecord({"round": number})}), message_type="train", dst_node_id=7)
    message.metadata.__dict__["_message_id"] = message.object_id
    digest = hashlib.sha256(fab).hexdigest()
    run = Run.create_empty(1)
    run.fab_id, run.fab_version, run.fab_hash, run.series_id = "test/counting", "1.0.0", digest, 5
    run.override_config = {"name": "first"}
    return parcel_of(*wrapped(message), run, Fab(digest, fab, {})), message.metadata.message_id


def work(parcel: Parcel, folder: Path) -> Parcel:
    (folder / "parcel").write_bytes(pack(parcel))
    (folder / "node.py").write_text(NODE)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HOME": str(folder),
        "FLWR_HOME": str(folder / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
    }
    files = [str(folder / name) for name in ("parcel", "answer", "contexts", "seen")]
    log = folder / "node.log"  # not a pipe: Flower's helper process holds it open until this one is waited for
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "node.py", *files], cwd=folder, env=environment, stdout=output, stderr=output, timeout=120
        )
    assert done.returncode == 0, log.read_text()
    return unpack((folder / "answer").read_bytes())
