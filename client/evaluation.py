"""What a site answers when the models are tested over all sites: sums under its minimum cell size."""

from flwr.app import MetricRecord, RecordDict

from client.site import Site
from stsmm_core import protocol
from stsmm_core.protocol.evaluation import (
    development_from_numbers,
    development_to_numbers,
    output_sums_to_numbers,
    scale_from_numbers,
    site_test_to_numbers,
)
from stsmm_core.survival.common_scale import sum_outputs
from stsmm_core.survival.site_sums import sum_development_of, sum_test
from stsmm_core.training.centre import Centre
from stsmm_core.training.evaluation_over_sites import horizons_in_days


def tell_scale(site: Site, centre: Centre) -> RecordDict:
    """Number, sum and sum of squares of the training patients' outputs."""
    return _numbers(output_sums_to_numbers(sum_outputs(centre.records(), minimum=site.min_cell_size)))


def tell_development(content: RecordDict, site: Site, centre: Centre) -> RecordDict:
    """Development patients by the time they left."""
    scale = scale_from_numbers(content.config_records[protocol.CONFIG], centre.experiment)
    sums = sum_development_of(centre.records(), scale, minimum=site.min_cell_size)
    return _numbers(development_to_numbers(sums, centre.experiment))


def tell_test(content: RecordDict, site: Site, centre: Centre) -> RecordDict:
    """Pairs, cells and sums of the test patients."""
    config = content.config_records[protocol.CONFIG]
    test = sum_test(
        centre.records(),
        scale_from_numbers(config, centre.experiment),
        development_from_numbers(config, centre.experiment),
        horizons=horizons_in_days(centre.experiment),
        minimum=site.min_cell_size,
    )
    return _numbers(site_test_to_numbers(test, centre.experiment))


def _numbers(numbers: protocol.Numbers) -> RecordDict:
    return RecordDict({protocol.METRICS: MetricRecord(numbers)})
