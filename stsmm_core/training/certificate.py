"""The exactness certificate: each federated figure beside the pooled one, on a synthetic twin of the consortium.

The twin has the sites, patients and events that the run was told of, and drawn risks and times. Its figures go through
the code and the layouts that the run itself uses; the pooled ones are computed from all rows in one place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from stsmm_core.config import Experiment
from stsmm_core.protocol.evaluation import (
    development_from_numbers,
    development_to_numbers,
    output_sums_from_numbers,
    output_sums_to_numbers,
    site_test_from_numbers,
    site_test_to_numbers,
)
from stsmm_core.seeds import generator
from stsmm_core.survival import brier
from stsmm_core.survival.baseline import breslow
from stsmm_core.survival.calibration import observed_to_expected
from stsmm_core.survival.common_scale import sum_outputs
from stsmm_core.survival.development import DevelopmentSums
from stsmm_core.survival.discrimination import auc, harrell_c
from stsmm_core.survival.evaluation import label
from stsmm_core.survival.federated_evaluation import figures_at, pooled_c
from stsmm_core.survival.kaplan_meier import censoring_curve, kaplan_meier
from stsmm_core.survival.predictions import Predictions, concatenate
from stsmm_core.survival.site_records import FoldRecords, SiteRecords
from stsmm_core.survival.site_sums import predictions_of, sum_development_of, sum_test
from stsmm_core.training.centre import SiteDescription
from stsmm_core.training.evaluation_over_sites import FederatedTest, horizons_in_days, run_test

MINIMA = (1, 5)
"""Minimum cell sizes that the twin's sites work with: none, and a hospital's."""
UNTOLD_PATIENTS = 4
UNTOLD_EVENTS = 2
"""Stand for counts that a site withheld."""
MEAN_DAYS = 2500.0
LONGEST_DAYS = 36_500.0
"""The twin's patients die at a hundred years of follow-up at the latest: sites tell of no longer times."""
MISSING_SHARE = 0.03
"""Patients of the twin without any modality."""


@dataclass(frozen=True)
class Check:
    """One figure of the twin.

    Attributes:
        exact: whether the two must be equal.
        low, high: the bounds stated with the figure; None where the two must be equal, or where none are stated.
    """

    minimum: int
    endpoint: str
    figure: str
    federated: float
    pooled: float
    exact: bool
    low: float | None = None
    high: float | None = None


def certify(experiment: Experiment, sites: Sequence[SiteDescription]) -> list[dict[str, Any]]:
    """Every figure of the twin, federated and pooled, with a minimum cell size of one and of five.

    At a minimum of five the figures of the test are compared given the development curves that the sites' sums give;
    what moving times does to those curves is told by rows of their own.
    """
    evaluation = experiment.evaluation.model_copy(update={"scheme": "split", "members": 1, "bootstrap_replicates": 1})
    twin = experiment.model_copy(update={"evaluation": evaluation})
    records = {site.site: _twin_of(site, twin) for site in sites}
    checks = []
    for minimum in MINIMA:
        willing = {name: site for name, site in records.items() if _smallest_set(site) >= minimum}
        if not willing:
            continue
        test = exchange(willing, twin, minimum=minimum)
        for column, endpoint in enumerate(twin.data.endpoints):
            checks += [*_curve_checks(willing, test, twin, minimum, column, endpoint)]
            checks += [*_test_checks(willing, test, twin, minimum, column, endpoint)]
    return [asdict(check) | {"difference": abs(check.federated - check.pooled)} for check in checks]


def exchange(records: Mapping[str, SiteRecords], experiment: Experiment, *, minimum: int) -> FederatedTest:
    """A run's test among records in one place, through the messages' layouts."""
    horizons = horizons_in_days(experiment)
    return run_test(
        lambda: {
            name: output_sums_from_numbers(output_sums_to_numbers(sum_outputs(site, minimum=minimum)), experiment)
            for name, site in records.items()
        },
        lambda scale: {
            name: development_from_numbers(
                development_to_numbers(sum_development_of(site, scale, minimum=minimum), experiment),
                experiment,
            )
            for name, site in records.items()
        },
        lambda scale, development: {
            name: site_test_from_numbers(
                site_test_to_numbers(
                    sum_test(site, scale, development, horizons=horizons, minimum=minimum), experiment
                ),
                experiment,
            )
            for name, site in records.items()
        },
    )


def union_of_rows(
    records: Mapping[str, SiteRecords], test: FederatedTest, experiment: Experiment, column: int
) -> Predictions:
    """The first head's predictions of all sites' test patients as one set, given the development curves."""
    parts, offset = [], 0
    for site in records.values():
        rows = predictions_of(site, test.scale, test.development, column, horizons=horizons_in_days(experiment))
        parts.append(replace(rows, patient=rows.patient + offset))
        offset += len(site.tested)
    return concatenate(parts)


