"""A series becomes the volume that it is, or is refused with the place of its fault."""

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_export import Grid, oblique, rewrite, textured, write_series
from pydicom.uid import JPEGLSLossless, RLELossless

from stsmm_core.cohort.dicom.scan import scan_export
from stsmm_core.cohort.dicom.series import read_series
from stsmm_core.errors import CohortError


def read(folder):
    (series,) = scan_export(folder, ()).series
    return read_series(series)


@pytest.mark.parametrize("grid", [Grid(), oblique()], ids=["axial", "oblique"])
def test_series_equals_what_was_written_and_what_simpleitk_reads(tmp_path, grid):
    array = textured(grid)
    written = write_series(tmp_path, array, grid)
    volume, frame = read(tmp_path)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.origin, grid.origin, atol=1e-6)
    np.testing.assert_allclose(volume.geometry.spacing_mm, grid.spacing, rtol=1e-6)
    np.testing.assert_allclose(volume.geometry.axes, grid.axes, atol=1e-6)
    assert frame == written.frame
    # The oracle finds order and geometry by itself.
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    oracle = sitk.ReadImage(names)
    np.testing.assert_allclose(volume.geometry.direction, oracle.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(volume.geometry.origin, oracle.GetOrigin(), atol=1e-4)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(oracle))


def test_rescale_slope_and_intercept_of_each_slice(tmp_path):
    grid = Grid()
    written = write_series(tmp_path, textured(grid), grid)
    for number, path in enumerate(written.paths):
        rewrite(path, RescaleSlope=number + 1, RescaleIntercept=-7)
    volume, _ = read(tmp_path)
    expected = textured(grid) * np.arange(1, grid.size[2] + 1)[:, None, None] - 7
    np.testing.assert_allclose(volume.array, expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=str)
def test_compressed_pixels_are_read(tmp_path, syntax):
    grid = Grid()
    for path in write_series(tmp_path, textured(grid), grid).paths:
        file = pydicom.dcmread(path)
        file.compress(syntax, generate_instance_uid=False)
        file.save_as(path)
    np.testing.assert_array_equal(read(tmp_path)[0].array, textured(grid))


