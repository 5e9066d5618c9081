"""Contours become the voxels whose centre they enclose."""

import itertools

import numpy as np
import pydicom
import pytest
from dicom_export import Grid, blob, oblique, outline, textured, write_series, write_structures
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon

from stsmm_core.cohort.dicom.contours import (
    Contour,
    Structure,
    enclosed_cm3,
    inside_polygons,
    rasterise,
    read_structures,
)
from stsmm_core.cohort.dicom.masks import Outline, read_mask
from stsmm_core.cohort.dicom.scan import scan_export
from stsmm_core.cohort.dicom.series import read_series
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Geometry

ROWS, COLUMNS = 9, 11
coordinate = st.floats(-3, 13)
triangles = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=7).map(np.array)


def distances(points, start, end):
    """From points (n, 2) to a line segment."""
    along = end - start
    share = np.clip((points - start) @ along / max(along @ along, 1e-300), 0, 1)
    return np.linalg.norm(points - start - share[:, None] * along, axis=1)


def square(low, high):
    return np.array([[low, low], [high, low], [high, high], [low, high]], dtype=float)


@settings(max_examples=200)
@given(st.lists(triangles, min_size=1, max_size=3))
def test_even_odd_rule_agrees_with_matplotlib(polygons):
    centres = np.array([[column, row] for row in range(ROWS) for column in range(COLUMNS)])
    inside = inside_polygons(polygons, rows=ROWS, columns=COLUMNS)
    # The library fills by the non-zero rule; a triangle is simple, and a polygon the odd overlap of its triangles.
    expected, clear = np.zeros(len(centres), dtype=bool), np.ones(len(centres), dtype=bool)
    for polygon in polygons:
        for second, third in itertools.pairwise(polygon[1:]):
            for start, end in itertools.combinations((polygon[0], second, third), 2):
                clear &= distances(centres, start, end) > 1e-6  # on an edge the two may differ
            expected ^= Polygon([polygon[0], second, third]).contains_points(centres)
    np.testing.assert_array_equal(inside.ravel()[clear], expected[clear])


def test_shapes_that_share_an_edge_share_no_pixel_and_leave_none_out():
    left, right = square(0, 4), square(0, 4) + np.array([4, 0])
    both = [inside_polygons([polygon], rows=8, columns=12) for polygon in (left, right)]
    whole = inside_polygons([np.array([[0, 0], [8, 0], [8, 4], [0, 4]], dtype=float)], rows=8, columns=12)
    assert not (both[0] & both[1]).any()
    np.testing.assert_array_equal(both[0] | both[1], whole)


def test_a_contour_inside_another_cuts_a_hole():
    inside = inside_polygons([square(-0.5, 8.5), square(2.5, 5.5)], rows=9, columns=9)
    assert inside.sum() == 81 - 9


def test_a_polygon_may_reach_beyond_the_image():
    assert inside_polygons([square(-50, 50)], rows=4, columns=5).all()


@pytest.mark.parametrize("grid", [Grid(), oblique(), oblique(size=(40, 36, 9))], ids=["axial", "oblique", "large"])
def test_two_regions_with_holes_round_trip(tmp_path, grid):
    mask = blob(grid, hole=True)
    second = np.zeros_like(mask)
    second[0, 1:3, 1:4] = True
    series = write_series(tmp_path / "images", textured(grid), grid)
    path = write_structures(
        tmp_path / "rt.dcm", {"GTV": outline(mask, grid), "GTV satellite": outline(second, grid)}, series
    )
    volume, frame = read_series(next(one for one in scan_export(tmp_path, ()).series if one.modality == "MR"))
    united = read_mask(Outline("structures", path, regions=("GTV", "GTV satellite")), volume.geometry, frame)
    np.testing.assert_array_equal(united.volume.array > 0, mask | second)
    alone = read_mask(Outline("structures", path, regions=("GTV satellite",)), volume.geometry, frame)
    np.testing.assert_array_equal(alone.volume.array > 0, second)


def circle(grid, centre, radius_mm, index=2):
    """Points (n, 3) on a circle within a slice; its middle in voxels."""
    turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    around = radius_mm * np.column_stack([np.cos(turn), np.sin(turn)]) / grid.spacing[:2]
    return grid.points(np.column_stack([np.array(centre) + around, np.full(len(turn), index)]))


