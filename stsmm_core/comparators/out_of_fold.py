"""What each model says of patients that it has not seen: its predictions of all test folds, put together."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stsmm_core.comparators.design import fit_design
from stsmm_core.comparators.fitting import fit
from stsmm_core.comparators.models import CannotFit
from stsmm_core.comparators.specification import Specification
from stsmm_core.comparators.study import Study
from stsmm_core.seeds import derive_seed
from stsmm_core.survival.baseline import breslow
from stsmm_core.survival.predictions import Predictions, concatenate, predict_fold
from stsmm_core.training.train import TrainedModel

Outcome = Predictions | str
"""A model's predictions, or the reason why it has none."""

Rows = NDArray[np.intp]
Forecast = Callable[[int, int, Rows, Rows], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""From (fold, endpoint, development rows, test rows) to the test rows' log hazards and survival curves."""


def network_outcomes(study: Study, models: Sequence[TrainedModel]) -> dict[str, Outcome]:
    """Predictions of a network's fold models, by endpoint; Breslow's baseline of each fold's development patients.

    The risk of an ensemble is the mean of its members' log hazards, each relative to its training patients' mean.
    """
    members = study.experiment.evaluation.members
    risks = [
        np.mean([model.risks for model in models[first : first + members]], axis=0)
        for first in range(0, len(models), members)
    ]

    def forecast(
        fold: int, endpoint: int, development: Rows, test: Rows
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        risk, outcomes = risks[fold][:, endpoint], study.data.outcomes[development]
        baseline = breslow(risk[development], time=outcomes.time[:, endpoint], event=outcomes.event[:, endpoint])
        return risk[test], baseline.survival(risk[test], study.times)

    return _outcomes(study, forecast)


def comparator_outcomes(
    study: Study, specification: Specification, radiomics: Sequence[pd.DataFrame]
) -> dict[str, Outcome]:
    """Predictions of a classical model, fitted to each fold's development patients, by endpoint.

    Args:
        radiomics: of all patients, one table a fold.
    """

    def forecast(
        fold: int, endpoint: int, development: Rows, test: Rows
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        clinical, experiment = study.data.clinical, study.experiment
        train = study.folds[fold].train
        design = fit_design(specification, clinical, study.encoding(fold), radiomics[fold], train=train)
        outcomes = study.data.outcomes[development]
        model = fit(
            specification.estimator,
            design.inputs(clinical.iloc[development], radiomics[fold]),
            time=outcomes.time[:, endpoint],
            event=outcomes.event[:, endpoint],
            config=experiment.comparators,
            seed=derive_seed(experiment.seed, specification.key, fold, endpoint),
        )
        inputs = design.inputs(clinical.iloc[test], radiomics[fold])
        return model.risk(inputs), model.survival(inputs, study.times)

    return _outcomes(study, forecast)


def _outcomes(study: Study, forecast: Forecast) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for column, endpoint in enumerate(study.endpoints):
        try:
            folds = [_predict_fold(study, fold, column, forecast) for fold in range(len(study.folds))]
        except CannotFit as reason:
            outcomes[endpoint] = str(reason)
        else:
            outcomes[endpoint] = concatenate(folds)
    return outcomes


def _predict_fold(study: Study, fold: int, column: int, forecast: Forecast) -> Predictions:
    development, test = study.development(fold, column), study.test(fold, column)
    if not len(development):
        raise CannotFit("no development patient has this endpoint")
    seen, unseen = study.data.outcomes[development], study.data.outcomes[test]
    risk, survival = forecast(fold, column, development, test)
    return predict_fold(
        patients=test,
        stratum=study.strata(fold, test),
        development_time=seen.time[:, column],
        development_event=seen.event[:, column],
        time=unseen.time[:, column],
        event=unseen.event[:, column],
        risk=risk,
        survival=survival,
        times=study.times,
    )
