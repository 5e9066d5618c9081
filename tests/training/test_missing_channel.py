"""Patients who have some of the cohort's channels: 0 in the place of those that they lack, nobody else changes."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from stsmm_core.cli import build_app
from stsmm_core.cohort.acquisition import contour_volumes
from stsmm_core.cohort.check import check_cohort
from stsmm_core.cohort.description import describe_cohort
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import Imaging, parse_experiment
from stsmm_core.imaging.preprocess import preprocess_patient
from stsmm_core.report.image_check import check_images
from stsmm_core.training.site_data import load_site_data

CONFIG = """
[imaging]
shape = [16, 16, 16]
steps = ["resampling", "zscore", "masking"]

[model]
image_encoder = "small_densenet"

[training]
epochs = 2
batch_size = 16
risk_window = 16
optimizer = "adamw"
learning_rate = 0.01

[blending]
interval = 1

[evaluation]
bootstrap_replicates = 100
horizons_years = [1.0]
"""
EXPERIMENT = parse_experiment(CONFIG, source="test")


def onto(path: Path, reference: Path, interpolator: int) -> None:
    """Resample a volume onto the grid of another one, in place."""
    image, grid = sitk.ReadImage(str(path)), sitk.ReadImage(str(reference))
    sitk.WriteImage(sitk.Resample(image, grid, sitk.Transform(), interpolator), str(path))


def take_away(root: Path, lacking: dict[str, list[str]]) -> None:
    """Delete volumes, by channel; who lacks t1 gets the mask on the grid of t2."""
    for channel, patients in lacking.items():
        for patient in patients:
            folder = root / "images" / patient
            (folder / f"{channel}.nii.gz").unlink()
            if channel == "t1":
                onto(folder / "t1_mask.nii.gz", folder / "t2.nii.gz", sitk.sitkNearestNeighbor)
                (folder / "t1_mask.nii.gz").rename(folder / "t2_mask.nii.gz")


def lacking_some(root: Path) -> dict[str, list[str]]:
    """Two patients for t1 and three for t2."""
    cohort = load_cohort(root)
    imaged = [patient for patient in cohort.patients if cohort.has_image(patient)]
    return {"t1": imaged[:2], "t2": imaged[2:5]}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A cohort whose t2 lies on the grid of t1, and its data."""
    root = tmp_path_factory.mktemp("complete")
    (cohort,) = write_synthetic_cohorts(root / "cohorts", sites=1, patients=12, seed=0)
    for t2 in cohort.glob("images/*/t2.nii.gz"):
        onto(t2, t2.with_name("t1.nii.gz"), sitk.sitkLinear)
    return cohort, load_site_data(load_cohort(cohort), EXPERIMENT, cache=root / "cache")


@pytest.fixture
def partial(complete, tmp_path):
    """The same cohort when two patients lack t1 and three lack t2, and who."""
    lacking = lacking_some(complete[0])
    shutil.copytree(complete[0], tmp_path / "partial")
    take_away(tmp_path / "partial", lacking)
    return tmp_path / "partial", lacking


def test_it_is_a_note_and_counted(partial):
    root, _ = partial
    found = check_cohort(root)
    assert [finding for finding in found if finding.severity == "fault"] == []
    imaged = sum(map(load_cohort(root).has_image, load_cohort(root).patients))
    said = [finding.message for finding in found if "have no t" in finding.message]
    assert said == [
        f"2 of {imaged} patients with images have no t1: the network sees 0 in its place",
        f"3 of {imaged} patients with images have no t2: the network sees 0 in its place",
    ]
    rows = {row.label.strip(): row.value for row in describe_cohort(load_cohort(root))}
    assert rows["without t1, of those with images"].startswith(f"2 of {imaged}")
    assert rows["without t2, of those with images"].startswith(f"3 of {imaged}")