def drawn(tmp_path, grid, regions):
    """Structures on a series of this grid, the mask that they make together, and the reader's grid."""
    series = write_series(tmp_path / "images", textured(grid), grid)
    path = write_structures(tmp_path / "rt.dcm", regions, series)
    volume, frame = read_series(next(one for one in scan_export(tmp_path, ()).series if one.modality == "MR"))
    mask = read_mask(Outline("structures", path, regions=tuple(regions)), volume.geometry, frame)
    return read_structures(pydicom.dcmread(path)), mask, volume.geometry


@pytest.mark.parametrize("grid", [Grid(), oblique()], ids=["axial", "oblique"])
def test_volume_within_contours_with_a_hole_and_a_region_that_overlaps(tmp_path, grid):
    regions = {
        "GTV": [circle(grid, (6, 5), 3.0), circle(grid, (6, 5), 1.0), circle(grid, (6, 5), 2.0, index=3)],
        "GTV 2": [circle(grid, (6, 5), 3.0, index=3)],  # takes in the third circle of the other
    }
    structures, mask, geometry = drawn(tmp_path, grid, regions)
    expected = np.pi * (3.0**2 - 1.0**2 + 3.0**2) * grid.spacing[2] / 1000
    assert enclosed_cm3(structures, geometry) == pytest.approx(expected, rel=0.01)
    assert mask.contour_cm3 == pytest.approx(expected, rel=0.01)
    assert mask.notes == ()


def test_pixels_too_coarse_for_the_contours_are_noted(tmp_path):
    grid = Grid(spacing=(3.0, 3.0, 3.0))
    _, mask, _ = drawn(tmp_path, grid, {"GTV": [circle(grid, (6, 5), 1.0)]})
    assert mask.volume.array.sum() == 1
    assert mask.contour_cm3 == pytest.approx(np.pi * 3 / 1000, rel=0.05)
    assert mask.notes == ("has 0.03 cm³, but its contours enclose 0.01 cm³: pixels too coarse for it",)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 8)), min_size=3, max_size=3))
def test_volume_within_a_triangle_is_its_area_times_the_slice(corners):
    (x0, y0), (x1, y1), (x2, y2) = corners
    points = np.column_stack([np.array(corners), np.zeros(3)])
    structure = Structure("GTV", "", frozenset(), (Contour(points),), 0)
    grid = Geometry((12, 10, 2), (1.0, 1.0, 5.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    area = abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)) / 2
    # A finer pixel, a row of them at most a side, can be wrong at each end.
    assert enclosed_cm3([structure], grid) == pytest.approx(area * 5 / 1000, abs=3 * 8 / 8 * 5 / 1000)


@pytest.fixture
def images(tmp_path):
    """A series on disk, its grid, and the grid as the reader sees it."""
    grid = Grid()
    series = write_series(tmp_path / "images", textured(grid), grid)
    volume, _ = read_series(next(iter(scan_export(tmp_path / "images", ()).series)))
    return series, grid, volume.geometry


@pytest.mark.parametrize(
    ("move_mm", "message"),
    [
        ((0, 0, 1.2), "contour 1 of .* lies 1.2 mm off its slice 2 .*slices are 3.0 mm apart"),
        ((0, 0, 60.0), "mm beyond the last slice"),
        ((0, 0, -60.0), "mm beyond the last slice"),
        ((30.0, 0, 0), "pixels beyond the image"),
        ((0, -30.0, 0), "pixels beyond the image"),
    ],
)
def test_contour_off_the_grid(tmp_path, images, move_mm, message):
    series, grid, geometry = images
    contours = [points + np.array(move_mm) for points in outline(blob(grid), grid)]
    (structure,) = read_structures(pydicom.dcmread(write_structures(tmp_path / "rt.dcm", {"GTV": contours}, series)))
    with pytest.raises(CohortError, match=message):
        rasterise(structure, geometry)


def test_contour_across_slices(tmp_path, images):
    series, grid, geometry = images
    contours = outline(blob(grid), grid)
    contours[0] = contours[0] + np.linspace(0, 2, len(contours[0]))[:, None] * [0, 0, 1]
    (structure,) = read_structures(pydicom.dcmread(write_structures(tmp_path / "rt.dcm", {"GTV": contours}, series)))
    with pytest.raises(CohortError, match="off its slice"):
        rasterise(structure, geometry)


