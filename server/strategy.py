"""Gradient blending as a Flower strategy around any other."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from logging import INFO
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log
from numpy.typing import NDArray

from server import modules
from server.audit import AuditLog
from server.exchange import packed
from server.replies import LeftOut, Update, read_numbers, read_reply, read_update
from server.screening import out_of_scale, oversized
from server.strategies import RULES, build_strategy, read_moments, restore_moments
from stsmm_core import protocol
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.model.mmnn import Weights, is_running_statistic
from stsmm_core.protocol.rounds import blending_from_numbers, losses_from_numbers
from stsmm_core.training.blending import BlendingState, start_blending
from stsmm_core.training.experiment import Memory, blend
from stsmm_core.training.rounds import RoundLosses, selecting_losses

Reading = TypeVar("Reading")


class GradientBlending(Strategy):
    """Adds gradient blending to an inner strategy, which makes one model of the sites' updates.

    Sends the blending weights with each round, adds up the sites' loss sums and updates the weights at checkpoints. A
    reply that is an error, a refusal, does not fit or does not come is left out with its reason, and the round goes on
    with the rest; replies are taken in the order of the sites' names, so that sums do not depend on who was first.

    Args:
        sites: name of each participating node.
        patients: how many each site may have, by name.
        imaging: names of the sites with images.
        local: names of the weights that stay at the sites.
    """

    def __init__(
        self,
        experiment: Experiment,
        sites: Mapping[int, str],
        audit: AuditLog,
        *,
        patients: Mapping[str, int],
        imaging: Collection[str],
        local: Collection[str] = (),
    ) -> None:
        self.blending: BlendingState = start_blending(experiment.blending, len(experiment.heads))
        self.losses: RoundLosses | None = None
        self._inner = build_strategy(experiment.federation, len(sites))
        self._rule = RULES[experiment.federation.strategy]
        self._experiment = experiment
        self._sites = sites
        self._audit = audit
        self._patients = patients
        self._imaging = imaging
        self._local = local
        self._validation_events: dict[str, NDArray[np.float64]] = {}
        self._sent: Weights = {}
        self._asked: set[str] = set()

    @property
    def memory(self) -> Memory:
        """What the inner strategy carries from round to round."""
        return read_moments(self._inner)

    def remember(self, memory: Memory) -> None:
        """Go on from an earlier `memory`."""
        restore_moments(self._inner, memory)

    def summary(self) -> None:
        """Say what this strategy does, and then the inner one."""
        log(INFO, "\t├──> Gradient blending: %s over %d sites", self._experiment.blending.method, len(self._sites))
        self._inner.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages, with the blending weights in force."""
        self._sent = {name: array.numpy() for name, array in arrays.items()}
        config[protocol.BLENDING] = list(self.blending.weights)
        messages = self._inner.configure_train(server_round, arrays, config, grid)
        return self._to_participants(messages, arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The inner strategy's model of the updates that fit.

        Raises:
            RunError: when fewer sites than `federation.min_sites`, or than the strategy needs, gave a usable reply.
        """

        def read(reply: Message, site: str) -> Update:
            patients = self._patients[site]
            return read_update(reply, site, self._sent, self._experiment, patients=patients, local=self._local)

        updates = [update for _, update in self._usable("train", server_round, replies, read)]
        updates = self._screened(server_round, updates)
        # A site without an event learned nothing and has weight 0; alone, such sites would divide by 0.
        weighted = [update for update in updates if update.contribution.weight > 0]
        if not weighted:
            return as_record(self._sent), None
        self._check_votes(server_round, len(weighted))
        return as_record(self._combine(server_round, weighted)), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages, with the blending weights in force."""
        config[protocol.BLENDING] = list(self.blending.weights)
        messages = self._inner.configure_evaluate(server_round, arrays, config, grid)
        return self._to_participants(messages, arrays)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Add up loss sums; at a checkpoint, update the blending weights.

        Raises:
            RunError: when fewer sites than `federation.min_sites` gave a usable reply.
        """
        own: dict[str, tuple[float, ...]] = {}
        endpoints = self._experiment.data.endpoints
        due = self._experiment.blending.scope != "global" and self._experiment.is_checkpoint(server_round)

        def read(reply: Message, site: str) -> RoundLosses:
            numbers = read_numbers(reply)
            losses = losses_from_numbers(numbers, self._experiment, server_round, most=self._patients[site])
            self._check_same_patients(site, losses)
            if server_round == 0:
                self._look_at_coding(site, protocol.read_counts(numbers, protocol.INVERTED, (len(endpoints),), most=1))
            if due:
                own[site] = blending_from_numbers(numbers, self._experiment)
            return losses

        by_site = dict(self._usable("evaluate", server_round, replies, read))
        total, *rest = by_site.values()
        for losses in rest:
            total = total + losses
        self.losses = replace(total, selecting=selecting_losses(by_site, self._imaging))
        if due:
            events = {site: float(losses.train.events[0].sum()) for site, losses in by_site.items() if losses.train}
            self.blending = self.blending.after_sites(own, events)
        elif self._experiment.blending.scope == "global":
            self.blending = blend(self.blending, total, self._experiment)
        per_head = zip(self._experiment.heads, total.validation.per_event().tolist(), strict=True)
        return MetricRecord({f"validation-loss.{head}": loss for head, loss in per_head})

    def _combine(self, server_round: int, updates: Sequence[Update]) -> Weights:
        """One model: the inner strategy's, but for what no gradient moves and what nobody trained."""
        modalities, robust = self._experiment.data.modalities, self._rule.robust
        fill = modules.median if robust else modules.weighted_mean
        completed = modules.complete(updates, self._sent, modalities, fill)
        weights = [update.contribution.weight for update in updates]
        for update, whole, weight in zip(updates, completed, weights, strict=True):
            # Distances between weights (Krum) are small differences of large squares: single precision loses them.
            arrays = {name: value.astype(np.float64) for name, value in whole.items()} if robust else whole
            update.message.content[protocol.ARRAYS] = as_record(arrays)
            update.message.content[protocol.METRICS] = MetricRecord({protocol.WEIGHT: weight})
        combined, _ = self._inner.aggregate_train(server_round, [update.message for update in updates])
        assert combined is not None
        model = {name: combined[name].numpy() for name in self._sent}
        if not robust:
            # A server's momentum could push a variance below 0.
            model |= {
                name: modules.weighted_mean([whole[name] for whole in completed], weights)
                for name in self._sent
                if is_running_statistic(name)
            }
        modules.keep_untrained(model, updates, self._sent, modalities)
        return model

    def _screened(self, server_round: int, updates: Sequence[Update]) -> list[Update]:
        limit = self._experiment.federation.largest_update
        modalities = self._experiment.data.modalities
        weighted = [update for update in updates if update.contribution.weight > 0]
        found = {
            **oversized(weighted, self._sent, modalities, limit),
            **out_of_scale(weighted, self._sent, modalities),
        }
        for site, finding in sorted(found.items()):
            note = self._audit.left_out if finding.harmful else self._audit.warned
            note(site, "train", finding.reason, server_round)
        kept = [update for update in updates if update.site not in found or not found[update.site].harmful]
        self._check_enough("train", server_round, len(kept))
        return kept

    def _check_same_patients(self, site: str, losses: RoundLosses) -> None:
        """A round with more events than all others would be the only one that compares, and be selected."""
        events = losses.validation.events
        if not np.array_equal(self._validation_events.setdefault(site, events), events):
            raise LeftOut("its validation set has another number of events than before")

    def _look_at_coding(self, site: str, inverted: NDArray[np.float64]) -> None:
        """A warning, not an exclusion: a cohort that was followed to its end looks the same."""
        for endpoint, suspected in zip(self._experiment.data.endpoints, inverted, strict=True):
            if suspected:
                reason = (
                    f"more than half of its patients have an event of {endpoint}, and late in follow-up: "
                    f"are 0 and 1 exchanged in {endpoint}_event?"
                )
                self._audit.warned(site, "evaluate", reason, 0)

    def _to_participants(self, messages: Iterable[Message], arrays: ArrayRecord) -> list[Message]:
        asked = [message for message in messages if message.metadata.dst_node_id in self._sites]
        weights = packed({name: array.numpy() for name, array in arrays.items()})
        for message in asked:
            message.content[protocol.ARRAYS] = weights
        self._asked = {self._sites[message.metadata.dst_node_id] for message in asked}
        return asked

    def _usable(
        self, stage: str, server_round: int, replies: Iterable[Message], read: Callable[..., Reading]
    ) -> list[tuple[str, Reading]]:
        """The replies that can be read and their sites, in the order of the sites' names."""
        by_site = {self._sites[reply.metadata.src_node_id]: reply for reply in replies}
        usable: list[tuple[str, Reading]] = []
        for site in sorted(self._sites.values()):
            try:
                if site not in self._asked:
                    raise LeftOut("not connected")
                if site not in by_site:
                    raise LeftOut(f"no answer within {self._experiment.federation.timeout_s:g} s")
                usable.append((site, read_reply(partial(read, site=site), by_site[site])))
            except (LeftOut, protocol.ProtocolError) as reason:
                self._audit.left_out(site, stage, str(reason), server_round)
        self._check_enough(stage, server_round, len(usable))
        return usable

    def _check_votes(self, server_round: int, updates: int) -> None:
        federation = self._experiment.federation
        least = self._rule.least_sites(federation)
        if updates < least:
            raise RunError(
                f"round {server_round}, train: {updates} of {len(self._sites)} sites trained, with fewer than {least} "
                f"federation.strategy = '{federation.strategy}' outvotes nobody; audit.jsonl says why, and the same "
                "command (at a real server: resume) goes on from the last checkpoint"
            )

    def _check_enough(self, stage: str, server_round: int, usable: int) -> None:
        if usable < self._experiment.federation.min_sites:
            raise RunError(
                f"round {server_round}, {stage}: {usable} of {len(self._sites)} sites gave a usable reply, "
                f"federation.min_sites asks for {self._experiment.federation.min_sites}; audit.jsonl says why, and "
                "the same command (at a real server: resume) goes on from the last checkpoint"
            )


def as_record(weights: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Arrays as Flower's strategies take them, one by one."""
    return ArrayRecord({name: Array(value) for name, value in weights.items()})
