"""stsmm cohort agreement on two cohort folders."""

import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from stsmm_core.cohort.cli import app
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.errors import CohortError


@pytest.fixture
def readers(tmp_path):
    """A cohort, and its copy with every mask grown by a voxel."""
    (first,) = write_synthetic_cohorts(tmp_path / "a", sites=1, patients=6, seed=0)
    second = tmp_path / "b"
    shutil.copytree(first, second)
    cohort = load_cohort(second)
    for patient in cohort.patients:
        if cohort.has_image(patient):
            path = cohort.mask_path(patient)
            sitk.WriteImage(sitk.BinaryDilate(sitk.ReadImage(str(path)), [1, 1, 0]), str(path))
    return first, second


def test_table_and_figures(readers, tmp_path):
    first, second = readers
    out = tmp_path / "agreement.csv"
    result = CliRunner().invoke(app, ["agreement", str(first), str(second), "--out", str(out)], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    table = pd.read_csv(out, index_col="patient_id")
    assert (table["volume_b_cm3"] > table["volume_a_cm3"]).all()
    assert table["dice"].between(0.7, 0.999).all()
    assert f"{table['dice'].mean():.3f}" in result.output
    assert np.isfinite(table.to_numpy()).all()


def test_patients_of_one_reader_are_named(readers):
    first, second = readers
    cohort = load_cohort(second)
    patient = next(name for name in cohort.patients if cohort.has_image(name))
    shutil.rmtree(second / "images" / patient)
    result = CliRunner().invoke(app, ["agreement", str(first), str(second)])
    assert patient in result.output


def test_nobody_in_common(readers):
    first, second = readers
    table = pd.read_csv(second / "clinical.csv", dtype=str)
    for patient in table["patient_id"]:
        if (second / "images" / patient).exists():
            (second / "images" / patient).rename(second / "images" / f"{patient}x")
    table["patient_id"] += "x"
    table.to_csv(second / "clinical.csv", index=False)
    result = CliRunner().invoke(app, ["agreement", str(first), str(second)])
    assert isinstance(result.exception, CohortError)
    assert "no outlined patient in common" in str(result.exception)


def test_one_patient_in_common_has_no_interval(readers, tmp_path):
    first, second = readers
    cohort = load_cohort(second)
    for patient in [name for name in cohort.patients if cohort.has_image(name)][1:]:
        shutil.rmtree(second / "images" / patient)
    out = tmp_path / "agreement.csv"
    arguments = ["agreement", str(first), str(second), "--out", str(out)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert result.output.count("needs at least 2 patients") == 4
    assert "nan" not in result.output
    assert "in place of" not in result.output
    assert f"Wrote {out}, in place of the file that was there" in CliRunner().invoke(app, arguments).output


def test_every_patient_whose_masks_cannot_be_compared_is_named(readers):
    first, second = readers
    cohort = load_cohort(second)
    moved = [name for name in cohort.patients if cohort.has_image(name)][:2]
    for patient in moved:
        image = sitk.ReadImage(str(cohort.mask_path(patient)))
        image.SetOrigin((500.0, 0.0, 0.0))
        sitk.WriteImage(image, str(cohort.mask_path(patient)))
    error = CliRunner().invoke(app, ["agreement", str(first), str(second)]).exception
    assert isinstance(error, CohortError)
    assert str(error).startswith("2 of ")
    assert all(f"patient {patient}: the two masks lie on different grids" in str(error) for patient in moved)
