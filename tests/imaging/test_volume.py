import gzip
import math
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import (
    Geometry,
    Volume,
    from_image,
    inspect_volume,
    read_volume,
    resample,
    to_image,
)

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def test_reads_values_and_geometry(tmp_path, phantoms):
    direction = phantoms.rotation((1, 2, 3), 25)
    grid = phantoms.grid((5, 6, 7), (0.5, 1.0, 3.0), centre=(10, -20, 30), direction=direction)
    volume = read_volume(grid.write(tmp_path / "t1.nii.gz", phantoms.ramp((1, 10, 100))))
    assert volume.array.shape == (7, 6, 5)
    assert volume.array.dtype == np.float32
    assert volume.geometry.size == (5, 6, 7)
    assert volume.geometry.spacing_mm == pytest.approx((0.5, 1.0, 3.0))
    assert volume.geometry.origin == pytest.approx(grid.origin, abs=1e-4)
    assert volume.geometry.direction == pytest.approx(direction, abs=1e-5)
    np.testing.assert_allclose(volume.array, grid.points() @ [1, 10, 100], rtol=1e-4, atol=1e-3)


def test_conversion_round_trip(phantoms):
    image = phantoms.grid((3, 4, 5), (1, 2, 3), direction=phantoms.rotation((0, 1, 1), 40)).sample(
        phantoms.ramp((1, 2, 3))
    )
    back = to_image(from_image(image))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    assert back.GetDirection() == image.GetDirection()
    assert (back.GetOrigin(), back.GetSpacing()) == (image.GetOrigin(), image.GetSpacing())


def test_an_array_must_fit_its_grid():
    with pytest.raises(ValueError, match="does not fit"):
        Volume(np.zeros((2, 3, 4), np.float32), Geometry((2, 3, 4), (1, 1, 1), (0, 0, 0), IDENTITY))


def test_missing_file(tmp_path):
    with pytest.raises(CohortError, match=r"t1\.nii\.gz: no such file"):
        read_volume(tmp_path / "t1.nii.gz")


def test_the_path_is_named_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t1.nii.gz").write_bytes(b"no image")
    with pytest.raises(CohortError, match=r"^t1\.nii\.gz: cannot be read as an image"):
        read_volume((tmp_path / "t1.nii.gz").relative_to(tmp_path))


@pytest.mark.parametrize("shape", [(4, 3), (1, 4, 3), (2, 3, 4, 5)])
def test_two_and_four_dimensions_and_one_slice_are_refused(tmp_path, shape):
    path = tmp_path / "t1.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros(shape, np.float32), isVector=False), str(path))
    with pytest.raises(CohortError, match=r"t1.nii.gz: is not 3D \("):
        read_volume(path)


@pytest.mark.parametrize("kind", ["vector", "complex"])
def test_more_than_one_number_a_voxel_is_refused(tmp_path, kind):
    path = tmp_path / "t1.nii.gz"
    if kind == "vector":
        image = sitk.GetImageFromArray(np.zeros((2, 3, 4, 3), np.float32), isVector=True)
    else:
        image = sitk.GetImageFromArray(np.zeros((2, 3, 4), np.complex64))
    sitk.WriteImage(image, str(path))
    with pytest.raises(CohortError, match="one real number a voxel"):
        read_volume(path)


