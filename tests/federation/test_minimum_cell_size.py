"""What a site tells of a test where only a few of its patients can be ranked."""

from types import SimpleNamespace

import numpy as np
import pytest

from client import answers
from stsmm_core import protocol
from stsmm_core.survival.concordance import count_pairs


@pytest.mark.parametrize(("patients", "told"), [(4, False), (5, True)])
def test_pairs_of_fewer_patients_than_the_minimum_stay_at_the_site(patients, told):
    """A head, or an endpoint, that most of the test patients lack."""
    risk = np.where(np.arange(20) < patients, np.arange(20.0), np.nan)
    counts = count_pairs(
        risk, time=np.arange(20.0, 0, -1), event=np.ones(20), replicates=10, rng=np.random.default_rng(0)
    )
    assert counts.comparable > 0
    centre = SimpleNamespace(count_pairs=lambda: [[counts]])
    numbers = answers.count_pairs(SimpleNamespace(min_cell_size=5), centre).metric_records[protocol.METRICS]
    assert {name: bool(np.any(value)) for name, value in numbers.items()} == dict.fromkeys(numbers, told)
