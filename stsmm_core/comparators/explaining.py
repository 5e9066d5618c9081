"""What the blended network looked at: heat maps, their sanity check and clinical attributions, for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stsmm_core.cohort.cohort import Cohort
from stsmm_core.cohort.dictionary import DAYS_PER_YEAR, EVENTS, VARIABLES, years_in_words
from stsmm_core.comparators.out_of_fold import Outcome
from stsmm_core.comparators.study import Study
from stsmm_core.explain.cases import Case, describe_case, pick_cases
from stsmm_core.explain.explanations import Explanations, explain_network, write_case
from stsmm_core.explain.patient_space import to_patient_space
from stsmm_core.model.mmnn import build_network, set_weights
from stsmm_core.run_folder import PRIVATE_FOLDER
from stsmm_core.seeds import generator
from stsmm_core.survival.discrimination import column_of
from stsmm_core.survival.predictions import Predictions
from stsmm_core.training.train import TrainedModel

MOST_PATIENTS = 24
"""Test patients that are explained: the sanity check makes a map of each for every layer that it randomises."""
MAPS_FOLDER = "maps"


def explain_model(
    study: Study,
    cohorts: Sequence[Cohort],
    model: TrainedModel,
    outcomes: Mapping[str, Outcome],
    out: Path,
) -> dict[str, Any]:
    """Explain the first fold's model on its test patients and write the cases to show into the private folder.

    Args:
        cohorts: of the study, in its order.
        model: of the first fold.
        outcomes: its predictions by endpoint.

    Returns:
        The part `explanations` of comparison.json.
    """
    experiment, fold = study.experiment, study.folds[0]
    network = build_network(
        experiment, channels=len(study.channels), clinical_inputs=model.progress.encoding.width, fold=0
    )
    set_weights(network, model.progress.selected)
    rng = generator(experiment.seed, "explained patients")
    chosen = np.sort(rng.permutation(fold.test)[:MOST_PATIENTS])
    explained = explain_network(
        network,
        experiment,
        study.data,
        model.progress.encoding,
        rows=chosen,
        training_rows=fold.train,
    )
    files = [(cohort, patient) for cohort in cohorts for patient in cohort.patients]
    evaluation = experiment.evaluation
    which = "the model" if evaluation.runs == 1 else f"the first of {evaluation.runs} networks"
    ensemble = " Risk, right and wrong are those of the ensemble it is in." if evaluation.members > 1 else ""
    return {
        "scope": f"Explanations: {which}, {len(chosen)} of its {len(fold.test)} test patients, drawn by the seed."
        + ensemble,
        "sanity": {name: [asdict(each) for each in endpoint.sanity] for name, endpoint in explained.endpoints.items()},
        "clinical": {
            name: {VARIABLES[key].label: size for key, size in endpoint.clinical.mean_absolute().items()}
            for name, endpoint in explained.endpoints.items()
            if endpoint.clinical is not None
        },
        "figures": [
            figure
            for name in study.endpoints
            for figure in _write_cases(study, files, explained, name, outcomes[name], out)
        ],
    }


def _write_cases(
    study: Study,
    files: Sequence[tuple[Cohort, str]],
    explained: Explanations,
    endpoint: str,
    outcome: Outcome,
    out: Path,
) -> list[dict[str, Any]]:
    """Cases that the model got right and wrong, at the first horizon from the middle one down that has any."""
    maps = explained.endpoints[endpoint].maps
    if maps is None or not isinstance(outcome, Predictions):
        return []
    first_fold = outcome[outcome.stratum // len(study.sites) == 0]
    tested = first_fold[np.isin(first_fold.patient, explained.with_image)]
    horizons = study.experiment.evaluation.horizons_years
    for years in reversed(horizons[: len(horizons) // 2 + 1]):
        cases = pick_cases(tested.risk, time=tested.time, event=tested.event, horizon_days=years * DAYS_PER_YEAR)
        if cases:
            break
    else:
        return []
    figures = []
    for case in cases:
        patient = int(tested.patient[case.row])
        cohort, name = files[patient]
        placed = to_patient_space(
            maps,
            int(np.flatnonzero(explained.with_image == patient)[0]),
            channels=cohort.channel_files(name),
            mask=cohort.mask_path(name),
            config=study.experiment.imaging,
        )
        title = describe_case(case, event=EVENTS[endpoint], horizon_years=years)
        risk = _risk_words(case, tested, years)
        path = write_case(
            out / PRIVATE_FOLDER / MAPS_FOLDER, placed, name=f"{endpoint}_case_{case.number}", title=title, risk=risk
        )
        figures.append(
            {
                "file": path.relative_to(out).as_posix(),
                "endpoint": endpoint,
                "right": case.right,
                "caption": f"{title}; {risk}",
            }
        )
    return figures


def _risk_words(case: Case, tested: Predictions, horizon_years: float) -> str:
    column = column_of(tested, horizon_years * DAYS_PER_YEAR)
    return f"predicted risk at {years_in_words(horizon_years)} {tested.absolute_risk[case.row, column]:.0%}"