def test_frame_of_reference_of_other_images(tmp_path, images):
    series, grid, geometry = images
    path = write_structures(tmp_path / "rt.dcm", {"GTV": outline(blob(grid), grid)}, series, frame="1.2.3.4")
    with pytest.raises(CohortError, match="another frame of reference"):
        read_mask(Outline("structures", path, regions=("GTV",)), geometry, series.frame)


def test_stale_frame_of_a_region_in_a_set_on_these_images(tmp_path, images):
    """So it is in one patient of the public collection: the contours fit, and their own set says so."""
    series, grid, geometry = images
    path = write_structures(tmp_path / "rt.dcm", {"GTV": outline(blob(grid), grid)}, series)
    file = pydicom.dcmread(path)
    file.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3.4"
    file.save_as(path)
    mask = read_mask(Outline("structures", path, regions=("GTV",)), geometry, series.frame)
    np.testing.assert_array_equal(mask.volume.array > 0, blob(grid))
    assert "another frame of reference than its structure set" in mask.notes[0]


def test_frame_that_the_set_knows_but_the_images_do_not(tmp_path, images):
    series, grid, geometry = images
    path = write_structures(tmp_path / "rt.dcm", {"GTV": outline(blob(grid), grid)}, series)
    file = pydicom.dcmread(path)
    other = pydicom.Dataset()
    other.FrameOfReferenceUID = "1.2.3.4"
    file.ReferencedFrameOfReferenceSequence.append(other)
    file.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3.4"
    file.save_as(path)
    with pytest.raises(CohortError, match="another frame of reference"):
        read_mask(Outline("structures", path, regions=("GTV",)), geometry, series.frame)


def test_a_contour_stored_twice_does_not_cut_itself_out(tmp_path, images):
    series, grid, geometry = images
    contours = outline(blob(grid), grid)
    path = write_structures(tmp_path / "rt.dcm", {"GTV": [*contours, contours[0]]}, series)
    mask = read_mask(Outline("structures", path, regions=("GTV",)), geometry, series.frame)
    np.testing.assert_array_equal(mask.volume.array > 0, blob(grid))


def test_slices_without_a_contour_are_noted(tmp_path, images):
    series, grid, geometry = images
    contours = outline(blob(grid), grid)
    heights = [round((points[0, 2] - grid.origin[2]) / grid.spacing[2]) for points in contours]
    kept = [points for points, height in zip(contours, heights, strict=True) if height != sorted(heights)[1]]
    path = write_structures(tmp_path / "rt.dcm", {"GTV": kept}, series)
    mask = read_mask(Outline("structures", path, regions=("GTV",)), geometry, series.frame)
    assert mask.notes == ("1 slices within the outline have no contour: empty there",)


def test_points_enclose_nothing_and_are_counted(tmp_path, images):
    series, grid, geometry = images
    contours = [*outline(blob(grid), grid), grid.points([[3, 3, 2]])]
    path = write_structures(tmp_path / "rt.dcm", {"GTV": contours}, series)
    mask = read_mask(Outline("structures", path, regions=("GTV",)), geometry, series.frame)
    assert mask.notes == ("1 contours are points or lines: not used",)
    np.testing.assert_array_equal(mask.volume.array > 0, blob(grid))


def test_outline_around_no_pixel_centre(tmp_path, images):
    series, grid, geometry = images
    speck = grid.points([[3.2, 3.2, 2], [3.8, 3.2, 2], [3.5, 3.8, 2]])
    path = write_structures(tmp_path / "rt.dcm", {"GTV": [speck]}, series)
    with pytest.raises(CohortError, match="mask would be empty"):
        read_mask(Outline("structures", path, regions=("GTV",)), geometry, series.frame)


def test_contour_data_that_are_no_points(tmp_path, images):
    series, grid, _ = images
    path = write_structures(tmp_path / "rt.dcm", {"GTV": outline(blob(grid), grid)}, series)
    file = pydicom.dcmread(path)
    file.ROIContourSequence[0].ContourSequence[1].ContourData = ["1", "2"]
    with pytest.raises(CohortError, match="contour 2 of the region is no list of points"):
        read_structures(file)