@pytest.mark.parametrize("kept", [0.4, 0.99])
@pytest.mark.parametrize("name", ["t1.nii.gz", "t1.nii"])
def test_a_file_cut_short_is_refused(tmp_path, name, kept):
    path = tmp_path / name
    values = np.random.default_rng(0).normal(size=(20, 21, 22)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    np.testing.assert_array_equal(read_volume(path).array, values)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(CohortError, match=rf"{name}.*cut short.*copy it again"):
        read_volume(path)


def test_a_whole_archive_of_half_a_volume_is_refused(tmp_path):
    path = tmp_path / "t1.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((20, 21, 22), np.float32)), str(path))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[: len(content) // 2]))
    with pytest.raises(CohortError, match="cut short"):
        read_volume(path)


@pytest.mark.parametrize("pixel", [np.uint8, np.int16, np.float64])
def test_any_number_type_is_read(tmp_path, pixel):
    path = tmp_path / "t1.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(24).reshape(2, 3, 4).astype(pixel)), str(path))
    np.testing.assert_array_equal(read_volume(path).array, np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize("name", ["t1.nii.gz", "t1.nii", "t1.mha"])
@pytest.mark.parametrize("pixel", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(tmp_path, name, pixel, value):
    """ITK itself reads them as 0 from NIfTI."""
    path = tmp_path / name
    values = np.ones((3, 4, 5), pixel)
    values[2, 3, 4] = values[0, 0, 0] = value
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    with pytest.raises(CohortError, match=rf"{name}: 2 of 60 voxels are NaN or infinite"):
        read_volume(path)


@pytest.mark.parametrize("spoilt", [False, True])
def test_big_endian_files(tmp_path, spoilt):
    values = np.arange(24, dtype=">f4").reshape(2, 3, 4)
    if spoilt:
        values[1, 1, 1] = np.nan
    header = bytearray(352)
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, 40, 3, 4, 3, 2, 1, 1, 1, 1)
    struct.pack_into(">2h", header, 70, 16, 32)
    struct.pack_into(">8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into(">f", header, 108, 352)
    struct.pack_into(">h", header, 252, 1)
    header[344:348] = b"n+1\0"
    path = tmp_path / "t1.nii"
    path.write_bytes(bytes(header) + values.tobytes())
    if spoilt:
        with pytest.raises(CohortError, match="1 of 24 voxels are NaN"):
            read_volume(path)
    else:
        np.testing.assert_array_equal(read_volume(path).array, values)


@settings(max_examples=20, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(1.2, 4)] * 3),
    step=st.tuples(*[st.floats(0.5, 4)] * 3),
    degrees=st.floats(-90, 90),
    axis=st.tuples(*[st.floats(0.1, 1)] * 3),
)
@example(spacing=(2.0, 2.0, 1.25), step=(1.0, 1.0, 1.0), degrees=2.3e-309, axis=(1.0, 1.0, 1.0))
def test_linear_keeps_a_ramp_on_any_grid(phantoms, spacing, step, degrees, axis):
    """Interpolation and any symmetric smoothing reproduce a plane exactly, away from the edges."""
    field = phantoms.ramp((3.0, -2.0, 1.0), offset=100.0)
    size = tuple(math.ceil(80 / along) for along in spacing)
    source = phantoms.grid(size, spacing, centre=(5, 6, 7), direction=phantoms.rotation(axis, degrees))
    target = phantoms.grid((5, 4, 6), step, centre=(5, 6, 7), direction=phantoms.rotation((1, 0, 1), 30))
    geometry = Geometry(target.size, target.spacing, tuple(target.origin.tolist()), target.direction)
    result = resample(from_image(source.sample(field)), geometry, interpolation="linear")
    np.testing.assert_allclose(result.array, field(target.points()), atol=0.01)


def test_outside_the_field_of_view(phantoms):
    volume = from_image(phantoms.grid((4, 4, 4), (1, 1, 1)).sample(lambda points: np.ones(points.shape[:-1])))
    # Along x the voxels reach from -2 to 2.
    grid = Geometry((5, 1, 1), (1.0, 1.0, 1.0), (-2.1, 0.0, 0.0), IDENTITY)
    linear = resample(volume, grid, interpolation="linear").array[0, 0]
    nearest = resample(volume, grid, interpolation="nearest").array[0, 0]
    np.testing.assert_array_equal(linear, [np.nan, 1, 1, 1, 1])
    np.testing.assert_array_equal(nearest, [0, 1, 1, 1, 1])


def test_nearest_keeps_labels(phantoms):
    volume = from_image(phantoms.grid((40, 40, 40), (1, 1, 1)).sample(phantoms.box((20, 20, 20))))
    grid = Geometry((9, 9, 9), (3.3, 3.3, 3.3), (-13.2, -13.2, -13.2), IDENTITY)
    values = resample(volume, grid, interpolation="nearest").array
    assert set(np.unique(values)) == {0.0, 1.0}


def test_downsampling_does_not_alias():
    """Slices alternating between 9 and 11: read off every fourth, unsmoothed samples would all be 9."""
    stripes = np.broadcast_to((9.0 + 2 * (np.arange(64) % 2))[:, None, None], (64, 8, 8)).astype(np.float32)
    volume = Volume(stripes, Geometry((8, 8, 64), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY))
    grid = Geometry((8, 8, 12), (1.0, 1.0, 4.0), (0.0, 0.0, 8.0), IDENTITY)
    np.testing.assert_allclose(resample(volume, grid, interpolation="linear").array, 10.0, atol=0.02)


def test_smoothing_only_along_coarser_axes():
    """A grid coarser along z alone leaves the stripes along x as sharp as they were."""
    stripes = np.broadcast_to((np.arange(32) % 2)[None, None, :], (32, 8, 32)).astype(np.float32)
    volume = Volume(stripes, Geometry((32, 8, 32), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY))
    grid = Geometry((32, 8, 8), (1.0, 1.0, 4.0), (0.0, 0.0, 2.0), IDENTITY)
    result = resample(volume, grid, interpolation="linear").array
    np.testing.assert_allclose(result, stripes[:8], atol=1e-6)


def test_smoothing_has_the_documented_width():
    """One bright slice of the old volume, seen through a grid twice as coarse (shifted so as to sample every slice)."""
    values = np.zeros((81, 4, 4), np.float32)
    values[40] = 1
    volume = Volume(values, Geometry((4, 4, 81), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY))
    profile = np.zeros(80)
    for shift in range(2):
        grid = Geometry((4, 4, 40), (1.0, 1.0, 2.0), (0.0, 0.0, float(shift)), IDENTITY)
        profile[shift::2] = resample(volume, grid, interpolation="linear").array[:, 0, 0]
    assert profile.sum() == pytest.approx(1.0, abs=1e-5)
    variance = (profile * (np.arange(80) - 40.0) ** 2).sum()
    # Two point spreads in a row add their variances: 1 mm wide to 2 mm wide at half maximum.
    assert variance == pytest.approx((2**2 - 1**2) / 5.545, rel=0.1)


def test_transforms_that_disagree(tmp_path, capfd):
    """ITK only warns, and names the file past Python, when the affine transform is no rigid one."""
    path = tmp_path / "sheared.nii"
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32))
    image.SetSpacing((1.0, 1.5, 2.0))
    image.SetOrigin((3.0, -4.0, 5.0))
    sitk.WriteImage(image, str(path))
    read_volume(path)
    content = bytearray(path.read_bytes())
    rows = list(struct.unpack("<12f", content[280:328]))
    rows[1] += 0.4
    path.write_bytes(content[:280] + struct.pack("<12f", *rows) + content[328:])
    with pytest.raises(CohortError, match=r"\(sform and qform\) place the corners up to 2.4 mm apart"):
        read_volume(path)
    assert "sheared" not in capfd.readouterr().err


