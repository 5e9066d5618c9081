import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_imaging import imaging, named

from stsmm_core.imaging.preprocess import (
    bounding_box,
    perilesional_region,
    preprocess_patient,
    tumour_grid,
    zscore,
)
from stsmm_core.imaging.volume import read_volume

ANISOTROPIC = ((100, 64, 24), (0.8, 1.25, 5.0))
"""80 x 80 x 120 mm."""


def extents(nonzero):
    """Voxels along D, H, W of the smallest box around them."""
    return np.array([np.ptp(along) + 1 for along in np.nonzero(nonzero)])


def test_a_box_keeps_its_millimetres(tmp_path, phantoms, noise):
    grid = phantoms.grid(*ANISOTROPIC, centre=(30, -40, 500))
    channel = grid.write(tmp_path / "t1.nii.gz", noise)
    mask = grid.write(tmp_path / "mask.nii.gz", phantoms.box((48, 30, 60), centre=(30, -40, 500)))
    tensor = preprocess_patient({"t1": channel}, mask, imaging(shape=(32, 32, 32), margin_mm=0))
    assert tensor.shape == (1, 32, 32, 32)
    assert tensor.dtype == np.float32
    spacing = 60 / 32  # the longest side, z, fills the tensor
    np.testing.assert_allclose(extents(tensor[0]) * spacing, [60, 30, 48], atol=spacing)
    assert (tensor != 0).sum() * spacing**3 == pytest.approx(48 * 30 * 60, rel=0.07)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((16, 16, 16), 60 / 16), ((16, 32, 64), 60 / 16), ((64, 16, 16), 48 / 16), ((64, 32, 16), 48 / 16)],
)
def test_shape_is_depth_height_width(tmp_path, phantoms, noise, shape, spacing):
    grid = phantoms.grid(*ANISOTROPIC)
    channel = grid.write(tmp_path / "t1.nii.gz", noise)
    mask = grid.write(tmp_path / "mask.nii.gz", phantoms.box((48, 30, 60)))
    tensor = preprocess_patient({"t1": channel}, mask, imaging(shape=shape, margin_mm=0))
    assert tensor.shape == (1, *shape)
    np.testing.assert_allclose(extents(tensor[0]) * spacing, [60, 30, 48], atol=spacing)
    middle = [(along.min() + along.max()) / 2 for along in np.nonzero(tensor[0])]
    np.testing.assert_allclose(middle, (np.array(shape) - 1) / 2, atol=0.6)


def test_grid_spacing_and_centre(tmp_path, phantoms):
    direction = phantoms.rotation((1, 1, 0), 30)
    grid = phantoms.grid(*ANISOTROPIC, centre=(3, 4, 5), direction=direction)

    def oblique_box(points):
        local = (points - np.array([3, 4, 5])) @ np.reshape(direction, (3, 3))
        return phantoms.box((48, 30, 60))(local)

    tumour = read_volume(grid.write(tmp_path / "mask.nii.gz", oblique_box))
    found = tumour_grid(tumour, tumour.geometry, shape=(20, 40, 30), margin_mm=6)
    assert found.size == (30, 40, 20)
    assert found.spacing_mm == pytest.approx([max(60 / 30, 42 / 40, 72 / 20)] * 3, rel=1e-4)
    assert found.direction == pytest.approx(direction, abs=1e-5)
    middle = np.array(found.origin) + found.axes @ ((np.array(found.size) - 1) / 2 * np.array(found.spacing_mm))
    np.testing.assert_allclose(middle, [3, 4, 5], atol=1e-3)


