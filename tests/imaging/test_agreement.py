"""Agreement of two readers, against closed forms, MONAI and the published example of the ICC."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from stsmm_core.errors import CohortError
from stsmm_core.imaging.agreement import (
    compare_masks,
    intraclass_correlation,
    mean_share_with_interval,
    mean_with_interval,
)
from stsmm_core.imaging.volume import Geometry, Volume

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SPACING = (0.8, 1.0, 2.5)
GEOMETRY = Geometry((30, 28, 20), SPACING, (0.0, 0.0, 0.0), IDENTITY)


def ball(centre, radius):
    z, y, x = np.indices(GEOMETRY.size[::-1])
    inside = ((x - centre[0]) * 0.8) ** 2 + (y - centre[1]) ** 2 + ((z - centre[2]) * 2.5) ** 2 < radius**2
    return Volume(inside.astype(np.float32), GEOMETRY)


def test_same_mask_twice():
    agreement = compare_masks(ball((14, 14, 9), 8), ball((14, 14, 9), 8))
    assert (agreement.dice, agreement.mean_surface_mm, agreement.hausdorff95_mm) == (1, 0, 0)


def test_box_moved_by_one_slice():
    first, second = (np.zeros(GEOMETRY.size[::-1], np.float32) for _ in range(2))
    first[5:9, 8:20, 8:20] = second[6:10, 8:20, 8:20] = 1
    agreement = compare_masks(Volume(first, GEOMETRY), Volume(second, GEOMETRY))
    assert agreement.dice == pytest.approx(2 * 3 / 8)
    assert agreement.volumes_cm3 == pytest.approx((4 * 144 * 2 / 1000,) * 2)
    assert agreement.hausdorff95_mm == pytest.approx(2.5)


def test_distances_agree_with_monai():
    first, second = ball((14, 14, 9), 8), ball((16, 13, 10), 7)
    agreement = compare_masks(first, second)
    # MONAI takes one-hot (batch, class, x, y, z) and the mean and percentile of each direction apart.
    a, b = (torch.from_numpy(each.array.transpose(2, 1, 0))[None, None] for each in (first, second))
    there = compute_average_surface_distance(a, b, include_background=True, spacing=SPACING).item()
    back = compute_average_surface_distance(b, a, include_background=True, spacing=SPACING).item()
    assert min(there, back) <= agreement.mean_surface_mm <= max(there, back)
    worst = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=SPACING).item()
    assert agreement.hausdorff95_mm == pytest.approx(worst, rel=1e-5)


def test_masks_that_cannot_be_compared():
    empty = Volume(np.zeros(GEOMETRY.size[::-1], np.float32), GEOMETRY)
    with pytest.raises(CohortError, match="empty"):
        compare_masks(ball((14, 14, 9), 8), empty)
    moved = Volume(empty.array + 1, Geometry(GEOMETRY.size, SPACING, (5.0, 0.0, 0.0), IDENTITY))
    with pytest.raises(CohortError, match="different grids"):
        compare_masks(ball((14, 14, 9), 8), moved)


SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
"""Table 2 of Shrout and Fleiss, Psychological Bulletin 1979;86:420: six targets, four judges."""


def test_icc_of_shrout_and_fleiss():
    estimate = intraclass_correlation(SHROUT_FLEISS)
    assert estimate.value == pytest.approx(0.29, abs=0.005)  # ICC(2,1), their Table 4
    assert estimate.low == pytest.approx(0.019, abs=0.001)  # McGraw and Wong's interval, as R's irr prints it
    assert estimate.high == pytest.approx(0.761, abs=0.001)


def test_icc_sees_a_constant_difference():
    volumes = np.array([[10.0, 10.0], [50.0, 50.0], [90.0, 90.0], [200.0, 200.0]])
    assert intraclass_correlation(volumes).value == pytest.approx(1)
    assert intraclass_correlation(volumes + np.array([[0, 60]])).value < 0.9


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_icc_of_two_readers_who_are_one(seed, scale):
    """Sums of squares of equal readers are 0 but for rounding."""
    volumes = scale * np.random.default_rng(seed).lognormal(4, 1, (12, 1))
    estimate = intraclass_correlation(np.repeat(volumes, 2, axis=1))
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)


@pytest.mark.parametrize("ratings", [np.ones((1, 2)), np.ones((5, 2))], ids=["one tumour", "no variance"])
def test_icc_without_an_answer(ratings):
    assert np.isnan(intraclass_correlation(ratings).value)


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [
        estimate.low <= 3 <= estimate.high
        for estimate in (mean_with_interval(rng.normal(3, 1, 8)) for _ in range(2000))
    ]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)
    assert np.isnan(mean_with_interval(np.array([1.0])).low)


def test_intervals_hold_only_what_can_be():
    shares, distances = np.array([0.99, 0.98, 0.6, 0.99]), np.array([0.1, 0.2, 0.1, 9.0])
    estimate = mean_share_with_interval(shares)
    assert 0 < estimate.low < estimate.value == shares.mean() < estimate.high < 1
    assert mean_with_interval(shares).high > 1  # the plain interval does not know
    assert mean_with_interval(distances).low == 0


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_share_of_equal_values(value):
    estimate = mean_share_with_interval(np.full(4, value))
    assert (estimate.value, estimate.low, estimate.high) == (value, value, value)
    single = mean_share_with_interval(np.array([value]))
    assert np.isnan([single.low, single.high]).all()


def test_share_interval_covers_the_mean_as_often_as_it_says():
    """Dice of 36 tumours about 0.9, as two readers have it."""
    rng = np.random.default_rng(2)
    estimates = [mean_share_with_interval(rng.beta(18, 2, 36)) for _ in range(2000)]
    assert np.mean([each.low <= 0.9 <= each.high for each in estimates]) == pytest.approx(0.95, abs=0.015)


def test_icc_interval_covers_the_truth():
    """Patients' variance 4, readers' 0.25, error 0.75: ICC 0.8."""
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(500):
        ratings = rng.normal(0, 2, (40, 1)) + rng.normal(0, 0.5, (1, 3)) + rng.normal(0, 0.75**0.5, (40, 3))
        estimate = intraclass_correlation(ratings)
        hits.append(estimate.low <= 0.8 <= estimate.high)
    assert np.mean(hits) > 0.9
