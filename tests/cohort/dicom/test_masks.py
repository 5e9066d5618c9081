"""Segmentations, mask images and NIfTI masks come to lie on the grid of their images, or are refused."""

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_export import Grid, blob, oblique, textured, write_series
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from stsmm_core.cohort.dicom.masks import Outline, onto_grid, read_mask
from stsmm_core.cohort.dicom.scan import scan_export
from stsmm_core.cohort.dicom.series import read_series
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Geometry, Volume


def segmentation(path, written, masks, *, kind=SegmentationTypeValues.BINARY, omit_empty=True):
    """A SEG file of named masks (z, y, x) on a series, written by highdicom."""
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(masks, start=1)
    ]
    highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(one) for one in written.paths],
        pixel_array=np.stack(list(masks.values()), axis=-1),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=3,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=omit_empty,
    ).save_as(path)
    return path


@pytest.fixture(params=[Grid(), oblique()], ids=["axial", "oblique"])
def images(request, tmp_path):
    """A series, its grid as written and as read."""
    written = write_series(tmp_path / "images", textured(request.param), request.param)
    volume, _ = read_series(next(iter(scan_export(tmp_path / "images", ()).series)))
    return written, request.param, volume.geometry


@pytest.mark.parametrize("omit_empty", [True, False])
def test_segments_of_highdicom_round_trip(tmp_path, images, omit_empty):
    written, grid, geometry = images
    first, second = blob(grid, hole=True), np.zeros_like(blob(grid))
    second[1, 2:4, 1:3] = True
    masks = {"GTV": first.astype(np.uint8), "GTV 2": second.astype(np.uint8), "Oedema": np.ones_like(first, np.uint8)}
    path = segmentation(tmp_path / "seg.dcm", written, masks, omit_empty=omit_empty)
    mask = read_mask(Outline("segmentation", path, regions=("GTV", "GTV 2")), geometry, written.frame)
    np.testing.assert_array_equal(mask.volume.array > 0, first | second)
    assert mask.volume.geometry == geometry


def test_fractional_segment_is_inside_from_one_half_on(tmp_path, images):
    written, grid, geometry = images
    shares = np.zeros(grid.size[::-1], dtype=np.float32)
    shares[2, 3, 3:6] = [0.4, 0.6, 1.0]
    path = segmentation(tmp_path / "seg.dcm", written, {"GTV": shares}, kind=SegmentationTypeValues.FRACTIONAL)
    mask = read_mask(Outline("segmentation", path, regions=("GTV",)), geometry, written.frame)
    assert np.argwhere(mask.volume.array).tolist() == [[2, 3, 4], [2, 3, 5]]


@pytest.mark.parametrize("slices", [[0, 2], [1], [1, 2], [0, 3, 5]], ids=str)
@pytest.mark.parametrize("thickness", [3.0, 1.0])
def test_segmentation_that_does_not_say_how_far_apart_its_slices_are(tmp_path, images, slices, thickness):
    written, grid, geometry = images
    drawn = np.zeros(grid.size[::-1], dtype=np.uint8)
    drawn[slices, 2:5, 3:6] = 1
    path = segmentation(tmp_path / "seg.dcm", written, {"GTV": drawn})
    file = pydicom.dcmread(path)
    (measures,) = file.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    measures.SliceThickness = thickness
    del measures.SpacingBetweenSlices
    file.save_as(path)
    mask = read_mask(Outline("segmentation", path, regions=("GTV",)), geometry, written.frame)
    np.testing.assert_array_equal(mask.volume.array > 0, drawn > 0)


def test_segmentation_of_other_images(tmp_path, images):
    written, grid, geometry = images
    path = segmentation(tmp_path / "seg.dcm", written, {"GTV": blob(grid).astype(np.uint8)})
    for other, message in (
        (moved(geometry, 0.4), "voxels off the grid"),
        (moved(geometry, 100.0), "beyond the images"),
        (Geometry(geometry.size, (0.8, 0.8, 2.5), geometry.origin, geometry.direction), "voxels are not those"),
    ):
        with pytest.raises(CohortError, match=message):
            read_mask(Outline("segmentation", path, regions=("GTV",)), other, written.frame)


def test_segmentation_of_another_examination_on_the_same_voxels(tmp_path, images):
    written, grid, geometry = images
    path = segmentation(tmp_path / "seg.dcm", written, {"GTV": blob(grid).astype(np.uint8)})
    with pytest.raises(CohortError, match="the segmentation has another frame of reference"):
        read_mask(Outline("segmentation", path, regions=("GTV",)), geometry, "1.2.3.4")


def test_damaged_segmentation(tmp_path, images):
    written, grid, geometry = images
    path = segmentation(tmp_path / "seg.dcm", written, {"GTV": blob(grid).astype(np.uint8)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CohortError, match="segmentation cannot be read"):
        read_mask(Outline("segmentation", path, regions=("GTV",)), geometry, written.frame)


def moved(geometry, step_mm):
    x, y, z = np.array(geometry.origin) + step_mm * geometry.axes[:, 0]
    return Geometry(geometry.size, geometry.spacing_mm, (x, y, z), geometry.direction)


@pytest.mark.parametrize("value", [1, 255])
def test_series_of_mask_images(tmp_path, images, value):
    _, grid, geometry = images
    write_series(tmp_path / "mask", blob(grid) * value, grid)
    (series,) = scan_export(tmp_path / "mask", ()).series
    mask = read_mask(Outline("images", series.instances[0].path, series), geometry, "")
    np.testing.assert_array_equal(mask.volume.array > 0, blob(grid))


def test_series_of_grey_images_is_no_mask(tmp_path, images):
    _, grid, geometry = images
    write_series(tmp_path / "mask", textured(grid), grid)
    (series,) = scan_export(tmp_path / "mask", ()).series
    with pytest.raises(CohortError, match="different values; a mask is 0 outside"):
        read_mask(Outline("images", series.instances[0].path, series), geometry, "")


@pytest.mark.parametrize("axes", [[False, False, False], [False, True, False], [True, True, True]])
def test_nifti_with_flipped_axes(tmp_path, images, axes):
    _, grid, geometry = images
    image = sitk.GetImageFromArray(blob(grid).astype(np.uint8))
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    sitk.WriteImage(sitk.Flip(image, axes), str(tmp_path / "mask.nii.gz"))
    mask = read_mask(Outline("nifti", tmp_path / "mask.nii.gz"), geometry, "")
    np.testing.assert_array_equal(mask.volume.array > 0, blob(grid))


def test_nifti_error_does_not_name_the_file(tmp_path, images):
    (tmp_path / "Mustermann.nii.gz").write_bytes(b"nothing")
    with pytest.raises(CohortError) as caught:
        read_mask(Outline("nifti", tmp_path / "Mustermann.nii.gz"), images[2], "")
    assert "Mustermann" not in str(caught.value)


def test_a_cropped_mask_keeps_its_place():
    grid = Geometry((6, 5, 4), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    small = Geometry((2, 2, 2), (1.0, 1.0, 2.0), (3.0, 1.0, 2.0), grid.direction)
    mask = onto_grid(Volume(np.ones((2, 2, 2), np.float32), small), grid)
    assert mask.array.sum() == 8
    assert mask.array[1:3, 1:3, 3:5].all()