def _test_checks(
    records: Mapping[str, SiteRecords],
    test: FederatedTest,
    experiment: Experiment,
    minimum: int,
    column: int,
    endpoint: str,
) -> Iterator[Check]:
    rows, sites = union_of_rows(records, test, experiment, column), list(test.sites.values())
    everyone = np.ones((1, len(rows)))
    figure = pooled_c(sites, test.scale, test.development, head=0, endpoint=column)
    if figure.estimate.value is not None:
        low, high = figure.bounds or (None, None)
        pooled = float(harrell_c(rows, everyone)[0])
        yield Check(
            minimum, endpoint, "pooled C-index", figure.estimate.value, pooled, figure.bounds is None, low, high
        )
    horizons = horizons_in_days(experiment)
    for place, (years, horizon) in enumerate(zip(experiment.evaluation.horizons_years, horizons, strict=True)):
        figures = figures_at(sites, test.scale, test.development, endpoint=column, place=place, horizon=horizon)
        oracle = {
            "auc": auc(rows, everyone, horizon=horizon),
            "brier": brier.brier(rows, everyone, horizon=horizon),
            "brier_null": brier.null_brier(rows, everyone, horizon=horizon),
            "ipa": brier.index_of_prediction_accuracy(rows, everyone, horizon=horizon),
            "oe": observed_to_expected(rows, everyone, horizon=horizon),
        }
        for name, values in oracle.items():
            value = figures[name].estimate.value
            if value is not None:
                low, high = figures[name].bounds or (None, None)
                exact = figures[name].bounds is None and figures[name].left_out == 0
                title = f"{TITLES[name]} at {label(years)} years"
                yield Check(minimum, endpoint, title, value, float(values[0]), exact, low, high)


TITLES = {"auc": "AUC", "brier": "Brier score", "brier_null": "Brier score, null", "ipa": "IPA", "oe": "O/E"}


def _curve_checks(
    records: Mapping[str, SiteRecords],
    test: FederatedTest,
    experiment: Experiment,
    minimum: int,
    column: int,
    endpoint: str,
) -> Iterator[Check]:
    """Development curves from sums against those of the rows."""
    risk, time, event = _development_rows(records, test, column)
    sums: DevelopmentSums = test.development[0][column]
    pairs = {
        "Kaplan-Meier": (sums.null(), kaplan_meier(time=time, event=event)),
        "censoring survival": (sums.censoring(), censoring_curve(time=time, event=event)),
    }
    baselines = sums.baseline(), breslow(risk, time=time, event=event)
    for years, horizon in zip(experiment.evaluation.horizons_years, horizons_in_days(experiment), strict=True):
        for name, (ours, theirs) in pairs.items():
            yield Check(
                minimum,
                endpoint,
                f"{name} of development at {label(years)} years",
                float(ours.at(horizon)),
                float(theirs.at(horizon)),
                minimum == 1,
            )
        federated, pooled = (float(np.exp(each.log_cumulative_at(np.array([horizon]))[0])) for each in baselines)
        title = f"baseline hazard at {label(years)} years"
        yield Check(minimum, endpoint, title, federated, pooled, minimum == 1)


def _smallest_set(site: SiteRecords) -> float:
    """Patients in the smallest set that is not empty: below its minimum a site does not take part in a run."""
    (fold,) = site.folds
    sizes = (int(fold.trained.sum()), int((~fold.trained).sum()), len(fold.test))
    return min((size for size in sizes if size), default=np.inf)


def _development_rows(
    records: Mapping[str, SiteRecords], test: FederatedTest, column: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = []
    for site in records.values():
        fold = site.folds[0]
        risk = np.nan_to_num(fold.development_output[0, :, column] - test.scale.mean[0, 0, column])
        parts.append(np.stack([risk, site.time[fold.development, column], site.event[fold.development, column]]))
    risk, time, event = np.concatenate(parts, axis=1)
    return risk, time, event


def _twin_of(site: SiteDescription, experiment: Experiment) -> SiteRecords:
    """Drawn patients of one site: as many, with as many events, of risks of its own mean and on whole days."""
    rng = generator(experiment.seed, "twin", site.site)
    patients = UNTOLD_PATIENTS if site.patients is None else site.patients
    endpoints = experiment.data.endpoints
    outputs = rng.normal(rng.normal(scale=0.5), 1.0, size=(len(experiment.heads), patients, len(endpoints)))
    outputs[:, rng.random(patients) < MISSING_SHARE] = np.nan
    hazard = np.exp(np.nan_to_num(outputs[0]))
    time = np.minimum(np.ceil(rng.exponential(MEAN_DAYS / hazard)), LONGEST_DAYS)
    event = np.zeros_like(time)
    for column, endpoint in enumerate(endpoints):
        told = site.events.get(endpoint)
        count = min(UNTOLD_EVENTS if told is None else told, patients)
        event[rng.permutation(patients)[:count], column] = 1.0
    shuffled = rng.permutation(patients)
    developed = round(patients * (experiment.evaluation.train_fraction + experiment.evaluation.validation_fraction))
    trained = round(patients * experiment.evaluation.train_fraction)
    development, test = shuffled[:developed], np.sort(shuffled[developed:])
    fold = FoldRecords(development, np.arange(developed) < trained, outputs[:, development], test, outputs[:, test])
    return SiteRecords(time, event, (fold,), np.ones((len(endpoints), 1, len(test))), salt=experiment.seed)