def test_the_missing_channel_is_0_and_all_else_stays(complete, partial, tmp_path):
    _, whole = complete
    root, lacking = partial
    data = load_site_data(load_cohort(root), EXPERIMENT, cache=tmp_path / "cache")
    assert data.patients == whole.patients
    np.testing.assert_array_equal(data.has_image, whole.has_image)
    for row, patient in enumerate(data.patients):
        missing = [place for place, channel in enumerate(("t1", "t2")) if patient in lacking[channel]]
        expected = whole.images[row].clone()
        expected[missing] = 0
        np.testing.assert_array_equal(data.images[row], expected)
        assert data.lacking_channels(row) == missing
        if data.has_image[row]:
            assert all(volume.any() for place, volume in enumerate(data.images[row]) if place not in missing)


def test_the_grid_is_that_of_the_channel_that_is_there(tmp_path):
    (root,) = write_synthetic_cohorts(tmp_path / "cohorts", sites=1, patients=6, seed=1)
    patient = lacking_some(root)["t1"][0]
    take_away(root, {"t1": [patient]})
    cohort = load_cohort(root)
    data = load_site_data(cohort, EXPERIMENT, cache=tmp_path / "cache")
    folder = root / "images" / patient
    alone = preprocess_patient({"t2": folder / "t2.nii.gz"}, folder / "t2_mask.nii.gz", EXPERIMENT.imaging)
    tensor = data.images[data.patients.index(patient)]
    np.testing.assert_array_equal(tensor[1], alone[0])
    assert not tensor[0].any()


def test_the_cache_knows_which_channels_are_there(complete, partial, tmp_path, monkeypatch):
    """A tensor of one channel is found again, and is not taken for that of two when the other channel comes back."""
    root, lacking = partial
    cache = tmp_path / "cache"
    first = load_site_data(load_cohort(root), EXPERIMENT, cache=cache)
    with monkeypatch.context() as patched:
        patched.setattr("stsmm_core.imaging.cache.run_steps", None)
        np.testing.assert_array_equal(load_site_data(load_cohort(root), EXPERIMENT, cache=cache).images, first.images)
    for patient in lacking["t2"]:
        shutil.copy(complete[0] / "images" / patient / "t2.nii.gz", root / "images" / patient)
    after = load_site_data(load_cohort(root), EXPERIMENT, cache=cache)
    rows = [after.patients.index(patient) for patient in lacking["t2"]]
    np.testing.assert_array_equal(after.images[rows], complete[1].images[rows])


def test_the_look_at_the_images_takes_the_channels_that_are_there(partial, tmp_path):
    root, lacking = partial
    imaging = Imaging(shape=(16, 16, 16), steps=("resampling", "zscore", "masking"))
    check = check_images(load_cohort(root), imaging, pages=tmp_path / "pages", advance=lambda: None)
    assert [finding for finding in check.findings if finding.severity == "fault"] == []
    pages = {name: (tmp_path / "pages" / f"{name}.html").read_text() for name in check.flags}
    for channel, patients in lacking.items():
        assert {name for name, page in pages.items() if f"<td>{channel}</td>" not in page} == set(patients)


def test_contours_count_by_the_channel_that_is_there(partial):
    root, lacking = partial
    first, other = lacking["t1"][0], lacking["t2"][0]
    rows = [(first, "t1", 7), (first, "t2", 8), (other, "t1", 9)]
    table = pd.DataFrame(rows, columns=["patient_id", "channel", "contour_cm3"])
    table.to_csv(root / "acquisition.csv", index=False)
    assert contour_volumes(load_cohort(root)) == {first: 8.0, other: 9.0}


@pytest.mark.slow
def test_training_and_prediction_run(tmp_path):
    (root,) = write_synthetic_cohorts(tmp_path / "cohorts", sites=1, patients=50, seed=4)
    lacking = lacking_some(root)
    take_away(root, lacking)
    (tmp_path / "config.toml").write_text(CONFIG)
    for arguments in (
        ("train", tmp_path / "config.toml", "--cohort", root, "--out", tmp_path / "run"),
        ("predict", tmp_path / "run", "--cohort", root, "--out", tmp_path / "out"),
    ):
        result = CliRunner().invoke(build_app(), [str(each) for each in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    told = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("patient_id")
    assert told["risk"].notna().any()
    said = told["remarks"].fillna("").groupby(level=0).first()
    for channel, patients in lacking.items():
        assert set(said.index[said.str.contains(f"without {channel}: predicted with 0")]) == set(patients)
        assert told.loc[patients, "risk"].notna().any()
