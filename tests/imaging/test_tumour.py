import csv
import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stsmm_core.errors import CohortError
from stsmm_core.imaging.tumour import tumour_size
from stsmm_core.imaging.volume import Geometry, Volume, read_volume

DIRECTION = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def as_mask(array, spacing=(1.0, 1.0, 1.0)):
    array = np.asarray(array, np.float32)
    return Volume(array, Geometry(array.shape[::-1], spacing, (10.0, 20.0, 30.0), DIRECTION))


def test_box_of_known_size():
    array = np.zeros((12, 30, 40))
    array[2:12, 5:25, 10:40] = 255
    size = tumour_size(as_mask(array, (0.5, 1.0, 3.0)))
    assert size.volume_cm3 == pytest.approx(15 * 20 * 30 / 1000)
    assert size.size_cm == pytest.approx(math.hypot(29 * 0.5, 19 * 1.0, 9 * 3.0) / 10)


def test_ball():
    z, y, x = np.indices((50, 100, 100))
    array = ((x - 50) * 0.5) ** 2 + ((y - 50) * 0.5) ** 2 + ((z - 25) * 1.0) ** 2 <= 20**2
    size = tumour_size(as_mask(array, (0.5, 0.5, 1.0)))
    assert size.volume_cm3 == pytest.approx(4 / 3 * math.pi * 2**3, rel=0.01)
    assert size.size_cm == pytest.approx(4.0, abs=0.05)


def test_separate_parts_are_one_tumour():
    array = np.zeros((5, 5, 30))
    array[:, :, :3] = array[:, :, 27:] = 1
    assert tumour_size(as_mask(array)).size_cm == pytest.approx(math.hypot(4, 4, 29) / 10)


@pytest.mark.parametrize(
    ("voxels", "expected_mm"),
    [
        ([(2, 2, 2)], 0.0),
        ([(0, 1, 1), (4, 1, 1)], 4 * 5.0),
        ([(1, 0, 0), (1, 1, 1), (1, 2, 2)], math.hypot(2 * 2.0, 2 * 3.0)),
        ([(1, 0, 0), (1, 0, 3), (1, 4, 0), (1, 4, 3)], math.hypot(3 * 2.0, 4 * 3.0)),
        ([(0, 0, 0), (1, 1, 1), (2, 2, 2), (0, 0, 2), (2, 2, 0)], math.hypot(2 * 2.0, 2 * 3.0, 2 * 5.0)),
    ],
    ids=["voxel", "row", "diagonal row", "slice", "oblique plane"],
)
def test_flat_masks(voxels, expected_mm):
    array = np.zeros((5, 5, 5))
    for z, y, x in voxels:
        array[z, y, x] = 1
    size = tumour_size(as_mask(array, (2.0, 3.0, 5.0)))
    assert size.size_cm == pytest.approx(expected_mm / 10)
    assert size.volume_cm3 == pytest.approx(len(voxels) * 30 / 1000)


@settings(max_examples=60, deadline=None)
@given(
    array=arrays(bool, st.tuples(*[st.integers(1, 5)] * 3)),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
)
def test_agrees_with_all_pairs(array, spacing):
    assume(array.any())
    points = [tuple(i * s for i, s in zip(index[::-1], spacing, strict=True)) for index in np.argwhere(array).tolist()]
    longest = max((math.dist(a, b) for a, b in itertools.combinations(points, 2)), default=0.0)
    size = tumour_size(as_mask(array, spacing))
    assert size.size_cm == pytest.approx(longest / 10, abs=1e-9)
    assert size.volume_cm3 == pytest.approx(array.sum() * math.prod(spacing) / 1000)


def test_empty_mask():
    with pytest.raises(CohortError, match="the tumour mask is empty"):
        tumour_size(as_mask(np.zeros((3, 3, 3))))


@pytest.mark.real_data
@pytest.mark.parametrize("patient", ["STS_004", "STS_020", "STS_044"])
def test_published_sizes(sts_public, patient):
    """STS_020 reaches the image border, STS_044 has two parts."""
    with (sts_public / "clinical.csv").open(encoding="utf-8", newline="") as stream:
        row = next(row for row in csv.DictReader(stream) if row["patient_id"] == patient)
    size = tumour_size(read_volume(sts_public / patient / "t1_mask.nii.gz"))
    assert size.volume_cm3 == pytest.approx(float(row["tumor_volume_cm3"]), abs=0.0051)
    assert size.size_cm == pytest.approx(float(row["tumor_diameter_cm"]), abs=0.0051)
