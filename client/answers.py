"""What a site answers to each message: records in, records out."""

from typing import cast

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.site import Site
from stsmm_core import protocol
from stsmm_core.cohort.clinical import shareable_training_sums
from stsmm_core.cohort.dictionary import SCHEMA_VERSION
from stsmm_core.model.mmnn import Weights
from stsmm_core.protocol.time_counts import time_counts_to_numbers
from stsmm_core.run_folder import software_versions
from stsmm_core.training.centre import Centre
from stsmm_core.training.curves import shared_counts
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
    numbers = protocol.description_to_numbers(description, centre.experiment)
    metrics = MetricRecord(numbers | protocol.training_sums_to_numbers(training))
    return RecordDict({protocol.SITE: identity, protocol.METRICS: metrics})


def train(content: RecordDict, centre: Centre) -> RecordDict:
    """A round of local epochs from the server's weights."""
    blending = tuple(cast(list[float], content.config_records[protocol.CONFIG][protocol.BLENDING]))
    trainer = _trainer(content, centre)
    trained = trainer.train_round(_number(content, protocol.ROUND), _weights(content), blending)
    by_events = centre.experiment.federation.weighted_by == "events" or trained.events == 0  # nothing was learned
    weight = trained.events if by_events else trained.patients
    metrics = MetricRecord(
        {
            "patients": trained.patients,
            "events": trained.events,
            "windows-without-event": trained.windows_without_event,
            protocol.WEIGHT: float(weight),
        }
    )
    arrays = ArrayRecord({name: Array(value) for name, value in trained.weights.items()})
    return RecordDict({protocol.ARRAYS: arrays, protocol.METRICS: metrics})


def evaluate(content: RecordDict, centre: Centre) -> RecordDict:
    """Loss sums of the server's weights on this site's training and validation patients."""
    losses = _trainer(content, centre).losses(_number(content, protocol.ROUND), _weights(content))
    return RecordDict({protocol.METRICS: MetricRecord(protocol.losses_to_numbers(losses))})


def predict(content: RecordDict, centre: Centre) -> RecordDict:
    """Keep the risks of this site's test patients at the site; only how many there are goes back."""
    fold = _number(content, protocol.FOLD)
    centre.keep_predictions(fold, _trainer(content, centre), _weights(content))
    return RecordDict({protocol.METRICS: MetricRecord({"patients": len(centre.folds[fold].test)})})


def count_pairs(centre: Centre) -> RecordDict:
    """Concordance counts of this site's test patients."""
    return RecordDict({protocol.METRICS: MetricRecord(protocol.pairs_to_numbers(centre.count_pairs()))})


def count_times(site: Site, centre: Centre) -> RecordDict:
    """Events and censorings by time, moved so that enough patients leave together."""
    counts = shared_counts(centre, minimum=site.min_cell_size)
    return RecordDict({protocol.METRICS: MetricRecord(time_counts_to_numbers(counts))})


def _trainer(content: RecordDict, centre: Centre) -> Trainer:
    encoding = protocol.encoding_from_numbers(content.config_records[protocol.CONFIG], centre.experiment)
    channels = _number(content, protocol.CHANNELS)
    return centre.trainer(_number(content, protocol.FOLD), encoding, channels=channels)


def _number(content: RecordDict, key: str) -> int:
    return int(cast(int, content.config_records[protocol.CONFIG][key]))


def _weights(content: RecordDict) -> Weights:
    return {name: array.numpy() for name, array in content.array_records[protocol.ARRAYS].items()}
