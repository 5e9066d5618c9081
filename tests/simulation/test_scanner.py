"""Virtual centres whose images come through scanners of their own."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import table_cohort

from simulation.partition import ScannerShift
from simulation.scanner import Scanner, draw_scanners, shift_scanners, through_scanner
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import parse_experiment
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import Geometry, Volume, read_volume
from stsmm_core.training.inputs import open_cohorts
from stsmm_core.training.site_data import complete_from_masks, load_site_data

EXPERIMENT = parse_experiment(
    """
    imaging = { shape = [16, 16, 16], steps = ["resampling", "zscore", "masking"] }
    model.image_encoder = "small_densenet"
    """,
    source="test",
)


def cube(seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).uniform(50, 900, (8, 9, 10)).astype(np.float32)
    geometry = Geometry((10, 9, 8), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    return Volume(array, geometry)


def digest(root) -> str:
    whole = hashlib.sha256()
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        whole.update(file.name.encode() + file.read_bytes())
    return whole.hexdigest()


@given(seed=st.integers(0, 50), centres=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_strength_0_leaves_the_images_as_they_are(seed, centres):
    for scanner in draw_scanners(centres, strength=0.0, seed=seed):
        volume = cube(seed)
        seen = through_scanner(volume, scanner, np.random.default_rng(0))
        np.testing.assert_allclose(seen.array, volume.array, rtol=1e-5)


@pytest.mark.parametrize(
    "scanner", [Scanner(gamma=1.5), Scanner(blur_mm=1.0), Scanner(noise=0.1), Scanner(shading=0.4)]
)
def test_each_property_changes_what_zscoring_keeps(scanner):
    volume = cube()
    seen = through_scanner(volume, scanner, np.random.default_rng(0)).array
    assert seen.shape == volume.array.shape
    assert np.isfinite(seen).all()
    # A linear map is what z-scoring undoes; the rest of a fit is what it does not.
    assert np.corrcoef(seen.ravel(), volume.array.ravel())[0, 1] < 0.995


def test_a_constant_volume_stays_finite():
    volume = Volume(np.full((8, 9, 10), 7, np.float32), cube().geometry)
    for scanner in draw_scanners(3, strength=1.0, seed=0):
        assert np.isfinite(through_scanner(volume, scanner, np.random.default_rng(0)).array).all()


def test_scanners_of_a_run_differ_and_are_seeded():
    scanners = draw_scanners(5, strength=1.0, seed=3)
    for name in ("gamma", "blur_mm", "noise", "shading"):
        assert len({round(getattr(scanner, name), 6) for scanner in scanners}) == 5
    assert scanners == draw_scanners(5, strength=1.0, seed=3)
    assert scanners != draw_scanners(5, strength=1.0, seed=4)


def test_tensors_change_and_masks_tables_and_the_source_do_not(tmp_path):
    (source,) = write_synthetic_cohorts(tmp_path / "cohorts", sites=1, patients=8, seed=2)
    before = digest(source)
    (cohort,) = open_cohorts([source])
    plain = ScannerShift(2).divide(cohort, seed=0)
    steps = []
    shifted = shift_scanners(plain, tmp_path / "out", strength=1.0, seed=0, advance=lambda: steps.append(1))
    assert digest(source) == before
    assert len(steps) == 8
    for was, now in zip(plain, shifted, strict=True):
        assert now.root.stat().st_mode & 0o077 == 0
        reread = complete_from_masks(load_cohort(now.root))
        assert reread.manifest == was.manifest
        assert reread.clinical.equals(was.clinical)
        assert reread.endpoints.equals(was.endpoints)
        for patient in was.patients:
            if was.has_image(patient):
                assert now.mask_path(patient).read_bytes() == was.mask_path(patient).read_bytes()
                ours, theirs = (read_volume(each.channel_path(patient, "t1")) for each in (now, was))
                assert ours.geometry == theirs.geometry
        unshifted = load_site_data(was, EXPERIMENT, cache=tmp_path / "cache")
        tensors = load_site_data(now, EXPERIMENT, cache=tmp_path / "cache")
        apart = (tensors.images - unshifted.images).abs().mean(dim=(1, 2, 3, 4))[unshifted.has_image]
        assert (apart > 0.02).all()
        assert ((tensors.images != 0) == (unshifted.images != 0)).float().mean() > 0.999  # the mask cuts the same
    written = digest(tmp_path / "out")
    shift_scanners(plain, tmp_path / "out", strength=1.0, seed=0)
    assert digest(tmp_path / "out") == written
    shift_scanners(plain, tmp_path / "again", strength=1.0, seed=0)
    assert digest(tmp_path / "again") == written


def test_an_interrupted_writing_leaves_no_half(tmp_path):
    (source,) = write_synthetic_cohorts(tmp_path / "cohorts", sites=1, patients=6, seed=2)
    plain = ScannerShift(2).divide(open_cohorts([source])[0], seed=0)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shift_scanners(plain, tmp_path / "out", strength=1.0, seed=0, advance=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_cohort_without_images_is_refused(tmp_path):
    centres = ScannerShift(2).divide(table_cohort(tmp_path / "tables", 12), seed=0)
    with pytest.raises(CohortError, match="no patient has one"):
        shift_scanners(centres, tmp_path / "out", strength=1.0, seed=0)