def test_a_mask_turned_against_the_channel_is_held_whole(tmp_path, phantoms):
    """Every corner of every tumour voxel lies in the grid's box, and the box is no larger than they need."""
    turned = phantoms.grid((30, 30, 20), (1.0, 1.0, 3.0), direction=phantoms.rotation((1, 2, 3), 35))
    tumour = read_volume(turned.write(tmp_path / "mask.nii.gz", phantoms.box((14, 10, 20))))
    reference = read_volume(phantoms.grid((8, 8, 8), (4, 4, 4)).write(tmp_path / "t1.nii.gz", phantoms.ramp((1, 0, 0))))
    grid = tumour_grid(tumour, reference.geometry, shape=(16, 16, 16), margin_mm=0)
    centres = turned.points()[tumour.array > 0]
    halves = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3), axis=-1).reshape(-1, 3) * turned.spacing
    corners = (centres[:, None] + halves @ np.reshape(turned.direction, (3, 3)).T).reshape(-1, 3)
    lower = np.array(grid.origin) - grid.spacing_mm[0] / 2
    upper = lower + 16 * grid.spacing_mm[0]
    assert (corners >= lower - 1e-4).all()
    assert (corners <= upper + 1e-4).all()
    assert grid.spacing_mm[0] * 16 == pytest.approx(np.ptp(corners, axis=0).max(), rel=1e-4)


def test_channels_on_different_grids_are_aligned(tmp_path, phantoms):
    """A bright point at a known place is in the same, right, voxel of both channels."""
    point = (14.0, -8.0, 22.0)
    first = phantoms.grid((80, 90, 30), (1.0, 0.9, 3.0))
    second = phantoms.grid((30, 25, 40), (3.5, 4.0, 2.5), centre=(5, -3, 8), direction=phantoms.rotation((1, 3, 2), 40))
    channels = [
        first.write(tmp_path / "t1.nii.gz", phantoms.blob(point, 6)),
        second.write(tmp_path / "pet.nii.gz", phantoms.blob(point, 6)),
    ]
    mask = first.write(tmp_path / "mask.nii.gz", phantoms.box((50, 40, 60)))
    config = imaging(shape=(33, 33, 33), margin_mm=3)
    tensor = preprocess_patient(named(channels), mask, config)
    spacing = (60 + 6) / 33
    expected = np.round(np.array(point)[::-1] / spacing + 16).astype(int)
    for channel in tensor:
        np.testing.assert_array_equal(np.unravel_index(channel.argmax(), channel.shape), expected)
    assert np.corrcoef(tensor[0][tensor[0] != 0], tensor[1][tensor[0] != 0])[0, 1] > 0.99


@settings(max_examples=8, deadline=None)
@given(degrees=st.floats(-60, 60), axis=st.tuples(*[st.floats(0.1, 1)] * 3), shift=st.floats(-8, 8))
def test_one_physical_field_gives_one_tensor(tmp_path_factory, phantoms, degrees, axis, shift):
    """The same plane of intensity on two grids of any place and direction: equal tensors, whatever scale and offset."""
    folder = tmp_path_factory.mktemp("patient")
    first = phantoms.grid((40, 40, 20), (2.0, 2.0, 4.0), direction=phantoms.rotation((0, 1, 1), 20))
    second = phantoms.grid(
        (40, 36, 44), (3.0, 3.5, 3.0), centre=(shift, 0, -shift), direction=phantoms.rotation(axis, degrees)
    )
    channels = [
        first.write(folder / "t1.nii.gz", phantoms.ramp((1.0, 2.0, -1.5))),
        second.write(folder / "t2.nii.gz", phantoms.ramp((10.0, 20.0, -15.0), offset=1000.0)),
    ]
    mask = first.write(folder / "mask.nii.gz", phantoms.box((30, 24, 36)))
    tensor = preprocess_patient(named(channels), mask, imaging(shape=(12, 16, 20), margin_mm=2))
    assert tensor[0].std() > 0.1
    np.testing.assert_allclose(tensor[0], tensor[1], atol=5e-3)


