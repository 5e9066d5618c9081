"""Gradient blending as a Flower strategy around any other."""

from collections.abc import Callable, Iterable, Mapping
from logging import INFO
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log

from server.replies import LeftOut, check_arrays, read_numbers
from stsmm_core import protocol
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.training.blending import BlendingState, start_blending
from stsmm_core.training.experiment import blend
from stsmm_core.training.trainer import RoundLosses

Reading = TypeVar("Reading")


class GradientBlending(Strategy):
    """Adds gradient blending (scope `global`) to an inner strategy, which averages the weights.

    Sends the blending weights with each training round, adds up the sites' loss sums and updates the weights at
    checkpoints. A reply that is an error, a refusal, or does not fit is left out with its reason, and the round goes
    on with the rest; replies are taken in the order of the sites' names, so that sums do not depend on who was first.

    Args:
        inner: any strategy that weights replies by `protocol.WEIGHT`.
        sites: name of each participating node.
        left_out: called with the site and the reason whenever a reply is left out.
    """

    def __init__(
        self,
        inner: Strategy,
        experiment: Experiment,
        sites: Mapping[int, str],
        left_out: Callable[[str, str], None],
    ) -> None:
        self.blending: BlendingState = start_blending(experiment.blending, len(experiment.heads))
        self.losses: RoundLosses | None = None
        self._inner = inner
        self._experiment = experiment
        self._sites = sites
        self._left_out = left_out
        self._sent: ArrayRecord | None = None

    def summary(self) -> None:
        """Say what this strategy does, and then the inner one."""
        log(INFO, "\t├──> Gradient blending: %s over %d sites", self._experiment.blending.method, len(self._sites))
        self._inner.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages, with the blending weights in force."""
        self._sent = arrays
        config[protocol.BLENDING] = list(self.blending.weights)
        return self._to_participants(self._inner.configure_train(server_round, arrays, config, grid))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The inner strategy's average of the replies that fit.

        Raises:
            RunError: when fewer sites than `federation.min_sites` gave a usable reply.
        """
        accepted = [
            message for message, _ in self._usable(server_round, replies, lambda reply: check_arrays(reply, self._sent))
        ]
        # A site without an event learned nothing and has weight 0; alone, such sites would divide by 0.
        weighted = [message for message in accepted if _weight(message) > 0]
        if not weighted:
            return self._sent, None
        return self._inner.aggregate_train(server_round, weighted)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages."""
        return self._to_participants(self._inner.configure_evaluate(server_round, arrays, config, grid))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Add up loss sums; at a checkpoint, update the blending weights from the sums.

        Raises:
            RunError: when fewer sites than `federation.min_sites` gave a usable reply.
        """
        usable = self._usable(
            server_round,
            replies,
            lambda reply: protocol.losses_from_numbers(read_numbers(reply), self._experiment, server_round),
        )
        total = usable[0][1]
        for _, losses in usable[1:]:
            total = total + losses
        self.losses = total
        self.blending = blend(self.blending, total, self._experiment)
        per_head = zip(self._experiment.heads, total.validation.per_event().tolist(), strict=True)
        return MetricRecord({f"validation-loss.{head}": loss for head, loss in per_head})

    def _to_participants(self, messages: Iterable[Message]) -> list[Message]:
        return [message for message in messages if message.metadata.dst_node_id in self._sites]

    def _usable(
        self, server_round: int, replies: Iterable[Message], read: Callable[[Message], Reading]
    ) -> list[tuple[Message, Reading]]:
        """The replies that can be read, in the order of the sites' names."""
        usable: list[tuple[Message, Reading]] = []
        by_site = sorted(replies, key=lambda reply: self._sites[reply.metadata.src_node_id])
        for reply in by_site:
            try:
                usable.append((reply, read(reply)))
            except (LeftOut, protocol.ProtocolError) as reason:
                self._left_out(self._sites[reply.metadata.src_node_id], f"round {server_round}: {reason}")
        if len(usable) < self._experiment.federation.min_sites:
            raise RunError(
                f"round {server_round}: {len(usable)} of {len(self._sites)} sites gave a usable reply, "
                f"federation.min_sites asks for {self._experiment.federation.min_sites}; the run can be resumed"
            )
        return usable


def _weight(message: Message) -> float:
    value = message.content.metric_records[protocol.METRICS][protocol.WEIGHT]
    assert isinstance(value, (int, float))
    return float(value)
