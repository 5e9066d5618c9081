"""Which sites' validation losses select a round."""

import numpy as np
import pytest

from stsmm_core.cohort.clinical import ClinicalSummary
from stsmm_core.training.centre import SiteDescription
from stsmm_core.training.losses import LossSums
from stsmm_core.training.rounds import RoundLosses, selecting_losses


def losses(loss, events):
    """Of three heads and two endpoints."""
    return RoundLosses(LossSums(np.full((3, 2), float(loss)), np.full((3, 2), float(events))))


NORTH, SOUTH, REGISTRY = losses(3, 2), losses(5, 4), losses(70, 60)


def equal(found, loss, events):
    np.testing.assert_array_equal(found.loss, np.full((3, 2), loss))
    np.testing.assert_array_equal(found.events, np.full((3, 2), events))
    return True


def test_they_are_those_of_the_sites_with_images():
    by_site = {"north": NORTH, "registry": REGISTRY, "south": SOUTH}
    assert equal(selecting_losses(by_site, ["north", "south"]), 8, 6)
    assert equal(selecting_losses(by_site, ["north", "south", "registry"]), 78, 66)


@pytest.mark.parametrize("events", [0, 1, 4])
def test_without_a_site_with_images_or_with_fewer_than_ten_events_there_all_select(events):
    assert selecting_losses({"registry": REGISTRY}, []) is None
    assert selecting_losses({"north": losses(3, events), "registry": REGISTRY}, ["north"]) is None


def test_ten_events_over_the_endpoints_are_enough():
    assert equal(selecting_losses({"north": losses(3, 5), "registry": REGISTRY}, ["north"]), 3, 5)


def test_a_round_in_which_a_site_with_images_is_missing_has_fewer_events():
    assert equal(selecting_losses({"north": NORTH, "registry": REGISTRY}, ["north", "south"]), 3, 2)
    assert equal(selecting_losses({"registry": REGISTRY}, ["north"]), 0, 0)


@pytest.mark.parametrize(
    ("channels", "with_image", "may_have"),
    [(("t1",), 40, True), (("t1",), 0, False), ((), 0, False), (("t1",), 39, True)],
)
def test_a_site_with_images_has_one_and_may_withhold_how_many(channels, with_image, may_have):
    description = SiteDescription("north", channels, 40, {"os": 9}, with_image, ClinicalSummary({}, {}))
    assert description.suppressed(5).may_have_images is may_have