def test_axes_follow_the_first_channel(tmp_path, phantoms):
    """Intensity that grows along the channel's own x axis varies along W alone."""
    direction = phantoms.rotation((2, 1, 3), 50)
    grid = phantoms.grid((60, 60, 24), (1.0, 1.0, 3.0), direction=direction)
    x_axis = np.reshape(direction, (3, 3))[:, 0]
    channel = grid.write(tmp_path / "t1.nii.gz", phantoms.ramp(tuple(x_axis)))
    mask = grid.write(tmp_path / "mask.nii.gz", phantoms.box((25, 25, 25)))
    tensor = preprocess_patient({"t1": channel}, mask, imaging(shape=(16, 16, 16), margin_mm=0))[0]
    inside = tensor != 0
    for column in range(16):
        values = tensor[:, :, column][inside[:, :, column]]
        if len(values):
            assert np.ptp(values) < 1e-3
    columns = [tensor[:, :, column][inside[:, :, column]].mean() for column in range(16) if inside[:, :, column].any()]
    assert len(columns) > 8
    assert (np.diff(columns) > 0).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_left_handed_grid_is_not_mirrored(tmp_path, phantoms, axis):
    """A patient stored with one axis in reverse: the tensor is at most turned, and equal for the slices' axis."""
    mask = phantoms.box((24, 24, 30))
    marks = [phantoms.blob(point, 4) for point in ((9, 0, 0), (0, 9, 0), (0, 0, 9))]
    usual = np.reshape(phantoms.rotation((1, 2, 3), 20), (3, 3))
    reverse = np.diag([-1.0 if along == axis else 1.0 for along in range(3)])

    def tensor(direction):
        grid = phantoms.grid((40, 40, 20), (1.2, 1.2, 3.0), direction=tuple(direction.ravel().tolist()))
        channels = [grid.write(tmp_path / f"{number}.nii.gz", mark) for number, mark in enumerate(marks)]
        outline = grid.write(tmp_path / "mask.nii.gz", lambda points: mask(points @ usual))
        return preprocess_patient(named(channels), outline, imaging(shape=(24, 24, 24), margin_mm=2))

    def handedness(channels):
        peaks = [np.array(np.unravel_index(channel.argmax(), channel.shape)) - 11.5 for channel in channels]
        return np.sign(np.linalg.det(peaks))

    there, back = tensor(usual), tensor(usual @ reverse)
    assert handedness(there) == handedness(back)
    if axis == 2:
        np.testing.assert_allclose(there, back, atol=2e-3)


def test_zscore_over_the_bounding_region(tmp_path, phantoms, noise):
    """A box tumour without margin is its own bounding region: mean 0, SD 1, whatever the unit of the channel."""
    grid = phantoms.grid((48, 48, 16), (1.0, 1.0, 3.0))
    channels = [
        grid.write(tmp_path / "t1.nii.gz", noise),
        grid.write(tmp_path / "t2.nii.gz", lambda points: 1e-3 * noise(points) + 7),
    ]
    mask = grid.write(tmp_path / "mask.nii.gz", phantoms.box((24, 24, 24)))
    tensor = preprocess_patient(named(channels), mask, imaging(shape=(24, 32, 40), margin_mm=0))
    inside = tensor != 0
    np.testing.assert_array_equal(inside[0], inside[1])
    for channel in tensor:
        assert channel[inside[0]].mean() == pytest.approx(0, abs=1e-4)
        assert channel[inside[0]].std() == pytest.approx(1, abs=1e-4)


def test_a_partly_covered_tumour_is_standardised_over_what_is_seen(tmp_path, phantoms, noise):
    """Channel 2 ends in the middle of the tumour: beyond it 0, before it mean 0 and SD 1."""
    grid = phantoms.grid((48, 48, 16), (1.0, 1.0, 3.0))
    half = phantoms.grid((48, 48, 8), (1.0, 1.0, 3.0), centre=(0, 0, -12))
    channels = [grid.write(tmp_path / "t1.nii.gz", noise), half.write(tmp_path / "t2.nii.gz", noise)]
    mask = grid.write(tmp_path / "mask.nii.gz", phantoms.box((24, 24, 24)))
    tensor = preprocess_patient(named(channels), mask, imaging(shape=(24, 24, 24), margin_mm=0))
    assert (tensor[0] != 0).all()
    assert (tensor[1, 12:] == 0).all()
    assert tensor[1, :12].mean() == pytest.approx(0, abs=1e-4)
    assert tensor[1, :12].std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("margin", [0.0, 4.0, 10.0])
