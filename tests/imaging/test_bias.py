"""N4 takes out a known shading, and the shrunken fit does what the full one does."""

import numpy as np
import pytest
from plain_imaging import imaging

from stsmm_core.config import BiasCorrection
from stsmm_core.errors import CohortError
from stsmm_core.imaging.bias import correct_bias
from stsmm_core.imaging.preprocess import correct_biases, read_images
from stsmm_core.imaging.volume import Geometry, Volume, read_volume

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GEOMETRY = Geometry((48, 48, 16), (1.3, 1.3, 4.5), (0.0, 0.0, 0.0), IDENTITY)


def phantom():
    """A body of two tissues, and the shading over it, both (z, y, x)."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in GEOMETRY.size[::-1]), indexing="ij")
    body = np.where(x**2 + y**2 < 0.9, 100.0, 2.0)
    body[(x - 0.3) ** 2 + (y + 0.2) ** 2 + z**2 < 0.15] = 220.0
    noise = np.random.default_rng(0).normal(0, 2, body.shape)
    return np.maximum(body + noise, 0.5), np.exp(0.4 * x - 0.3 * y + 0.25 * z)


def unevenness(values, body):
    """Coefficient of variation within the large tissue."""
    tissue = (body > 80) & (body < 120)
    return values[tissue].std() / values[tissue].mean()


def test_a_known_shading_is_taken_out():
    body, shading = phantom()
    shaded = Volume((body * shading).astype(np.float32), GEOMETRY)
    corrected = correct_bias(shaded, BiasCorrection())
    assert corrected.geometry == shaded.geometry
    assert corrected.array.dtype == np.float32
    assert unevenness(shaded.array, body) > 0.2
    assert unevenness(corrected.array, body) < 0.06
    # The small bright tissue keeps its contrast, which a field that followed it would have flattened.
    bright = np.median(corrected.array[body > 200]) / np.median(corrected.array[(body > 80) & (body < 120)])
    assert bright == pytest.approx(2.2, rel=0.1)


def test_the_shrunken_fit_agrees_with_the_full_one():
    body, shading = phantom()
    shaded = Volume((body * shading).astype(np.float32), GEOMETRY)
    few = {"iterations": (15, 10)}  # a full fit to convergence takes half a minute
    small, full = (correct_bias(shaded, BiasCorrection(shrink=shrink, **few)).array for shrink in (3, 1))
    tissue = body > 80
    scale = np.median(full[tissue] / small[tissue])  # the field is known up to a factor, which the z-score removes
    assert np.mean(np.abs(small * scale - full)[tissue] / full[tissue]) < 0.05


def test_same_input_same_output():
    body, shading = phantom()
    shaded = Volume((body * shading).astype(np.float32), GEOMETRY)
    np.testing.assert_array_equal(
        correct_bias(shaded, BiasCorrection()).array, correct_bias(shaded, BiasCorrection()).array
    )


def test_nothing_above_zero():
    with pytest.raises(CohortError, match="no voxel above 0"):
        correct_bias(Volume(np.zeros(GEOMETRY.size[::-1], np.float32), GEOMETRY), BiasCorrection())


def test_only_the_named_channels_are_corrected(tmp_path, phantoms):
    grid = phantoms.grid((24, 24, 12), (1.0, 1.0, 2.0))
    body = phantoms.blob((0, 0, 0), 8)
    paths = {
        name: grid.write(tmp_path / f"{name}.nii.gz", lambda p: 100 * body(p) + p[..., 0] + 20)
        for name in ("t1", "pet")
    }
    images = read_images(paths, grid.write(tmp_path / "mask.nii.gz", phantoms.box((8, 8, 8))))
    corrected = correct_biases(images, imaging())
    np.testing.assert_array_equal(corrected.channels["pet"].array, read_volume(paths["pet"]).array)
    assert not np.array_equal(corrected.channels["t1"].array, read_volume(paths["t1"]).array)
