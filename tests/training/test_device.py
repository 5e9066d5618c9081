"""Which devices an experiment may name."""

import pytest

from stsmm_core.errors import RunError
from stsmm_core.training.device import available_device


def test_a_device_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(RunError, match=r"training\.device = 'gpu' is no device; write 'cpu', 'cuda'"):
        available_device("gpu")


def test_the_cpu_is_always_there():
    assert available_device("cpu").type == "cpu"
