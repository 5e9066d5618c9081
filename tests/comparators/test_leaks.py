"""No comparator learns anything from the patients who test it: not from their outcomes, nor from what is known of them.

The patients whose data are replaced by nonsense test the first fold and are among those who develop the second: the
first stays, the second moves.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from simulated import simulate, simulated_study, spoiled

from stsmm_core.cohort.cohort import Outcomes
from stsmm_core.comparators import out_of_fold
from stsmm_core.comparators.design import Design
from stsmm_core.comparators.models import CoxModel, FittedModel
from stsmm_core.comparators.out_of_fold import comparator_outcomes
from stsmm_core.comparators.specification import COMPARATORS
from stsmm_core.survival.predictions import Predictions

PATIENTS = simulate(features=12)
STUDY = simulated_study(PATIENTS)
SPOILED = STUDY.folds[0].test
WITHOUT_IMAGES = [SPOILED[0], STUDY.folds[0].train[0]]
NONSENSE = ("outcomes", "inputs")
OF_DEVELOPMENT = ("null_risk", "censoring_at", "last_development_time")


@dataclass
class Fitted:
    """All that a comparator made of one endpoint and fold."""

    design: Design
    model: FittedModel
    predictions: Predictions


@cache
def study_with(nonsense):
    """The study and its radiomics, with nonsense in the rows that test the first fold."""
    patients = spoiled(PATIENTS, SPOILED) if nonsense == "inputs" else PATIENTS
    study = simulated_study(patients)
    if nonsense == "outcomes":
        time, event = study.data.outcomes.time.copy(), study.data.outcomes.event.copy()
        known = np.isfinite(time[SPOILED])
        time[SPOILED], event[SPOILED] = np.where(known, [9000.0, 1.0], np.nan), np.where(known, 1.0, np.nan)
        study = replace(study, data=replace(study.data, outcomes=Outcomes(time, event)))
    return study, patients.radiomics.drop(patients.radiomics.index[WITHOUT_IMAGES])


@cache
def fitted(key, nonsense=None):
    """What a comparator made of each endpoint and fold."""
    study, radiomics = study_with(nonsense)
    designs, models = [], []

    def recording(function, into):
        def recorded(*arguments, **named):
            into.append(function(*arguments, **named))
            return into[-1]

        return recorded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(out_of_fold, "fit_design", recording(out_of_fold.fit_design, designs))
        patch.setattr(out_of_fold, "fit", recording(out_of_fold.fit, models))
        outcomes = comparator_outcomes(study, COMPARATORS[key], [radiomics] * len(study.folds))
    assert all(isinstance(each, Predictions) for each in outcomes.values()), outcomes
    each = list(product(study.endpoints, range(len(study.folds))))
    assert len(designs) == len(models) == len(each)
    return {
        (endpoint, fold): Fitted(design, model, outcomes[endpoint][outcomes[endpoint].stratum // 2 == fold])
        for (endpoint, fold), design, model in zip(each, designs, models, strict=True)
    }


def in_numbers(model):
    """Every number that a model learned."""
    if isinstance(model, CoxModel):
        baseline = model.baseline
        strength = [] if model.strength is None else [model.strength]
        return [model.coefficients.to_numpy(), baseline.times, baseline.log_cumulative_hazard, np.array(strength)]
    trees = [each.tree_ for each in model.forest.estimators_]
    return [model.forest.unique_times_] + [
        part for tree in trees for part in (tree.feature, tree.threshold, tree.children_left, tree.value)
    ]


def same(first, second):
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def pairs(key, nonsense, fold):
    before, after = fitted(key), fitted(key, nonsense)
    return [(before[endpoint, fold], after[endpoint, fold]) for endpoint in STUDY.endpoints]


@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("key", COMPARATORS)
def test_nothing_is_learned_from_test_patients(key, nonsense):
    for before, after in pairs(key, nonsense, 0):
        assert after.design.columns == before.design.columns
        assert after.design.encoding == before.design.encoding
        assert after.design.radiomics.equals(before.design.radiomics)
        assert same(in_numbers(after.model), in_numbers(before.model))
        told = ("risk", "absolute_risk") if nonsense == "outcomes" else ("time", "event", "censoring_before")
        for part in ("patient", *OF_DEVELOPMENT, *told):
            np.testing.assert_array_equal(getattr(after.predictions, part), getattr(before.predictions, part))
        # The nonsense was there.
        moved = "time" if nonsense == "outcomes" else "risk"
        assert not np.array_equal(getattr(after.predictions, moved), getattr(before.predictions, moved))


@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("key", COMPARATORS)
def test_development_patients_do_count(key, nonsense):
    """The test above would also pass if nothing were learned at all."""
    for before, after in pairs(key, nonsense, 1):
        assert not same(in_numbers(after.model), in_numbers(before.model))
        assert not np.array_equal(after.predictions.risk, before.predictions.risk)
        if nonsense == "outcomes":
            for part in OF_DEVELOPMENT:
                assert not np.array_equal(getattr(after.predictions, part), getattr(before.predictions, part))
        else:
            assert (after.design.encoding.moments, after.design.radiomics.to_numpy().tolist()) != (
                before.design.encoding.moments,
                before.design.radiomics.to_numpy().tolist(),
            )
