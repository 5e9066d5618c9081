"""What a site tells of its test patients, once it knows the development sums of all sites."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from stsmm_core.seeds import generator
from stsmm_core.survival import brier
from stsmm_core.survival.cells import Cells, make_cells, risk_edges, time_edges
from stsmm_core.survival.common_scale import Scale
from stsmm_core.survival.concordance import compare_pairs, outranks
from stsmm_core.survival.development import DevelopmentSums, recalibration, sum_development
from stsmm_core.survival.discrimination import case_and_control_weights, column_of
from stsmm_core.survival.estimates import draw_patients
from stsmm_core.survival.leaving import Leaving, count_leaving
from stsmm_core.survival.predictions import Predictions, concatenate
from stsmm_core.survival.site_records import SiteRecords

GROUP_EDGES = ndtri([0.2, 0.4, 0.6, 0.8])
"""Groups of predicted risk: fifths of a normal distribution with the training patients' mean and standard deviation."""
GROUPS = len(GROUP_EDGES) + 1

Development = Sequence[Sequence[DevelopmentSums]]
"""Of all sites together, [fold][endpoint]."""


@dataclass(frozen=True, eq=False)
class RankSums:
    """Pairs within the site and within a fold, and cells for the pairs with other sites; of one head and endpoint.

    A site with fewer such patients than its minimum tells of none: zeros, and cells that say so.

    Attributes:
        concordant, comparable: added over folds, shape (samples,); the data themselves are the first sample.
        cells: one a fold.
        patients, events: tested ones with a risk and an outcome.
    """

    concordant: NDArray[np.float64]
    comparable: NDArray[np.float64]
    cells: tuple[Cells, ...]
    patients: int
    events: int


@dataclass(frozen=True, eq=False)
class HorizonSums:
    """Sums over the site's test patients at one horizon, shape (samples,) each; zeros where they are below the minimum.

    Attributes:
        size: rows.
        brier, brier_null, brier_site: weighted squared errors of the model, of the null curve, and of the model
            with the site's own baseline hazard.
        expected, expected_site: predicted risks; observed: weights of cases.
        concordant, comparable: weights of pairs of a case and a control within the site.
        cells: weights of cases and controls by risk, one a fold.
        group_size, group_expected, group_observed: by group of predicted risk, shape (samples, groups); observed are
            weights of cases.
        events, beyond: patients with an event by the horizon, and patients followed beyond it.
    """

    size: NDArray[np.float64]
    brier: NDArray[np.float64]
    brier_null: NDArray[np.float64]
    brier_site: NDArray[np.float64]
    expected: NDArray[np.float64]
    expected_site: NDArray[np.float64]
    observed: NDArray[np.float64]
    concordant: NDArray[np.float64]
    comparable: NDArray[np.float64]
    cells: tuple[Cells, ...]
    group_size: NDArray[np.float64]
    group_expected: NDArray[np.float64]
    group_observed: NDArray[np.float64]
    events: int
    beyond: int


@dataclass(frozen=True, eq=False)
class RiskSums:
    """Absolute risks of the first head for one endpoint: one `HorizonSums` a horizon, and when patients leave."""

    leaving: Leaving
    horizons: tuple[HorizonSums, ...]


@dataclass(frozen=True, eq=False)
class SiteTest:
    """All that a site tells of its test: ranks [head][endpoint], risks [endpoint]."""

    ranks: tuple[tuple[RankSums, ...], ...]
    risks: tuple[RiskSums, ...]


def sum_development_of(records: SiteRecords, scale: Scale, *, minimum: int) -> list[list[DevelopmentSums]]:
    """A site's share of the development sums, [fold][endpoint].

    A patient for whom the model has no input counts as the mean one: there is no risk of one's own.
    """
    sums = []
    for number, fold in enumerate(records.folds):
        risk = np.nan_to_num(fold.development_output[0] - scale.mean[number, 0])
        time, event = records.time[fold.development], records.event[fold.development]
        known = np.isfinite(time)
        sums.append(
            [
                sum_development(
                    risk[known[:, column], column],
                    time=time[known[:, column], column],
                    event=event[known[:, column], column],
                    minimum=minimum,
                )
                for column in range(records.endpoints)
            ]
        )
    return sums


def site_factors(records: SiteRecords, scale: Scale, development: Development) -> NDArray[np.float64]:
    """The site's own recalibration factors of the baseline hazard, shape (folds, endpoints); they stay at the site."""
    factors = np.ones((len(records.folds), records.endpoints))
    for number, fold in enumerate(records.folds):
        for column in range(records.endpoints):
            time, event = (values[fold.development, column] for values in (records.time, records.event))
            risk = np.nan_to_num(fold.development_output[0, :, column] - scale.mean[number, 0, column])
            known = np.isfinite(time)
            factors[number, column] = recalibration(
                risk[known], time=time[known], event=event[known], baseline=development[number][column].baseline()
            )
    return factors