CODES, SFORM = slice(252, 256), slice(280, 328)
"""Of a NIfTI-1 header."""


@pytest.fixture
def rewritten(tmp_path):
    """Write a turned volume, in the header's words changed by the test; where it lies is known."""
    path = tmp_path / "t1.nii"
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32))
    image.SetSpacing((1.0, 1.5, 2.0))
    image.SetOrigin((30.0, -40.0, 50.0))

    def write(*, codes=(1, 1), unit=2, direction=IDENTITY, sform=None):
        image.SetDirection(direction)
        sitk.WriteImage(image, str(path))
        content = bytearray(path.read_bytes())
        content[CODES] = struct.pack("<2h", *codes)
        content[123] = unit
        if sform is not None:
            content[SFORM] = struct.pack("<12f", *sform)
        path.write_bytes(content)
        return path

    return write


def test_a_volume_without_a_place_is_refused(rewritten):
    """ITK puts it at the origin, and two channels with other fields of view upon each other."""
    with pytest.raises(
        CohortError, match=r"t1\.nii: does not say where the volume lies .* export it with its position"
    ):
        read_volume(rewritten(codes=(0, 0)))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("degrees", [35, 179.99, 180])
@pytest.mark.parametrize(("unit", "mm"), [(2, 1.0), (10, 1.0), (0, 1.0), (1, 1000.0), (3, 0.001)])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (2, 1), (1, 2)])
def test_transforms_that_agree_in_any_unit(rewritten, phantoms, codes, unit, mm, degrees, reverse):
    turn = np.reshape(phantoms.rotation((1, 2, 3), degrees), (3, 3)) * ((1, 1, -1) if reverse else 1)
    geometry = read_volume(rewritten(codes=codes, unit=unit, direction=turn.ravel().tolist())).geometry
    assert geometry.spacing_mm == pytest.approx(np.array([1.0, 1.5, 2.0]) * mm, rel=1e-5)
    assert geometry.origin == pytest.approx(np.array([30.0, -40.0, 50.0]) * mm, rel=1e-4)
    np.testing.assert_allclose(geometry.axes, turn, atol=1e-3 if degrees == 179.99 else 1e-5)


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1)])
def test_a_rigid_sform_elsewhere_than_the_qform_is_refused(rewritten, codes):
    """ITK takes the sform where its code is 1 and the transform is rigid, and the qform otherwise."""
    sform = (-1, 0, 0, -30, 0, -1.5, 0, 40, 0, 0, 2, 58)
    with pytest.raises(CohortError, match=r"place the corners up to 8\.0 mm apart"):
        read_volume(rewritten(codes=codes, sform=sform))


def test_a_reversed_axis_in_one_of_the_transforms_is_refused(rewritten):
    with pytest.raises(CohortError, match=r"place the corners up to 20\.0 mm apart"):
        read_volume(rewritten(sform=(-1, 0, 0, -30, 0, -1.5, 0, 40, 0, 0, -2, 50)))


def test_all_faults_of_a_file_come_together(rewritten):
    path = rewritten(codes=(0, 0))
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    volume, faults = inspect_volume(path)
    assert volume is not None
    assert [fault.split(" (")[0].split(";")[0] for fault in faults] == [
        "does not say where the volume lies",
        "1 of 336 voxels are NaN or infinite",
    ]
