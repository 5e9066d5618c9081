"""A consortium in one process: the real ServerApp code, strategy and ClientApp, without Ray, sockets or start-up."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from client.app import app as client_app
from client.site import Site, read_site
from server.app import main as server_main
from simulation import simulate
from simulation.partition import Equal
from simulation.simulate import virtual_centres, write_sites
from stsmm_core import protocol
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import Experiment, parse_experiment, to_toml
from stsmm_core.run_folder import CONFIG_FILE
from stsmm_core.training.inputs import open_cohorts

RUN_ID = 1
Deliver = Callable[[int, Message, Callable[[], Message]], Message | None]


class InProcessGrid(Grid):
    """Calls the ClientApp for each message; `deliver` may change what a node answers, or keep it back (None)."""

    def __init__(self, sites: int, run_config: dict[str, str | int], deliver: Deliver) -> None:
        self._contexts = {
            100 + number: Context(RUN_ID, 100 + number, {"partition-id": number}, RecordDict(), run_config)
            for number in range(sites)
        }
        self._deliver = deliver
        self._ids = itertools.count(1)
        self._replies: dict[str, Message] = {}

    def set_run(self, run):
        raise AssertionError("not used")

    @property
    def run(self):
        raise AssertionError("not used")

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        raise AssertionError("not used")

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        taken = []
        for message in messages:
            node = message.metadata.dst_node_id
            identity = str(next(self._ids))
            message.metadata.__dict__["_message_id"] = identity

            def answer(message: Message = message, node: int = node) -> Message:
                return client_app(message, self._contexts[node])

            reply = self._deliver(node - 100, message, answer)
            if reply is not None:  # nobody waits here for a node that is silent until the time is over
                self._replies[identity] = reply
                taken.append(identity)
        return taken

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        # Whoever is last to ask may be first to answer.
        return [self._replies.pop(identity) for identity in sorted(message_ids, key=int, reverse=True)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise AssertionError("not used")


@pytest.fixture(autouse=True)
def _identity(monkeypatch):
    monkeypatch.setattr(TaskIdentity, "_run_id", RUN_ID)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)


@pytest.fixture(scope="session")
def cohorts(tmp_path_factory) -> Path:
    """Three synthetic hospitals of 60 patients together."""
    out = tmp_path_factory.mktemp("consortium") / "cohorts"
    write_synthetic_cohorts(out, sites=3, patients=60, seed=3)
    return out


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Preprocessed images of all tests; keyed by content, so that a changed image is no danger."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def experiment() -> Experiment:
    """Two blending intervals of a small network."""
    return parse_experiment(
        """
        seed = 5
        imaging.shape = [16, 16, 16]
        model = { image_encoder = "small_densenet", norm = "group", dropout = 0.1 }
        training = { epochs = 4, batch_size = 16, risk_window = 32, learning_rate = 0.05 }
        blending.interval = 2
        evaluation.bootstrap_replicates = 100
        """,
        source="test",
    )


@pytest.fixture
def hospitals(monkeypatch):
    """Sites that withhold what speaks of fewer than five patients."""

    def read_as_hospital(path: Path) -> Site:
        return read_site(path).model_copy(update={"min_cell_size": 5, "share_risk_sets": True})

    monkeypatch.setattr("client.work.read_site", read_as_hospital)


@pytest.fixture
def federate(monkeypatch, cache):
    """Run the ServerApp over cohorts in this process."""

    def run(
        experiment: Experiment,
        cohorts: list[Path],
        out: Path,
        *,
        centres: int | None = None,
        deliver: Deliver = lambda site, message, answer: answer(),
    ) -> None:
        sites = write_sites(
            virtual_centres(open_cohorts(cohorts), centres and Equal(centres), seed=experiment.seed),
            out,
            cache=cache,
            experiment=experiment,
        )
        monkeypatch.setenv(protocol.SITES_VARIABLE, str(sites[0].parent))
        monkeypatch.setenv(protocol.RUN_VARIABLE, str(out))
        (out / CONFIG_FILE).write_text(to_toml(experiment), encoding="utf-8")
        run_config = {
            protocol.EXPERIMENT: to_toml(experiment.with_pretrained("")),
            protocol.SITES: len(sites),
            protocol.RUN: "",
        }
        grid = InProcessGrid(len(sites), run_config, deliver)
        server_main(grid, Context(RUN_ID, 1, {}, RecordDict(), run_config))

    return run


@pytest.fixture
def simulated_in_process(monkeypatch):
    """Let `simulate` run its federations in this process; the run folders trained, in order."""
    trained = []

    def in_process(console, experiment: Experiment, out: Path, sites: list[Path]) -> None:
        trained.append(out)
        monkeypatch.setenv(protocol.SITES_VARIABLE, str(sites[0].parent))
        monkeypatch.setenv(protocol.RUN_VARIABLE, str(out))
        run_config = {
            protocol.EXPERIMENT: to_toml(experiment.with_pretrained("")),
            protocol.SITES: len(sites),
            protocol.RUN: "",
        }
        grid = InProcessGrid(len(sites), run_config, lambda site, message, answer: answer())
        server_main(grid, Context(RUN_ID, 1, {}, RecordDict(), run_config))

    monkeypatch.setattr(simulate, "_federate", in_process)
    return trained
