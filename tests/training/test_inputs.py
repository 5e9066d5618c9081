"""What a command says of the cohorts it was given, and what it refuses before an image is read."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from stsmm_core.cohort.cohort import Cohort
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import parse_experiment
from stsmm_core.errors import CohortError
from stsmm_core.training.inputs import announce_inputs, notes_on_unknown_variables


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory) -> list[Cohort]:
    roots = write_synthetic_cohorts(tmp_path_factory.mktemp("inputs") / "cohorts", sites=2, patients=40, seed=0)
    return [load_cohort(root) for root in roots]


def without(cohort: Cohort, variable: str) -> Cohort:
    return replace(cohort, clinical=cohort.clinical.assign(**{variable: np.nan}))


def test_a_variable_that_a_site_lacks_is_named(cohorts):
    experiment = parse_experiment("", source="test")
    assert notes_on_unknown_variables(cohorts, experiment) == []
    first, second = cohorts
    assert notes_on_unknown_variables([first, without(second, "age")], experiment) == [
        "age is not known of any patient of site_2"
    ]
    assert notes_on_unknown_variables([without(each, "age") for each in cohorts], experiment) == [
        "age is not known of any patient of site_1, site_2; the model cannot learn from it"
    ]


def test_a_variable_that_the_model_does_not_see_is_not(cohorts):
    lacking = [without(each, "age") for each in cohorts]
    for text in ("data.variables = ['sex', 'grade']", "data.modalities = ['image']"):
        assert notes_on_unknown_variables(lacking, parse_experiment(text, source="test")) == []


@pytest.mark.parametrize(
    ("patients", "text", "empty"),
    [
        (1, "", "of (train|validation|test) and (validation|test) patients"),
        (2, "", "of (train|validation|test) (and test )?patients"),
        (1, "evaluation = { scheme = 'cv', folds = 2 }", "of (train|validation|test) and (validation|test) patients"),
    ],
)
def test_patients_too_few_to_divide_are_refused(cohorts, patients, text, empty):
    few = cohorts[0].subset(cohorts[0].patients[:patients])
    with pytest.raises(CohortError, match=rf"too few patients in all \({patients}\) .*{empty} there would be none"):
        announce_inputs(Console(quiet=True), parse_experiment(text, source="test"), [few])


def test_a_site_may_be_that_small_where_others_are_not(cohorts):
    few = cohorts[1].subset(cohorts[1].patients[:1])
    announce_inputs(Console(quiet=True), parse_experiment("", source="test"), [cohorts[0], few])


def test_without_any_image_nothing_is_begun(tmp_path):
    (root,) = write_synthetic_cohorts(tmp_path / "cohorts", sites=1, patients=40, seed=0, images=False)
    console, cohorts = Console(quiet=True), [load_cohort(root)]
    with pytest.raises(CohortError, match=r"no cohort has an image channel; name the channels in the cohort's"):
        announce_inputs(console, parse_experiment("", source="test"), cohorts)
    announce_inputs(console, parse_experiment('data.modalities = ["clinical"]', source="test"), cohorts)
