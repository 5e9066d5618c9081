"""A second reader chooses features by the development patients of a fold alone."""

import numpy as np
import pytest
from simulated import simulate, simulated_study

from stsmm_core.comparators.radiomics import agreed_features
from stsmm_core.errors import CohortError

PATIENTS = simulate(features=12)
STUDY = simulated_study(PATIENTS)
FIRST = PATIENTS.radiomics.drop(PATIENTS.radiomics.index[[0, 2]])
# Noise from none to twice the SD between patients: ICC from 1 to 0.2. The second reader saw fewer patients.
NOISE = np.random.default_rng(1).normal(size=(100, 12)) * np.linspace(0, 20, 12)
SECOND = FIRST.iloc[-100:] + NOISE
MINIMUM = 0.8


def chosen(first=FIRST, second=SECOND):
    """Names of the features of each fold."""
    return [list(table) for table in agreed_features(STUDY, first, second, MINIMUM)]


def altered(table, rows, values):
    """A reader's table with other values for some rows of the study."""
    patients = table.index.intersection(STUDY.data.clinical.index[rows])
    table = table.copy()
    table.loc[patients] = np.resize(values, len(patients))[:, None]
    return table


def apart(rows):
    """The readers differ wildly, so that no feature would pass if these rows counted."""
    return FIRST, altered(SECOND, rows, [1e6])


def alike(rows):
    """Both say the same, and so much of it that every feature would pass if these rows counted."""
    shared = FIRST.loc[SECOND.index]
    return altered(shared, rows, [1e6, -1e6]), altered(SECOND, rows, [1e6, -1e6])


def test_what_readers_agree_on_is_kept_of_every_patient():
    tables = agreed_features(STUDY, FIRST, SECOND, MINIMUM)
    assert len(tables) == len(STUDY.folds)
    for table in tables:
        assert 0 < table.shape[1] < 12
        assert FIRST.columns[0] in table
        assert FIRST.columns[-1] not in table
        np.testing.assert_array_equal(table, FIRST[list(table)])


@pytest.mark.parametrize("alter", [apart, alike])
@pytest.mark.parametrize("fold", [0, 1])
def test_values_of_test_patients_choose_nothing(alter, fold):
    assert chosen(*alter(STUDY.folds[fold].test))[fold] == chosen()[fold]


@pytest.mark.parametrize(("alter", "expected"), [(apart, []), (alike, list(FIRST))])
@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_values_of_development_patients_do(alter, expected, fold, part):
    assert chosen(*alter(getattr(STUDY.folds[fold], part)))[fold] == expected


def test_a_reader_of_test_patients_alone_agrees_on_nothing():
    tested = SECOND.loc[SECOND.index.intersection(STUDY.data.clinical.index[STUDY.folds[0].test])]
    assert chosen(second=tested)[0] == []
    assert chosen(second=tested)[1] != []


def test_a_reader_of_other_patients():
    with pytest.raises(CohortError, match="none of its patients is in the cohorts; site and patient_id"):
        chosen(second=SECOND.set_axis([f"elsewhere {label}" for label in SECOND.index]))
