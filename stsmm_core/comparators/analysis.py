"""What a comparison found: figures, differences, curves and subgroups of every model on the same test patients."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stsmm_core.cohort.dictionary import DAYS_PER_YEAR, VARIABLES, Category
from stsmm_core.comparators import description
from stsmm_core.comparators.networks import NETWORKS
from stsmm_core.comparators.out_of_fold import Outcome
from stsmm_core.comparators.specification import COMPARATORS, ESTIMATOR_LABELS
from stsmm_core.comparators.study import Study
from stsmm_core.report.prose import scheme
from stsmm_core.run_folder import BLENDED
from stsmm_core.seeds import generator
from stsmm_core.survival.competing_risks import aalen_johansen
from stsmm_core.survival.discrimination import harrell_c, uno_tau
from stsmm_core.survival.estimates import draw_patients, no_estimate, samples_of
from stsmm_core.survival.evaluation import curves, evaluate
from stsmm_core.survival.evaluation import harrell_c as estimate_harrell_c
from stsmm_core.survival.kaplan_meier import kaplan_meier
from stsmm_core.survival.model_differences import differences_by_fold, paired_difference, resampled_t_test
from stsmm_core.survival.predictions import Predictions

SUBGROUP_VARIABLES = ("sex", "age", "grade", "location", "histology")
AGE_CUT = 60.0
"""Years: near the median age of soft-tissue sarcoma, as one cut for every cohort."""


def analyse(
    study: Study, outcomes: Mapping[str, Mapping[str, Outcome]], *, advance: Callable[[], None]
) -> dict[str, Any]:
    """Everything that the report shows and the run can know, as comparison.json has it.

    Args:
        outcomes: predictions, or the reason for none, by model and endpoint.
        advance: called once a model, for a progress bar.
    """
    evaluation = study.experiment.evaluation
    multiplicities = {endpoint: _draw_tested(study, endpoint) for endpoint in study.endpoints}
    results: dict[str, dict[str, Any]] = {}
    drawn: dict[str, dict[str, Any]] = {}
    for key, by_endpoint in outcomes.items():
        results[key] = {name: _figures(study, name, one, multiplicities[name]) for name, one in by_endpoint.items()}
        drawn[key] = {
            name: curves(one, horizons_years=evaluation.horizons_years)
            for name, one in by_endpoint.items()
            if isinstance(one, Predictions)
        }
        advance()
    models = {name: one for name, one in outcomes[BLENDED].items() if isinstance(one, Predictions)}
    return {
        "schema_version": 1,
        "sites": list(study.sites),
        "channels": list(study.channels),
        "scheme": scheme(study.experiment),
        "seed": study.experiment.seed,
        "horizons_years": list(evaluation.horizons_years),
        "flow": description.flow(study),
        "missing": description.missing(study),
        "follow_up_days": description.follow_up(study),
        "taus": {name: uno_tau(one) for name, one in models.items()},
        "cohort_by": description.cohort_columns(study),
        "models": [_model(key) for key in outcomes],
        "results": results,
        "differences": {name: _differences(study, name, outcomes, multiplicities[name]) for name in study.endpoints},
        "curves": drawn,
        "cumulative_incidence": _cumulative_incidence(study),
        "subgroups": {name: _subgroups(study, one, multiplicities[name]) for name, one in models.items()},
    }


def _draw_tested(study: Study, endpoint: str) -> NDArray[np.float64]:
    """How often each patient is in each bootstrap sample of the tested patients, shape (replicates, patients)."""
    tested = study.tested(study.endpoints.index(endpoint))
    replicates = study.experiment.evaluation.bootstrap_replicates
    drawn = np.zeros((replicates, len(study.data.patients)))
    rng = generator(study.experiment.seed, "comparison bootstrap", endpoint)
    drawn[:, tested] = draw_patients(len(tested), replicates, rng)
    return drawn


def _model(key: str) -> dict[str, Any]:
    network = next((each for each in NETWORKS if each.key == key), None)
    one = network or COMPARATORS[key]
    return {
        "key": key,
        "label": one.label,
        "inputs": one.inputs,
        "estimator": "neural network" if network else ESTIMATOR_LABELS[COMPARATORS[key].estimator],
        "paper": one.paper and dict(one.paper),
        "network": network is not None,
    }


def _figures(study: Study, endpoint: str, outcome: Outcome, multiplicities: NDArray[np.float64]) -> dict[str, Any]:
    if isinstance(outcome, Predictions):
        figures = evaluate(
            outcome, horizons_years=study.experiment.evaluation.horizons_years, multiplicities=multiplicities
        )
        return {name: asdict(figure) for name, figure in figures.items()}
    column = study.endpoints.index(endpoint)
    tested = study.tested(column)
    events = int(study.data.outcomes.event[tested, column].sum())
    return {"harrell_c": asdict(no_estimate(outcome, n=len(tested), events=events))}


def _differences(
    study: Study, endpoint: str, outcomes: Mapping[str, Mapping[str, Outcome]], multiplicities: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """The blended network against every other model, paired on the same patients."""
    model = outcomes[BLENDED][endpoint]
    found = []
    for key, by_endpoint in outcomes.items():
        other = by_endpoint[endpoint]
        if key == BLENDED or not isinstance(model, Predictions) or not isinstance(other, Predictions):
            continue
        paired = paired_difference(model, other, metric=harrell_c, multiplicities=multiplicities)
        found.append(
            {
                "model": BLENDED,
                "against": key,
                "metric": "harrell_c",
                "difference": asdict(paired.difference),
                "p": paired.p,
                "resampled_t": None if paired.difference.value is None else _resampled_t(study, model, other),
            }
        )
    return found


def _resampled_t(study: Study, model: Predictions, other: Predictions) -> dict[str, float] | None:
    if len(study.folds) == 1:
        return None
    by_fold = differences_by_fold(model, other, fold=model.stratum // len(study.sites), metric=harrell_c)
    found = resampled_t_test(
        by_fold,
        n_train=float(np.mean([len(fold.train) + len(fold.validation) for fold in study.folds])),
        n_test=float(np.mean([len(fold.test) for fold in study.folds])),
    )
    return None if found is None else asdict(found)


def _subgroups(study: Study, model: Predictions, multiplicities: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Harrell's C of the blended network within each level; pairs are of one level, as of one test fold."""
    samples = samples_of(model, multiplicities)
    rows = []
    for variable, level, members in _levels(study):
        inside = members[model.patient]
        if not inside.any():
            continue
        figure = estimate_harrell_c(model[inside], samples[:, inside])
        rows.append(
            {"variable": variable, "level": level, "n": figure.n, "events": figure.events, "harrell_c": asdict(figure)}
        )
    return rows


