"""A consortium of Flower nodes: the rounds of an experiment as messages."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import reduce
from importlib.metadata import version
from operator import add
from typing import Any, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from server.audit import AuditLog
from server.exchange import exchange, packed
from server.registered import registered_sites
from server.replies import LeftOut, attributed, read_numbers, read_reply
from server.strategy import GradientBlending, as_record
from stsmm_core import protocol
from stsmm_core.cohort.clinical import ClinicalEncoding, ClinicalSummary, fit_encoding
from stsmm_core.cohort.dictionary import SCHEMA_VERSION
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.model.mmnn import Weights, build_network, normalisation_names
from stsmm_core.protocol.description import description_from_numbers, training_sums_from_numbers
from stsmm_core.protocol.pairs import pairs_from_numbers
from stsmm_core.protocol.rounds import encoding_to_numbers
from stsmm_core.survival.concordance import PairCounts
from stsmm_core.training.blending import BlendingState
from stsmm_core.training.centre import SiteDescription
from stsmm_core.training.experiment import Memory
from stsmm_core.training.rounds import RoundLosses
from stsmm_core.training.site_data import agreed_channels

WAIT_FOR_NODES_S = 120.0
LONGEST_VERSION = 40
GO_ON = "the same command (at a real server: resume) goes on"

Reading = TypeVar("Reading")


class FlowerConsortium:
    """Sites behind a Flower grid.

    Args:
        expected: sites to wait for before the first message. After a while the run goes on without those that are
            missing, if there are as many as `federation.min_sites`.
        audit: where a reply that is left out is noted with its reason.
    """

    def __init__(self, grid: Grid, experiment: Experiment, *, expected: int, audit: AuditLog) -> None:
        self._descriptions: dict[str, SiteDescription] = {}
        self._grid = grid
        self._experiment = experiment
        self._audit = audit
        self._nodes = _wait_for_nodes(grid, expected, least=experiment.federation.min_sites)
        if len(self._nodes) < expected:
            absent = sorted(site for node, site in (registered_sites() or {}).items() if node not in self._nodes)
            for site in absent or [f"{expected - len(self._nodes)} sites"]:
                audit.left_out(site, "start", f"not connected {WAIT_FOR_NODES_S:.0f} s after the start")
        self._sites: dict[int, str] = {}
        self._patients: dict[str, int] = {}
        self._channels = 0
        self._fold = 0
        self._encoding: ClinicalEncoding | None = None

    @property
    def channels(self) -> int:
        """Image channels of the run."""
        return self._channels

    @property
    def descriptions(self) -> list[SiteDescription]:
        """What the sites that took part in any fold said of themselves, by name."""
        return [self._descriptions[site] for site in sorted(self._descriptions)]

    def begin_fold(self, fold: int, encoding: ClinicalEncoding | None) -> ClinicalEncoding:
        """Ask every node who it is, and fit the encoding (unless it is given) to the sum of what they say.

        Raises:
            RunError: when too few sites answer or two have the same name.
        """
        self._audit = replace(self._audit, fold=fold)
        config = ConfigRecord({protocol.FOLD: fold})
        answers: dict[int, tuple[SiteDescription, ClinicalSummary]] = {}
        registered = registered_sites()
        for reply in self._send(protocol.QUERY, config, self._nodes):
            try:
                description, training = read_reply(self._read_description, reply)
                _check_identity(registered, reply.metadata.src_node_id, description.site)
                answers[reply.metadata.src_node_id] = description, training
                self._note_version(reply, description.site)
            except (LeftOut, protocol.ProtocolError) as reason:
                node = reply.metadata.src_node_id
                self._audit.left_out((registered or {}).get(node, f"node {node}"), "query", str(reason))
        self._leave_out_other_channels(answers)
        if len(answers) < self._experiment.federation.min_sites:
            raise RunError(
                f"{len(answers)} of {len(self._nodes)} sites can take part, "
                f"federation.min_sites asks for {self._experiment.federation.min_sites}; "
                "audit.jsonl says why the others cannot"
            )
        names = [description.site for description, _ in answers.values()]
        if len(set(names)) < len(names):
            raise RunError(f"two nodes say they are the same site (sites: {', '.join(sorted(names))})")
        by_name = sorted(answers.items(), key=lambda answer: answer[1][0].site)
        self._descriptions |= {description.site: description for _, (description, _) in by_name}
        self._sites = {node: description.site for node, (description, _) in by_name}
        self._channels = len(agreed_channels({each.site: each.channels for each in self.descriptions}))
        self._fold = fold
        summary = reduce(add, (training for _, (_, training) in by_name))
        self._encoding = encoding or fit_encoding(summary, self._experiment.data.variables)
        self._patients = {
            description.site: protocol.most_patients(description.patients) for description in self.descriptions
        }
        self._strategy = GradientBlending(
            self._experiment,
            self._sites,
            self._audit,
            patients=self._patients,
            imaging=[description.site for _, (description, _) in by_name if description.may_have_images],
            local=self._local_names(self._encoding),
        )
        return self._encoding

    @property
    def memory(self) -> Memory:
        """What the strategy carries from round to round."""
        return self._strategy.memory

    def remember(self, memory: Memory) -> None:
        """Go on from an earlier `memory` of this fold."""
        self._strategy.remember(memory)

    def train(self, round_number: int, weights: Weights, blending: BlendingState) -> Weights:
        """One round of local training at every site, combined by the strategy."""
        self._strategy.blending = blending
        self._wait_for_enough()
        messages = self._strategy.configure_train(round_number, as_record(weights), self._config(), self._grid)
        arrays, _ = self._strategy.aggregate_train(round_number, self._receive(messages))
        assert arrays is not None
        return _weights(arrays)

    def evaluate(
        self, round_number: int, weights: Weights, blending: BlendingState
    ) -> tuple[RoundLosses, BlendingState]:
        """Loss sums of all sites, and the blending weights that the strategy made of them."""
        self._strategy.blending = blending
        self._wait_for_enough()
        messages = self._strategy.configure_evaluate(round_number, as_record(weights), self._config(), self._grid)
        self._strategy.aggregate_evaluate(round_number, self._receive(messages))
        assert self._strategy.losses is not None
        return self._strategy.losses, self._strategy.blending

    def predict(self, selected_round: int, weights: Weights) -> None:
        """Let every site keep the risks of its test patients; it adds what it kept of its own in that round."""
        action = f"evaluate.{protocol.PREDICT_ACTION}"
        config = self._config()
        config[protocol.ROUND] = selected_round
        for reply in self._send(action, config, self._sites, packed(weights)):
            self._read(reply, "predict", read_numbers)

    def count_pairs(self) -> dict[str, list[list[PairCounts]]]:
        """Concordance counts, [head][endpoint], of every site that could be tested, by its name.

        Raises:
            RunError: when no site could.
        """
        tested = self.ask(
            protocol.PAIRS_ACTION,
            "test",
            {},
            lambda numbers, most: pairs_from_numbers(numbers, self._experiment, most=most),
        )
        if not tested:
            raise RunError(f"no site could test the model; {GO_ON} with the test")
        return tested

    def ask(
        self,
        action: str,
        stage: str,
        numbers: Mapping[str, Any],
        read: Callable[[MetricRecord, int], Reading],
        *,
        sites: Collection[str] | None = None,
    ) -> dict[str, Reading]:
        """A question to the sites of the fold: what could be read of the answers, by the sites' names.

        Args:
            action: of the evaluate messages.
            stage: how the log calls the question.
            numbers: what it holds, beside the fold and the encoding.
            read: what an answer says, from its numbers and how many patients the site may speak of.
            sites: who is asked; all of the fold if not given.
        """
        config = self._config()
        config.update(numbers)
        asked = [node for node, site in self._sites.items() if sites is None or site in sites]
        replies = self._send(f"evaluate.{action}", config, asked)
        by_name = {self._sites[reply.metadata.src_node_id]: reply for reply in replies}

        def read_within(reply: Message) -> Reading:
            return read(read_numbers(reply), self._patients[self._sites[reply.metadata.src_node_id]])

        answers = {site: self._read(by_name[site], stage, read_within) for site in sorted(by_name)}
        return {site: answer for site, answer in answers.items() if answer is not None}

    def leave_out(self, sites: Iterable[str], reason: str) -> None:
        """Ask these sites no more in this fold."""
        for site in sites:
            self._audit.left_out(site, "cox", reason)
        self._sites = {node: site for node, site in self._sites.items() if site not in set(sites)}

    def _leave_out_other_channels(self, answers: dict[int, tuple[SiteDescription, ClinicalSummary]]) -> None:
        """A site whose images do not fit most of the others' must not end the run; without a majority nobody is left
        out, and the run ends with the list."""
        named = Counter(tuple(each.channels) for each, _ in answers.values() if each.channels)
        if len(named) < 2 or 2 * max(named.values()) <= named.total():
            return
        usual = max(named, key=named.__getitem__)
        for node, (description, _) in list(answers.items()):
            if description.channels and tuple(description.channels) != usual:
                self._audit.left_out(
                    description.site, "query", f"its image channels are not the other sites' ({', '.join(usual)})"
                )
                del answers[node]

    def _local_names(self, encoding: ClinicalEncoding) -> frozenset[str]:
        """Weights that stay at the sites."""
        if not self._experiment.federation.local_normalisation:
            return frozenset()
        network = build_network(
            self._experiment, channels=self._channels, clinical_inputs=encoding.width, fold=self._fold
        )
        return normalisation_names(network)

    def _read_description(self, reply: Message) -> tuple[SiteDescription, ClinicalSummary]:
        numbers = read_numbers(reply)
        identity = reply.content.config_records.get(protocol.SITE, ConfigRecord())
        if identity.get(protocol.SCHEMA) != SCHEMA_VERSION:
            raise LeftOut(f"its cohorts do not have schema version {SCHEMA_VERSION}")
        description = description_from_numbers(numbers, identity, self._experiment)
        most = protocol.most_patients(description.patients)
        return description, training_sums_from_numbers(numbers, self._experiment, most=most)

    def _note_version(self, reply: Message, site: str) -> None:
        """The code is the same everywhere; what it is run by may not be."""
        said = reply.content.config_records[protocol.SITE].get("software-version")
        theirs, ours = str(said)[:LONGEST_VERSION], version("stsmm")
        if theirs != ours:
            self._audit.warned(site, "query", f"its node has version {theirs} of STSMM installed, the server {ours}")

    def _read(self, reply: Message, stage: str, read: Callable[[Message], Reading]) -> Reading | None:
        try:
            return read_reply(read, reply)
        except (LeftOut, protocol.ProtocolError) as reason:
            self._audit.left_out(self._sites[reply.metadata.src_node_id], stage, str(reason))
            return None

    def _config(self) -> ConfigRecord:
        assert self._encoding is not None
        fixed: dict[str, Any] = {protocol.FOLD: self._fold, protocol.CHANNELS: self._channels}
        return ConfigRecord(fixed | encoding_to_numbers(self._encoding))

    def _send(
        self, message_type: str, config: ConfigRecord, nodes: Iterable[int], arrays: ArrayRecord | None = None
    ) -> list[Message]:
        records: dict[str, ArrayRecord | ConfigRecord | MetricRecord] = {protocol.CONFIG: config}
        if arrays is not None:
            records[protocol.ARRAYS] = arrays
        asked = list(nodes)
        replies = self._receive(
            [Message(content=RecordDict(records), message_type=message_type, dst_node_id=node) for node in asked]
        )
        for node in set(asked) - {reply.metadata.src_node_id for reply in replies}:
            silence = f"no answer within {self._experiment.federation.timeout_s:g} s"
            self._audit.left_out(self._sites.get(node, f"node {node}"), message_type.split(".")[-1], silence)
        return replies

    def _wait_for_enough(self) -> None:
        least = self._experiment.federation.min_sites
        _wait_for_nodes(self._grid, least, least=least)

    def _receive(self, messages: Iterable[Message]) -> list[Message]:
        timeout = self._experiment.federation.timeout_s
        asked = list(messages)
        for message in asked:  # a message lives 12 hours if not told otherwise; an answer may take days by courier
            message.metadata.ttl = max(message.metadata.ttl, timeout)
        replies = exchange(self._grid, asked, timeout=timeout)
        return attributed(replies, {message.metadata.message_id: message.metadata.dst_node_id for message in asked})


def _check_identity(registered: Mapping[int, str] | None, node: int, site: str) -> None:
    """A site speaks for itself only: its node's key says who it is."""
    if registered is not None and registered.get(node) != site:
        known = registered.get(node, "no registered site")  # what it calls itself may be any text: it is not repeated
        raise LeftOut(f"it says that it is another site than that of its key, {known}")


def _wait_for_nodes(grid: Grid, wanted: int, *, least: int) -> list[int]:
    """The connected nodes: `wanted` of them, or after a while at least so many as a round needs."""
    deadline = time.monotonic() + WAIT_FOR_NODES_S
    while len(nodes := sorted(grid.get_node_ids())) < wanted:
        if time.monotonic() > deadline:
            if len(nodes) >= max(least, 1):
                return nodes
            raise RunError(
                f"{len(nodes)} of {wanted} sites are connected after {WAIT_FOR_NODES_S:.0f} s, "
                f"federation.min_sites asks for {least}; {GO_ON} once they are"
            )
        time.sleep(0.5)
    return nodes


def _weights(arrays: ArrayRecord) -> Weights:
    # Some strategies work in double precision; what a site is sent is single.
    return {name: array.numpy().astype("float32") for name, array in arrays.items()}