@pytest.mark.parametrize("grid", [Grid(), oblique()], ids=["axial", "oblique"])
def test_enhanced_multiframe_object_has_the_grid_of_its_single_slices(tmp_path, grid):
    written = write_series(tmp_path / "single", textured(grid), grid)
    enhanced = highdicom.legacy.LegacyConvertedEnhancedMRImage(
        [pydicom.dcmread(path) for path in written.paths],
        series_instance_uid=pydicom.uid.generate_uid(),
        series_number=2,
        sop_instance_uid=pydicom.uid.generate_uid(),
        instance_number=1,
    )
    (tmp_path / "multi").mkdir()
    enhanced.save_as(tmp_path / "multi" / "one.dcm")
    volume, frame = read(tmp_path / "multi")
    reference, _ = read(tmp_path / "single")
    assert frame == written.frame
    np.testing.assert_array_equal(volume.array, reference.array)
    assert volume.geometry.size == reference.geometry.size
    np.testing.assert_allclose(volume.geometry.spacing_mm, reference.geometry.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(volume.geometry.origin, reference.geometry.origin, atol=1e-4)
    np.testing.assert_allclose(volume.geometry.axes, reference.geometry.axes, atol=1e-6)
    assert np.linalg.det(volume.geometry.axes) == pytest.approx(1)


def test_inverted_multiframe_object(tmp_path):
    written = write_series(tmp_path / "single", textured(Grid()), Grid())
    enhanced = highdicom.legacy.LegacyConvertedEnhancedMRImage(
        [pydicom.dcmread(path) for path in written.paths], pydicom.uid.generate_uid(), 2, pydicom.uid.generate_uid(), 1
    )
    (tmp_path / "multi").mkdir()
    enhanced.PhotometricInterpretation = "MONOCHROME1"
    enhanced.save_as(tmp_path / "multi" / "one.dcm")
    with pytest.raises(CohortError, match="is stored inverted"):
        read(tmp_path / "multi")


def shift(written, index, step):
    position = [float(value) for value in written.datasets[index].ImagePositionPatient]
    rewrite(written.paths[index], ImagePositionPatient=list(np.array(position) + step))


def truncate(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def undecodable(path):
    file = pydicom.dcmread(path)
    file.compress(RLELossless, generate_instance_uid=False)
    file.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    file.save_as(path)


SPOILED = {
    "missing slice": (lambda w: w.paths[2].unlink(), r"lacks 1 slice\(s\) between 43.00 and 49.00 mm .*slices 2 and 3"),
    "two missing": (lambda w: [w.paths[i].unlink() for i in (2, 3)], r"lacks 2 slice\(s\)"),
    "duplicate": (lambda w: shift(w, 2, [0, 0, 3.0]), "has 1 slices twice, the first at 49.00 mm"),
    "uneven": (lambda w: shift(w, 2, [0, 0, 0.5]), "unevenly spaced: 3.50 mm instead of 3.00 mm between 43.00"),
    "sheared": (lambda w: [shift(w, i, [0, 0.4 * i, 0]) for i in range(6)], "shifted sideways by up to 2.00 mm"),
    "turned": (lambda w: rewrite(w.paths[3], ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "turned against each other"),
    "skewed axes": (
        lambda w: [rewrite(path, ImageOrientationPatient=[1, 0, 0, 0.5, 0.8, 0]) for path in w.paths],
        "no two perpendicular unit vectors",
    ),
    "other pixels": (lambda w: rewrite(w.paths[3], PixelSpacing=["0.8", "0.81"]), "differ in PixelSpacing"),
    "no pixels' size": (lambda w: [rewrite(p, PixelSpacing=[0, 0]) for p in w.paths], "PixelSpacing is not above 0"),
    "other size": (lambda w: rewrite(w.paths[3], Columns=6, Rows=20), "2 different values of Rows"),
    "other frame": (lambda w: rewrite(w.paths[3], FrameOfReferenceUID="1.2.3"), "different values of FrameOfReference"),
    "no position": (lambda w: rewrite(w.paths[3], ImagePositionPatient=None), "1 of 6 files have no ImagePosition"),
    "single slice": (lambda w: [path.unlink() for path in w.paths[1:]], "has a single slice"),
    "cut short": (lambda w: truncate(w.paths[3], 0.9), "slice 4 of 6 is cut short or damaged"),
    "colour": (lambda w: rewrite(w.paths[3], PhotometricInterpretation="RGB", SamplesPerPixel=3), "slice 4 .* colour"),
    "inverted": (
        lambda w: [rewrite(path, PhotometricInterpretation="MONOCHROME1") for path in w.paths],
        "is stored inverted .MONOCHROME1",
    ),
    "no decoder": (lambda w: undecodable(w.paths[3]), "slice 4 of 6 is compressed .MPEG2"),
    "no pixels": (lambda w: rewrite(w.paths[3], PixelData=None), "slice 4 of 6"),
}


def test_small_steps_that_add_up(tmp_path):
    grid = Grid(size=(12, 10, 100), spacing=(0.8, 0.8, 1.0))
    written = write_series(tmp_path, textured(grid), grid)
    for index in range(100):
        # 1 mm apart, then 1.016: no step differs from the usual one by more than 2 %, but the middle is 0.39 mm off.
        shift(written, index, [0, 0, 0.016 * max(0, index - 50)])
    with pytest.raises(CohortError, match=r"unevenly spaced: slice 51, at 90.00 mm .*lies 0.40 mm off"):
        read(tmp_path)


def test_pixel_spacing_is_compared_as_numbers(tmp_path):
    grid = Grid()
    written = write_series(tmp_path, textured(grid), grid)
    rewrite(written.paths[0], PixelSpacing=["0.8", "0.8"])
    rewrite(written.paths[1], PixelSpacing=["0.80", "0.800001"])
    np.testing.assert_array_equal(read(tmp_path)[0].array, textured(grid))


@pytest.mark.parametrize("fault", SPOILED)
def test_fault_is_named_with_its_place_and_without_the_file(tmp_path, fault):
    grid = Grid()
    written = write_series(tmp_path / "Mustermann", textured(grid), grid)
    spoil, message = SPOILED[fault]
    spoil(written)
    with pytest.raises(CohortError, match=message) as caught:
        read(tmp_path)
    assert "Mustermann" not in str(caught.value)
