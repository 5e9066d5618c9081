"""A known rigid motion is found again."""

import numpy as np
import pytest
import SimpleITK as sitk
from plain_imaging import imaging
from scipy.spatial.transform import Rotation

from stsmm_core.config import Imaging, Registration
from stsmm_core.errors import CohortError
from stsmm_core.imaging.preprocess import prepare_patient, read_images, register_channels
from stsmm_core.imaging.registration import register
from stsmm_core.imaging.volume import Geometry, Volume, to_image

SIZE, SPACING = (48, 44, 20), (2.0, 2.0, 4.0)
TURN = Rotation.from_euler("xyz", [4, -3, 8], degrees=True)
SHIFT = np.array([6.0, -4.0, 5.0])


def anatomy(points):
    """A lopsided body (t1-like): an ellipsoid, a bone and a lesion."""
    x, y, z = np.moveaxis(points, -1, 0)
    body = ((x / 42) ** 2 + (y / 36) ** 2 + (z / 60) ** 2 < 1) * 100.0
    body[(x - 10) ** 2 + (y + 8) ** 2 < 80] = 20.0
    body[(x + 15) ** 2 + (y - 10) ** 2 + (z - 5) ** 2 < 150] = 180.0
    return body


def volumes(phantoms):
    """The body, and the same in other colours (t2-like) with a header that is turned and shifted."""
    grid = phantoms.grid(SIZE, SPACING)
    points = grid.points()
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    fixed = Volume(anatomy(points).astype(np.float32), Geometry(SIZE, SPACING, tuple(grid.origin), identity))
    colours = (np.interp(anatomy(points), [0, 20, 100, 180], [5, 150, 60, 30])).astype(np.float32)
    matrix = TURN.as_matrix()
    header = Geometry(SIZE, SPACING, tuple(matrix @ grid.origin + SHIFT), tuple(matrix.ravel()))
    return fixed, Volume(colours, header), colours


def test_a_known_motion_is_found(phantoms):
    fixed, moving, _ = volumes(phantoms)
    placed, motion = register(moving, fixed, Registration(channels=("t2",)))
    np.testing.assert_array_equal(placed.array, moving.array)
    # Every voxel should come back to where it was: less than half a voxel off at the corners.
    corners = np.array([[x, y, z] for x in (0, 47) for y in (0, 43) for z in (0, 19)]) * np.array(SPACING)

    def where(geometry):
        return np.array(geometry.origin) + corners @ geometry.axes.T

    assert np.linalg.norm(where(placed.geometry) - where(fixed.geometry), axis=1).max() < 1.0
    assert motion.information_after > motion.information_before + 0.1
    assert motion.shift_mm == pytest.approx(np.linalg.norm(SHIFT), abs=1.0)
    assert motion.turn_degrees == pytest.approx(np.degrees(TURN.magnitude()), abs=1.0)


def test_aligned_images_stay_where_they_are(phantoms):
    fixed, _, colours = volumes(phantoms)
    _, motion = register(Volume(colours, fixed.geometry), fixed, Registration(channels=("t2",)))
    assert motion.shift_mm < 0.3
    assert motion.turn_degrees < 0.3


def test_same_input_same_output(phantoms):
    fixed, moving, _ = volumes(phantoms)
    first, second = (register(moving, fixed, Registration(channels=("t2",))) for _ in range(2))
    assert first[0].geometry == second[0].geometry
    assert first[1] == second[1]


def test_images_apart(phantoms):
    fixed, moving, _ = volumes(phantoms)
    x, y, z = moving.geometry.origin
    away = Volume(moving.array, Geometry(SIZE, SPACING, (x + 5000, y, z), moving.geometry.direction))
    with pytest.raises(CohortError, match="cannot be registered"):
        register(away, fixed, Registration(channels=("t2",)))


def test_in_the_pipeline_the_named_channel_comes_to_lie_on_the_first(tmp_path, phantoms):
    fixed, moving, _ = volumes(phantoms)
    paths = {"t1": tmp_path / "t1.nii.gz", "t2": tmp_path / "t2.nii.gz"}
    for name, volume in (("t1", fixed), ("t2", moving)):
        sitk.WriteImage(to_image(volume), str(paths[name]))
    mask = phantoms.grid(SIZE, SPACING).write(tmp_path / "mask.nii.gz", phantoms.box((30, 30, 30), (-15, 10, 5)))
    steps = ("registration", "resampling")
    settings = {"shape": (32, 32, 32), "registration": Registration(channels=("t2",))}
    moved = prepare_patient(paths, mask, Imaging(steps=steps, **settings))
    left = prepare_patient(paths, mask, Imaging(steps=("resampling",), **settings))
    assert set(moved.motions) == {"t2"}
    assert not left.motions
    truth = np.interp(moved.channels["t1"].array, [0, 20, 100, 180], [5, 150, 60, 30])
    error = {
        name: np.nanmean(np.abs(images.channels["t2"].array - truth))
        for name, images in (("moved", moved), ("left", left))
    }
    assert error["moved"] < 0.5 * error["left"]
    assert register_channels(read_images(paths, mask), imaging()).motions == {}
