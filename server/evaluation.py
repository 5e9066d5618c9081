"""The test of a federated run: three questions to all sites."""

from server.consortium import FlowerConsortium
from stsmm_core import protocol
from stsmm_core.config import Experiment
from stsmm_core.training.evaluation_over_sites import FederatedTest, run_test


def ask_for_test(consortium: FlowerConsortium, experiment: Experiment) -> FederatedTest:
    """What the sites tell of their patients, once all models are trained and have been predicted with.

    Raises:
        RunError: when no site answers.
    """
    return run_test(
        lambda: consortium.ask(
            protocol.SCALE_ACTION, {}, lambda numbers: protocol.moments_from_numbers(numbers, experiment)
        ),
        lambda scale: consortium.ask(
            protocol.DEVELOPMENT_ACTION,
            protocol.scale_to_numbers(scale),
            lambda numbers: protocol.development_from_numbers(numbers, experiment),
        ),
        lambda scale, development: consortium.ask(
            protocol.TEST_ACTION,
            protocol.scale_to_numbers(scale) | protocol.development_to_numbers(development, experiment),
            lambda numbers: protocol.site_test_from_numbers(numbers, experiment),
        ),
    )
