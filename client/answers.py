"""What a site answers to each message: records in, records out."""

from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.site import Site
from stsmm_core import protocol
from stsmm_core.cohort.clinical import shareable_training_sums
from stsmm_core.cohort.dictionary import SCHEMA_VERSION
from stsmm_core.config import Experiment
from stsmm_core.model.mmnn import Weights, normalisation_names
from stsmm_core.protocol.description import description_to_numbers, training_sums_to_numbers
from stsmm_core.protocol.pairs import pairs_to_numbers
from stsmm_core.protocol.rounds import (
    blending_from_numbers,
    contribution_to_numbers,
    encoding_from_numbers,
    losses_to_numbers,
)
from stsmm_core.protocol.time_counts import time_counts_to_numbers
from stsmm_core.protocol.weights import pack_weights, unpack_weights
from stsmm_core.run_folder import software_versions
from stsmm_core.survival.event_order import looks_inverted
from stsmm_core.training import kept_at_site
from stsmm_core.training.centre import Centre
from stsmm_core.training.curves import shared_counts
from stsmm_core.training.personal_heads import personalise
from stsmm_core.training.trainer import Trainer


def describe(content: RecordDict, site: Site, centre: Centre) -> RecordDict:
    """Counts of the cohort and sums for the encoding, both under the site's minimum cell size."""
    whole = centre.describe()
    description = whole.suppressed(site.min_cell_size)
    training = shareable_training_sums(
        centre.summarise_training(_number(content, protocol.FOLD)), whole.summary, site.min_cell_size
    )
    identity = ConfigRecord(
        {
            protocol.NAME: centre.site,
            protocol.CHANNELS: list(description.channels),
            protocol.WITHHELD_VARIABLES: list(description.withheld),
            protocol.SCHEMA: SCHEMA_VERSION,
            "software-version": software_versions()["stsmm"],
        }
    )
    numbers = description_to_numbers(description, centre.experiment)
    metrics = MetricRecord(numbers | training_sums_to_numbers(training))
    return RecordDict({protocol.SITE: identity, protocol.METRICS: metrics})


def train(content: RecordDict, centre: Centre) -> RecordDict:
    """A round of local epochs from the server's weights, and of the site's own where it keeps some."""
    config, experiment = content.config_records[protocol.CONFIG], centre.experiment
    round_number, trainer = _number(content, protocol.ROUND), _trainer(content, centre)
    start = _own_weights(content, centre, trainer, round_number - 1)
    trained = trainer.train_round(
        round_number,
        start,
        kept_at_site.blending_in_force(trainer.state, experiment, round_number, _blending(content, experiment)),
        proximal_mu=float(cast(float, config.get(protocol.PROXIMAL_MU, 0.0))),
    )
    weight: float = experiment.federation.weight_of(patients=trained.patients, events=trained.events)
    if experiment.federation.site_factor == "generalisation":
        weight *= _factor(trainer, experiment, round_number, start, trained.weights)
    shared = trained.weights
    if experiment.federation.local_normalisation:
        names = normalisation_names(trainer.network)
        shared = kept_at_site.keep_normalisation(trainer.state, trained.weights, round_number, names)
    arrays = ArrayRecord({protocol.WEIGHTS: Array(pack_weights(shared))})
    metrics = MetricRecord(contribution_to_numbers(trained, weight))
    return RecordDict({protocol.ARRAYS: arrays, protocol.METRICS: metrics})


def evaluate(content: RecordDict, centre: Centre) -> RecordDict:
    """Loss sums of the server's weights on this site's training and validation patients.

    At a checkpoint also the site's own blending weights, where the scope of blending asks for them; before the first
    round also whether its events look coded the wrong way round.
    """
    experiment, round_number = centre.experiment, _number(content, protocol.ROUND)
    trainer = _trainer(content, centre)
    losses = trainer.losses(round_number, _own_weights(content, centre, trainer, round_number))
    numbers = losses_to_numbers(losses)
    if experiment.blending.scope != "global" and experiment.is_checkpoint(round_number):
        sent = _blending(content, experiment)
        weights = kept_at_site.update_blending(trainer.state, experiment, round_number, sent, losses)
        numbers[protocol.BLENDING] = list(weights)
    if round_number == 0:
        outcomes = centre.data.outcomes[np.concatenate([trainer.fold.train, trainer.fold.validation])]
        inverted = [looks_inverted(*column) for column in zip(outcomes.time.T, outcomes.event.T, strict=True)]
        numbers[protocol.INVERTED] = [int(each) for each in inverted]
    return RecordDict({protocol.METRICS: MetricRecord(numbers)})


def predict(content: RecordDict, centre: Centre) -> RecordDict:
    """Keep the risks of this site's test patients at the site; only how many there are goes back."""
    fold = _number(content, protocol.FOLD)
    trainer = _trainer(content, centre)
    selected_round = _number(content, protocol.ROUND)
    weights = _own_weights(content, centre, trainer, selected_round)
    trainer.state.forget_but_latest(kept_at_site.NORMALISATION, selected_round)
    if centre.experiment.federation.personal_epochs:
        weights = personalise(trainer, weights, centre.experiment)
    centre.keep_predictions(fold, trainer, weights)
    return RecordDict({protocol.METRICS: MetricRecord({"patients": len(centre.folds[fold].test)})})


def count_pairs(site: Site, centre: Centre) -> RecordDict:
    """Concordance counts of this site's test patients; zeros for a head and endpoint with too few of them."""
    pairs = [[counts.suppressed(site.min_cell_size) for counts in head] for head in centre.count_pairs()]
    return RecordDict({protocol.METRICS: MetricRecord(pairs_to_numbers(pairs))})


def count_times(site: Site, centre: Centre) -> RecordDict:
    """Events and censorings by time, moved so that enough patients leave together."""
    counts = shared_counts(centre, minimum=site.min_cell_size)
    return RecordDict({protocol.METRICS: MetricRecord(time_counts_to_numbers(counts))})


def _trainer(content: RecordDict, centre: Centre) -> Trainer:
    encoding = encoding_from_numbers(content.config_records[protocol.CONFIG], centre.experiment)
    channels = _number(content, protocol.CHANNELS)
    return centre.trainer(_number(content, protocol.FOLD), encoding, channels=channels)


def _number(content: RecordDict, key: str) -> int:
    return int(cast(int, content.config_records[protocol.CONFIG][key]))


def _blending(content: RecordDict, experiment: Experiment) -> tuple[float, ...]:
    return blending_from_numbers(content.config_records[protocol.CONFIG], experiment)


def _factor(trainer: Trainer, experiment: Experiment, round_number: int, before: Weights, after: Weights) -> float:
    if experiment.is_checkpoint(round_number):
        factor = kept_at_site.generalisation_factor(trainer.loss_sums(before), trainer.loss_sums(after))
        trainer.state.keep(kept_at_site.FACTOR, round_number, factor)
    return kept_at_site.factor_in_force(trainer.state, round_number)


def _own_weights(content: RecordDict, centre: Centre, trainer: Trainer, last_round: int) -> Weights:
    """The weights that were sent, with what the site keeps of its own up to a round."""
    weights = _weights(content)
    if not centre.experiment.federation.local_normalisation:
        return weights
    return kept_at_site.with_own_normalisation(trainer.state, weights, last_round)


def _weights(content: RecordDict) -> Weights:
    return unpack_weights(content.array_records[protocol.ARRAYS][protocol.WEIGHTS].numpy())
