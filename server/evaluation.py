"""The test of a federated run: three questions to all sites."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flwr.app import MetricRecord

from server.consortium import GO_ON, FlowerConsortium
from stsmm_core import protocol
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.protocol.evaluation import (
    development_from_numbers,
    development_to_numbers,
    output_sums_from_numbers,
    scale_to_numbers,
    site_test_from_numbers,
)
from stsmm_core.training.evaluation_over_sites import FederatedTest, run_test

Reading = TypeVar("Reading")


def ask_for_test(consortium: FlowerConsortium, experiment: Experiment) -> FederatedTest:
    """What the sites tell of their patients, once all models are trained and have been predicted with.

    Raises:
        RunError: when no site answers.
    """

    def ask(
        action: str, numbers: Mapping[str, Any], read: Callable[[MetricRecord, int], Reading]
    ) -> dict[str, Reading]:
        told = consortium.ask(action, "test", numbers, read)
        if not told:
            raise RunError(f"no site could test the model; {GO_ON} with the test")
        return told

    return run_test(
        lambda: ask(
            protocol.SCALE_ACTION, {}, lambda numbers, most: output_sums_from_numbers(numbers, experiment, most=most)
        ),
        lambda scale: ask(
            protocol.DEVELOPMENT_ACTION,
            scale_to_numbers(scale),
            lambda numbers, most: development_from_numbers(numbers, experiment, most=most),
        ),
        lambda scale, development: ask(
            protocol.TEST_ACTION,
            scale_to_numbers(scale) | development_to_numbers(development, experiment),
            lambda numbers, most: site_test_from_numbers(numbers, experiment, most=most),
        ),
    )