def _levels(study: Study) -> list[tuple[str, str, NDArray[np.bool_]]]:
    clinical = study.data.clinical
    groups: list[tuple[str, str, NDArray[np.bool_]]] = []
    for key in SUBGROUP_VARIABLES:
        variable = VARIABLES[key]
        if isinstance(variable, Category):
            groups += [(key, level, (clinical[key] == level).to_numpy()) for level in variable.levels]
        else:
            years = clinical[key].to_numpy(dtype=float)
            groups += [
                (key, f"below {AGE_CUT:g}", years < AGE_CUT),
                (key, f"{AGE_CUT:g} and above", years >= AGE_CUT),
            ]
    if len(study.sites) > 1:
        groups += [("site", name, study.site == number) for number, name in enumerate(study.sites)]
    return groups


def _cumulative_incidence(study: Study) -> dict[str, list[float]] | None:
    """Distant metastasis with death as the competing event, where both are recorded."""
    if not {"os", "dm"} <= set(study.endpoints):
        return None
    metastasis = study.endpoints.index("dm")
    outcomes = study.data.outcomes
    known = np.isfinite(outcomes.time).all(axis=1)
    if not known.any():
        return None
    time, event = outcomes.time[known, metastasis], outcomes.event[known, metastasis]
    cause = np.where(event > 0, 1, np.where(description.died_first(study, metastasis)[known], 2, 0))
    days = study.times[study.times <= time.max()]
    first, second = (aalen_johansen(time=time, cause=cause, of=number).at(days) for number in (1, 2))
    return {
        "years": (days / DAYS_PER_YEAR).tolist(),
        "dm": np.clip(first, 0, 1).tolist(),
        "death_first": np.clip(second, 0, 1).tolist(),
        "one_minus_km": (1 - kaplan_meier(time=time, event=event).at(days)).tolist(),
    }
