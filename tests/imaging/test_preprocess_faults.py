import numpy as np
import pytest
from plain_imaging import imaging, named

from stsmm_core.errors import CohortError
from stsmm_core.imaging.preprocess import preprocess_patient, read_tumour


def test_empty_mask(tmp_path, phantoms):
    path = phantoms.grid((8, 8, 8), (1, 1, 1)).write(tmp_path / "t1_mask.nii.gz", phantoms.box((0, 0, 0)))
    with pytest.raises(CohortError, match=r"t1_mask\.nii\.gz: the mask is empty.*draw the tumour"):
        read_tumour(path)


@pytest.mark.parametrize("name", ["t1", "mask"])
def test_values_that_are_not_finite(tmp_path, phantoms, noise, name):
    grid = phantoms.grid((16, 16, 16), (1, 1, 1))

    def spoilt(points):
        values = noise(points)
        values[0, 1, 2] = np.nan
        return values

    paths = {
        "t1": grid.write(tmp_path / "t1.nii.gz", noise),
        "mask": grid.write(tmp_path / "mask.nii.gz", phantoms.box((8, 8, 8))),
    }
    grid.write(paths[name], spoilt)
    with pytest.raises(CohortError, match=rf"{name}\.nii\.gz: 1 of 4096 voxels are NaN or infinite; export"):
        preprocess_patient({"t1": paths["t1"]}, paths["mask"], imaging(shape=(16, 16, 16)))


@pytest.mark.parametrize("value", [0.0, 1234.567])
def test_a_constant_channel(tmp_path, phantoms, noise, value):
    grid = phantoms.grid((16, 16, 16), (1, 1, 1))
    channels = [
        grid.write(tmp_path / "t1.nii.gz", noise),
        grid.write(tmp_path / "t2.nii.gz", lambda points: np.full(points.shape[:-1], value)),
    ]
    mask = grid.write(tmp_path / "mask.nii.gz", phantoms.box((8, 8, 8)))
    with pytest.raises(CohortError, match=r"t2\.nii\.gz: has the same value"):
        preprocess_patient(named(channels), mask, imaging(shape=(16, 16, 16)))


def test_a_channel_elsewhere(tmp_path, phantoms, noise):
    grid = phantoms.grid((16, 16, 16), (1, 1, 1))
    channels = [
        grid.write(tmp_path / "t1.nii.gz", noise),
        phantoms.grid((16, 16, 16), (1, 1, 1), centre=(0, 500, 0)).write(tmp_path / "pet.nii.gz", noise),
    ]
    mask = grid.write(tmp_path / "mask.nii.gz", phantoms.box((8, 8, 8)))
    with pytest.raises(CohortError, match=r"pet\.nii\.gz: does not overlap the tumour of .*mask\.nii\.gz.*headers"):
        preprocess_patient(named(channels), mask, imaging(shape=(16, 16, 16)))


def test_a_tumour_lost_between_voxels(tmp_path, phantoms, noise):
    """Two single voxels 400 mm apart: no voxel centre of a coarse tensor need fall into either."""
    grid = phantoms.grid((2, 2, 401), (1.0, 1.0, 1.0))
    channel = grid.write(tmp_path / "t1.nii.gz", noise)

    def strays(points):
        values = np.zeros(points.shape[:-1])
        values[0, 0, 0] = values[-1, 1, 1] = 1
        return values

    mask = grid.write(tmp_path / "mask.nii.gz", strays)
    with pytest.raises(CohortError, match=r"mask\.nii\.gz: the tumour is thinner.*stray voxels"):
        preprocess_patient({"t1": channel}, mask, imaging(shape=(16, 16, 16), margin_mm=0))
