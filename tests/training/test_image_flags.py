"""What a site says of its images: patients with each kind of oddity, and no small count."""

from dataclasses import replace

import pytest

from stsmm_core.cohort.clinical import ClinicalSummary
from stsmm_core.cohort.image_flags import image_flags
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import Data, Experiment, parse_experiment
from stsmm_core.training.centre import SiteDescription
from stsmm_core.training.site_data import complete_from_masks, load_site_data

EXPERIMENT = parse_experiment(
    """
[model]
image_encoder = "small_densenet"

[imaging]
shape = [16, 16, 16]
steps = ["resampling", "zscore", "masking"]
""",
    source="test",
)


def test_patients_whose_volume_is_not_that_of_the_mask_are_counted(tmp_path):
    write_synthetic_cohorts(tmp_path / "cohorts", sites=1, patients=8, seed=0)
    cohort = complete_from_masks(load_cohort(tmp_path / "cohorts" / "site_1"))
    with_image = [patient for patient in cohort.patients if cohort.has_image(patient)]
    usual = load_site_data(cohort, EXPERIMENT, cache=tmp_path / "cache").image_flags
    clinical = cohort.clinical.copy()
    clinical.loc[with_image[:3], "volume_cm3"] *= 2
    changed = load_site_data(replace(cohort, clinical=clinical), EXPERIMENT, cache=tmp_path / "cache").image_flags
    assert usual["volume"] == 0
    assert changed == {**usual, "volume": 3}


def test_masks_that_their_contours_do_not_fit_are_counted(tmp_path):
    write_synthetic_cohorts(tmp_path / "cohorts", sites=1, patients=6, seed=0)
    cohort = complete_from_masks(load_cohort(tmp_path / "cohorts" / "site_1"))
    first, second = [patient for patient in cohort.patients if cohort.has_image(patient)][:2]
    volumes = {first: 2 * cohort.clinical.loc[first, "volume_cm3"], second: cohort.clinical.loc[second, "volume_cm3"]}
    lines = [f"{patient},t1,{volume}" for patient, volume in volumes.items()]
    (cohort.root / "acquisition.csv").write_text("\n".join(["patient_id,channel,contour_cm3", *lines]))
    assert load_site_data(cohort, EXPERIMENT, cache=tmp_path / "cache").image_flags["volume"] == 1


def test_volumes_of_contours_are_not_read_where_no_image_was_measured(tmp_path):
    write_synthetic_cohorts(tmp_path / "cohorts", sites=1, patients=6, seed=0)
    cohort = load_cohort(tmp_path / "cohorts" / "site_1")
    (cohort.root / "acquisition.csv").write_text(f"patient_id,channel,contour_cm3\n{cohort.patients[0]},t1,much")
    assert image_flags(cohort, {}) == {}


def test_small_counts_are_withheld():
    flags = {"border": 0, "volume": 4, "parts": 5}
    description = SiteDescription("a", (), 50, {"os": 9}, 40, ClinicalSummary({}, {}), image_flags=flags)
    assert description.suppressed(5).image_flags == {"border": 0, "volume": None, "parts": 5}


@pytest.mark.parametrize(
    ("with_image", "flagged", "shown"),
    [
        (38, 37, (None, None)),  # one patient with an image has no flag
        (38, 38, (None, None)),  # two of all patients have none
        (35, 30, (35, 30)),
        (40, 40, (40, 40)),
        (0, 0, (0, 0)),
    ],
)
def test_counts_that_leave_out_a_few_are_withheld(with_image, flagged, shown):
    flags = {"border": flagged}
    described = SiteDescription("a", (), 40, {"os": 9}, with_image, ClinicalSummary({}, {}), image_flags=flags)
    suppressed = described.suppressed(5)
    assert (suppressed.with_image, suppressed.image_flags["border"]) == shown
    assert described.suppressed(1) == described


def test_clinical_training_does_not_read_how_images_were_acquired(tmp_path):
    (root,) = write_synthetic_cohorts(tmp_path / "cohorts", sites=1, patients=6, seed=0)
    cohort = complete_from_masks(load_cohort(root))
    (root / "acquisition.csv").write_text(f"patient_id,channel,contour_cm3\n{cohort.patients[0]},t1,large\n")
    clinical = Experiment(data=Data(modalities=("clinical",)))
    assert not any(load_site_data(cohort, clinical, cache=tmp_path / "cache").image_flags.values())