def sum_test(
    records: SiteRecords, scale: Scale, development: Development, *, horizons: Sequence[float], minimum: int
) -> SiteTest:
    """What the site tells of its test patients.

    Args:
        horizons: days, increasing.
    """
    heads = scale.mean.shape[1]
    ranks = tuple(
        tuple(
            _rank_sums(records, scale, head, column, [each[column].last_time for each in development], minimum)
            for column in range(records.endpoints)
        )
        for head in range(heads)
    )
    factors = site_factors(records, scale, development)
    risks = tuple(
        _risk_sums(records, scale, development, factors, column, horizons, minimum)
        for column in range(records.endpoints)
    )
    return SiteTest(ranks, risks)


def predictions_of(
    records: SiteRecords,
    scale: Scale,
    development: Development,
    endpoint: int,
    *,
    horizons: Sequence[float],
    factors: NDArray[np.float64] | None = None,
) -> Predictions:
    """The first head's predictions for the site's test patients, with the curves of all sites; strata are folds.

    `Predictions.patient` numbers the tested patients. Patients without a risk or an outcome are left out.

    Args:
        factors: of the baseline hazard, shape (folds, endpoints); 1 where none are given.
    """
    times = np.array(horizons)
    parts = []
    for number, fold in enumerate(records.folds):
        sums = development[number][endpoint]
        risk = fold.test_output[0, :, endpoint] - scale.mean[number, 0, endpoint]
        time, event = records.time[fold.test, endpoint], records.event[fold.test, endpoint]
        known = np.isfinite(risk) & np.isfinite(time)
        risk, time, event = risk[known], time[known], event[known]
        factor = 1.0 if factors is None else factors[number, endpoint]
        null, censoring = sums.null(), sums.censoring()
        rows = len(risk)
        parts.append(
            Predictions(
                patient=np.searchsorted(records.tested, fold.test[known]),
                stratum=np.full(rows, number),
                time=time,
                event=event,
                risk=risk,
                times=times,
                absolute_risk=1 - sums.baseline().survival(risk + np.log(factor), times),
                null_risk=np.tile(1 - null.at(times), (rows, 1)),
                censoring_before=censoring.before(time),
                censoring_at=np.tile(censoring.at(times), (rows, 1)),
                last_development_time=np.full(rows, sums.last_time),
            )
        )
    return concatenate(parts)


def rows_of_patients(patient: NDArray[np.intp], minimum: int) -> int:
    """So many rows are of at least `minimum` patients: in repeated cross-validation a patient has a row a repeat."""
    return minimum * int(np.bincount(patient).max(initial=1)) if minimum > 1 else minimum


def _rank_sums(
    records: SiteRecords, scale: Scale, head: int, endpoint: int, last_times: Sequence[float], minimum: int
) -> RankSums:
    everybody = _samples(records, endpoint, f"ranks {head}", minimum)
    concordant, comparable = np.zeros(len(everybody)), np.zeros(len(everybody))
    cells, tested, happened = [], [], []
    for number, fold in enumerate(records.folds):
        mean, sd = scale.mean[number, head, endpoint], scale.sd[number, head, endpoint]
        risk = fold.test_output[head, :, endpoint] - mean
        time, event = records.time[fold.test, endpoint], records.event[fold.test, endpoint]
        known = np.isfinite(risk) & np.isfinite(time)
        risk, time, event, patient = risk[known], time[known], event[known] > 0, fold.test[known]
        samples = everybody[:, np.searchsorted(records.tested, patient)]
        ordered, every = compare_pairs(risk, time=time, happened=event)
        concordant += ((samples @ ordered) * samples).sum(axis=1)
        comparable += ((samples @ every) * samples).sum(axis=1)
        cells.append(
            make_cells(
                risk,
                time,
                first=samples * event,
                second=samples * ~event,
                minimum=minimum,
                risk_edges=risk_edges(0.0, sd),
                time_edges=time_edges(last_times[number]),
            )
        )
        tested.append(patient)
        happened.append(patient[event])
    patients, events = (len(np.unique(np.concatenate(rows))) for rows in (tested, happened))
    if patients < minimum:
        return RankSums(0 * concordant, 0 * comparable, tuple(cells), 0, 0)
    return RankSums(concordant, comparable, tuple(cells), patients, events)


def _risk_sums(
    records: SiteRecords,
    scale: Scale,
    development: Development,
    factors: NDArray[np.float64],
    endpoint: int,
    horizons: Sequence[float],
    minimum: int,
) -> RiskSums:
    predictions = predictions_of(records, scale, development, endpoint, horizons=horizons)
    own = predictions_of(records, scale, development, endpoint, horizons=horizons, factors=factors)
    sd = scale.sd[:, 0, endpoint]

    def samples(figure: str) -> NDArray[np.float64]:
        return _samples(records, endpoint, figure, minimum)[:, predictions.patient]

    rows = rows_of_patients(predictions.patient, minimum)
    return RiskSums(
        count_leaving(time=predictions.time, event=predictions.event, samples=samples("leaving"), minimum=rows),
        tuple(_horizon_sums(predictions, own, samples, sd, horizon, minimum) for horizon in horizons),
    )


