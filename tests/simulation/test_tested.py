"""All models of a comparison are tested on the same patients."""

from dataclasses import replace

import numpy as np
import pytest

from simulation.tested import seen_without_images
from stsmm_core.cohort.clinical import fit_encoding
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import parse_experiment
from stsmm_core.model.mmnn import get_weights
from stsmm_core.training.centre import SMALLEST_SALT, Centre, open_centre
from stsmm_core.training.inputs import open_cohorts
from stsmm_core.training.site_data import load_site_data

EXPERIMENT = parse_experiment(
    """
    data.variables = ["grade", "depth"]
    imaging = { shape = [16, 16, 16], steps = ["resampling", "zscore", "masking"] }
    model.image_encoder = "small_densenet"
    evaluation.bootstrap_replicates = 100
    """,
    source="test",
)


@pytest.fixture
def centre(tmp_path):
    """One of whose test patients nothing is known but the images."""
    cohorts = open_cohorts(write_synthetic_cohorts(tmp_path / "cohorts", sites=1, patients=20, seed=1))
    data = load_site_data(cohorts[0], EXPERIMENT, cache=tmp_path / "cache")
    centre = open_centre(EXPERIMENT, cohorts[0], data, folder=tmp_path, salt=SMALLEST_SALT)
    clinical = data.clinical.copy()
    clinical.loc[data.patients[centre.folds[0].test[0]], list(EXPERIMENT.data.variables)] = np.nan
    return replace(centre, data=replace(data, clinical=clinical))


def test_a_network_without_images_and_one_with_them_are_tested_on_the_same_patients(centre):
    def patients(of: Centre) -> list[int]:
        trainer = of.trainer(0, fit_encoding(of.summarise_training(0), EXPERIMENT.data.variables), channels=2)
        of.keep_predictions(0, trainer, get_weights(trainer.network))
        return [counts.patients for counts in of.count_pairs()[0]]

    def without_images(of: Centre) -> Centre:
        return replace(of, data=of.data.without_images())

    tested = len(centre.folds[0].test)
    assert (patients(centre), patients(without_images(centre))) == ([tested] * 2, [tested - 1] * 2)
    (seen,) = seen_without_images([centre])
    assert patients(seen) == patients(without_images(seen)) == [tested - 1] * 2