def test_margin_is_in_millimetres_on_any_spacing(tmp_path, phantoms, noise, margin):
    grid = phantoms.grid(*ANISOTROPIC)
    channel = grid.write(tmp_path / "t1.nii.gz", noise)
    mask = grid.write(tmp_path / "mask.nii.gz", phantoms.box((48, 30, 60)))
    tensor = preprocess_patient({"t1": channel}, mask, imaging(shape=(40, 40, 40), margin_mm=margin))
    spacing = (60 + 2 * margin) / 40
    expected = np.array([60, 30, 48]) + 2 * margin
    np.testing.assert_allclose(extents(tensor[0]) * spacing, expected, atol=spacing)
    # The corners of the margin are round: the box's own corner cubes of side `margin` are not full.
    rounded = 48 * 30 * 60 + 2 * margin * (48 * 30 + 30 * 60 + 48 * 60)
    rounded += np.pi * margin**2 * (48 + 30 + 60) + 4 / 3 * np.pi * margin**3
    assert (tensor != 0).sum() * spacing**3 == pytest.approx(rounded, rel=0.08)


def test_margin_is_a_distance_not_a_count_of_voxels():
    inside = np.zeros((21, 21, 21), bool)
    inside[10, 10, 10] = True
    voxels = np.stack(np.indices(inside.shape), axis=-1)
    for spacing in (0.5, 1.0, 2.5):
        region = perilesional_region(inside, spacing_mm=spacing, margin_mm=3.0)
        to_centre = np.linalg.norm((voxels - 10) * spacing, axis=-1)
        np.testing.assert_array_equal(region, (to_centre <= 3.0 + spacing / 2) | inside)


def test_no_margin_is_the_tumour_alone():
    inside = np.random.default_rng(1).random((9, 9, 9)) < 0.3
    np.testing.assert_array_equal(perilesional_region(inside, spacing_mm=0.7, margin_mm=0), inside)


def test_bounding_box():
    region = np.zeros((5, 6, 7), bool)
    region[1, 2, 3] = region[3, 5, 4] = True
    assert bounding_box(region) == (slice(1, 4), slice(2, 6), slice(3, 5))


def test_any_nonzero_voxel_is_tumour(tmp_path, phantoms, noise):
    grid = phantoms.grid((32, 32, 16), (1.0, 1.0, 2.0))
    channel = grid.write(tmp_path / "t1.nii.gz", noise)
    tumour = phantoms.box((20, 16, 18))
    config = imaging(shape=(16, 16, 16), margin_mm=2)
    tensors = [
        preprocess_patient(
            {"t1": channel}, grid.write(tmp_path / f"mask{value}.nii.gz", lambda p, v=value: v * tumour(p)), config
        )
        for value in (1, 255)
    ]
    np.testing.assert_array_equal(*tensors)


def test_zscore_keeps_missing_voxels_missing(tmp_path):
    values = np.array([[[1.0, 2.0, 3.0, np.nan, 99.0]]], np.float32)
    box = (slice(0, 1), slice(0, 1), slice(0, 4))
    result = zscore(values, box, source=tmp_path / "t1.nii.gz")
    sd = np.sqrt(2 / 3)
    np.testing.assert_allclose(result[0, 0], [-1 / sd, 0, 1 / sd, np.nan, 97 / sd], rtol=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize("patient", ["STS_005", "STS_022"])
def test_real_patients(sts_public, patient):
    folder = sts_public / patient
    config = imaging(shape=(32, 32, 32))
    channels = [folder / "t1.nii.gz", folder / "pet.nii.gz"]
    tensor = preprocess_patient(named(channels), folder / "t1_mask.nii.gz", config)
    assert tensor.shape == (2, 32, 32, 32)
    assert np.isfinite(tensor).all()
    inside = (tensor != 0).any(axis=0)
    assert 0.05 < inside.mean() < 0.8
    assert (tensor.std(axis=(1, 2, 3)) > 0.1).all()
    t1, pet = tensor[:, inside]
    # T1 and PET show different things of one body (fat is bright on T1 and cold on PET): related, but no copies.
    assert 0.01 < abs(np.corrcoef(t1, pet)[0, 1]) < 0.95
    # The PET was contoured on its own grid: framed by that mask instead, the same patient gives nearly the same tensor.
    by_pet_mask = preprocess_patient(named(channels), folder / "pet_mask.nii.gz", config)
    assert np.corrcoef(tensor[1].ravel(), by_pet_mask[1].ravel())[0, 1] > 0.7