def _horizon_sums(
    predictions: Predictions,
    own: Predictions,
    samples: Callable[[str], NDArray[np.float64]],
    sd: NDArray[np.float64],
    horizon: float,
    minimum: int,
) -> HorizonSums:
    """Sums of one horizon.

    Args:
        samples: how often each row is in the samples of a figure, by its name.
    """
    column = column_of(predictions, horizon)
    case, control = case_and_control_weights(predictions, horizon)
    least_rows = rows_of_patients(predictions.patient, minimum)
    belongs = _groups(predictions, sd, least_rows)
    enough = len(predictions) >= least_rows
    squares, totals, groups = (samples(f"{figure} {horizon}") * enough for figure in ("brier", "oe", "groups"))
    concordant, comparable, cells = _case_cells(predictions, case, control, samples(f"auc {horizon}"), sd, minimum)
    expected = totals * predictions.absolute_risk[:, column]
    happened = (predictions.event > 0) & (predictions.time <= horizon)
    beyond = predictions.time > horizon
    return HorizonSums(
        size=squares.sum(axis=1),
        brier=squares @ brier.squared_errors(predictions, predictions.absolute_risk, horizon),
        brier_null=squares @ brier.squared_errors(predictions, predictions.null_risk, horizon),
        brier_site=squares @ brier.squared_errors(own, own.absolute_risk, horizon),
        expected=expected.sum(axis=1),
        expected_site=totals @ own.absolute_risk[:, column],
        observed=totals @ case,
        concordant=concordant * enough,
        comparable=comparable * enough,
        cells=cells,
        group_size=groups @ belongs,
        group_expected=expected @ belongs,
        group_observed=(groups * case) @ belongs,
        events=len(np.unique(predictions.patient[happened])) if enough else 0,
        beyond=len(np.unique(predictions.patient[beyond])) if enough else 0,
    )


def _case_cells(
    predictions: Predictions,
    case: NDArray[np.float64],
    control: NDArray[np.float64],
    samples: NDArray[np.float64],
    sd: NDArray[np.float64],
    minimum: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[Cells, ...]]:
    """Concordant and comparable weights of pairs of a case and a control within the site, and cells for other sites."""
    concordant, comparable = np.zeros(len(samples)), np.zeros(len(samples))
    cells = []
    for fold in range(len(sd)):
        rows = predictions.stratum == fold
        weight = case[rows][:, None] * control[rows]
        ordered = weight * outranks(predictions.risk[rows], predictions.risk[rows])
        drawn = samples[:, rows]
        concordant += ((drawn @ ordered) * drawn).sum(axis=1)
        comparable += ((drawn @ weight) * drawn).sum(axis=1)
        cells.append(
            make_cells(
                predictions.risk[rows],
                np.zeros(int(rows.sum())),
                first=drawn * case[rows],
                second=drawn * control[rows],
                minimum=minimum,
                risk_edges=risk_edges(0.0, float(sd[fold])),
                time_edges=np.zeros(0),
            )
        )
    return concordant, comparable, tuple(cells)


def _groups(predictions: Predictions, sd: NDArray[np.float64], minimum: int) -> NDArray[np.float64]:
    """1 where a row is in a group, shape (rows, groups); a group below the minimum joins the next one, the last the one
    before it."""
    unit = np.maximum(sd[predictions.stratum], np.finfo(float).tiny)
    group = np.searchsorted(GROUP_EDGES, predictions.risk / unit)
    for number in range(GROUPS - 1):
        if 0 < (group == number).sum() < minimum:
            group[group == number] = number + 1
    if 0 < (group == GROUPS - 1).sum() < minimum and (group < GROUPS - 1).any():
        group[group == GROUPS - 1] = group[group < GROUPS - 1].max()
    return (group[:, None] == np.arange(GROUPS)).astype(float)


def _samples(records: SiteRecords, endpoint: int, figure: str, minimum: int) -> NDArray[np.float64]:
    """The data themselves first, shape (1 + replicates, tested).

    With a minimum of one all figures are of the same samples. Else each is of its own: a cell may hold one patient and
    then tells how often that patient was drawn; a regression of another figure on it would tell that patient's share.
    """
    drawn = records.samples[endpoint]
    if minimum > 1:
        replicates, tested = drawn.shape
        drawn = draw_patients(tested, replicates, generator(records.salt, figure, endpoint))
    return np.concatenate([np.ones((1, drawn.shape[1])), drawn])
