"""What a run's networks say of a patient: curves with their interval, absolute risks, what to be careful about."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stsmm_core.cohort.dictionary import DAYS_PER_YEAR, PATIENT_ID, VARIABLES, Category
from stsmm_core.prediction.model import FoldModel, RunModel, dropout_risks, modality_batch, risk_and_features
from stsmm_core.training.site_data import SiteData

DRAWS = 200
"""Dropout draws a patient, over all networks of the run together."""
LEVEL = 0.95
UNUSUAL_PERCENT = 99.0
"""A patient further from the training patients' mean than this share of them is unlike them."""
FAR_SD = 3.0
ROUNDING = 1e-9
"""Of probabilities: a narrower interval than this has no width."""


@dataclass(frozen=True, eq=False)
class PatientPrediction:
    """What the run's networks say of one patient.

    Attributes:
        times: days of the curves.
        survival: S(t), shape (endpoints, times): the mean over the run's networks.
        low, high: 95 % interval of S(t) over networks and dropout draws, same shape.
        last_time: days of development follow-up, an endpoint; the curves end there. 0 for an endpoint of which the
            networks say nothing.
        percentile: share of the training patients that are nearer to their mean, in percent (mean over networks); NaN
            where the network was trained at several sites, which did not tell.
        remarks: in what the patient is unlike the training patients.
    """

    site: str
    patient: str
    times: NDArray[np.float64]
    survival: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    last_time: NDArray[np.float64]
    percentile: float
    remarks: tuple[str, ...]


def predict_patients(data: SiteData, model: RunModel) -> Iterator[PatientPrediction]:
    """Predict each patient of a site, one after the other."""
    for row in range(len(data.patients)):
        yield _predict_one(data, row, model)


def _predict_one(data: SiteData, row: int, model: RunModel) -> PatientPrediction:
    endpoints = model.experiment.data.endpoints
    times = np.array(model.folds[0].fitted.times)
    reason = _why_no_prediction(data, row, model)
    if reason is not None:
        nothing = np.full((len(endpoints), len(times)), np.nan)
        watched = np.zeros(len(endpoints))
        return PatientPrediction(
            data.site, data.patients[row], times, nothing, nothing, nothing, watched, np.nan, (reason,)
        )
    points, draws, percentiles = [], [], []
    for number, fold in enumerate(model.folds):
        batch = modality_batch(data, row, fold, model.experiment)
        risk, features = risk_and_features(fold, batch)
        sampled = dropout_risks(
            fold, batch, draws=-(-DRAWS // len(model.folds)), seed=model.experiment.seed * len(model.folds) + number
        )
        points.append(_curves(fold, endpoints, risk[None])[0])
        draws.append(_curves(fold, endpoints, sampled))
        familiarity = fold.fitted.familiarity
        percentiles.append(np.nan if familiarity is None else float(familiarity.percentile(features[None])[0]))
    low, high = np.quantile(np.concatenate(draws), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    survival = np.mean(points, axis=0)
    last_time = np.array([min(fold.fitted.last_time[endpoint] for fold in model.folds) for endpoint in endpoints])
    unsaid = {**_too_few_events(model), **_not_at_risk(data, row)}
    for column, endpoint in enumerate(endpoints):
        if endpoint in unsaid:
            survival[column], last_time[column] = np.nan, 0.0
    # The mean curve of networks that differ may leave the middle of the draws: the interval always holds it.
    low, high = np.minimum(low, survival), np.maximum(high, survival)
    said = [unsaid[endpoint] for endpoint in endpoints if endpoint in unsaid]
    if len(said) < len(endpoints) and np.nanmax(high - low) < ROUNDING:
        low, high = np.full(low.shape, np.nan), np.full(high.shape, np.nan)
        said.append("no interval: one network, and no dropout where this patient's data pass")
    percentile = float(np.mean(percentiles))
    return PatientPrediction(
        data.site,
        data.patients[row],
        times,
        survival,
        low,
        high,
        last_time,
        percentile,
        (*said, *_remarks(data, row, model, percentile)),
    )


def _why_no_prediction(data: SiteData, row: int, model: RunModel) -> str | None:
    """Why the networks say nothing of a patient; None where they do.

    The vector that stands for an absent modality is 0 until patients with and without that modality were compared at a
    site, or modality dropout hid it: while it is 0, how the two kinds of patients compare has not been learned.
    """
    known = {
        "image": bool(data.has_image[row]),
        "clinical": bool(data.has_clinical(model.experiment.data.variables)[row]),
    }
    lacking = [name for name in model.experiment.data.modalities if not known[name]]
    if len(lacking) == len(model.experiment.data.modalities):
        return "no variable and no image is known: no prediction"
    for name in lacking:
        if not all(fold.network.absent[name].any() for fold in model.folds):
            what, it = ("image", "it") if name == "image" else ("clinical variables", "them")
            return f"without {what}, and the network did not learn to do without {it}: no prediction"
    return None


def _too_few_events(model: RunModel) -> dict[str, str]:
    """Endpoints with fewer development events than a comparator would need, each with what to say of it."""
    needed = model.experiment.comparators.min_events
    fewest = {
        endpoint: min(fold.fitted.events[endpoint] for fold in model.folds)
        for endpoint in model.experiment.data.endpoints
    }
    return {
        endpoint: f"{events} events of {endpoint} among the development patients, {needed} are needed: no prediction"
        for endpoint, events in fewest.items()
        if events < needed
    }


def _not_at_risk(data: SiteData, row: int) -> dict[str, str]:
    """Endpoints that a patient has reached before time zero, as in training and testing (`Cohort.outcomes`)."""
    if data.clinical.iloc[row]["metastasis_at_presentation"] != "1":
        return {}
    return {"dm": "metastatic at presentation, not at risk of dm: no prediction"}


def _curves(fold: FoldModel, endpoints: Sequence[str], risks: NDArray[np.float64]) -> NDArray[np.float64]:
    """S(t) of log hazards (draws, endpoints), shape (draws, endpoints, times)."""
    curves = [fold.fitted.survival(endpoint, risks[:, column]) for column, endpoint in enumerate(endpoints)]
    return np.stack(curves, axis=1)


def _remarks(data: SiteData, row: int, model: RunModel, percentile: float) -> list[str]:
    """In what a patient is unlike those that the networks were trained on."""
    clinical, first = data.clinical.iloc[row], model.folds[0]
    said = []
    if percentile >= UNUSUAL_PERCENT:
        said.append("further from the training patients' mean than nearly all of them: the prediction extrapolates")
    if np.isnan(percentile):
        said.append("how like the training patients is not known: their sites tell nothing of single ones")
    lacking = [key for key in model.experiment.data.variables if pd.isna(clinical[key])]
    if lacking:
        said.append("without " + ", ".join(VARIABLES[key].label.lower() for key in lacking))
    if "image" in model.experiment.data.modalities and not data.has_image[row]:
        said.append("without image: predicted from the clinical variables alone")
    said += [
        f"without {model.channels[place]}: predicted with 0, the average within a tumour, in its place"
        for place in data.lacking_channels(row)
    ]
    for key in model.experiment.data.variables:
        variable, value = VARIABLES[key], clinical[key]
        if pd.isna(value):
            continue
        if isinstance(variable, Category):
            familiarity = first.fitted.familiarity
            if familiarity is not None and value in familiarity.unseen_levels.get(key, ()):
                said.append(f"{variable.label.lower()} '{value}' was not among the training patients")
        else:
            mean, sd = first.encoding.moments[key]
            off = abs(float(value) - mean)
            if sd > 0 and off > FAR_SD * sd:
                said.append(f"{variable.label.lower()} lies {off / sd:.1f} SD from the training mean")
    return said


def risk_table(
    predictions: Sequence[PatientPrediction], endpoints: Sequence[str], horizons_years: Sequence[float]
) -> pd.DataFrame:
    """A row a patient, endpoint and horizon; no risk where the development patients were not watched so long."""
    rows = []
    for one in predictions:
        for column, endpoint in enumerate(endpoints):
            for years in horizons_years:
                at = int(np.argmin(np.abs(one.times - years * DAYS_PER_YEAR)))
                watched = one.last_time[column] >= years * DAYS_PER_YEAR
                risk = 1 - np.array([one.survival, one.high, one.low])[:, column, at] if watched else [np.nan] * 3
                rows.append(
                    {
                        "site": one.site,
                        PATIENT_ID: one.patient,
                        "endpoint": endpoint,
                        "years": years,
                        "risk": risk[0],
                        "low": risk[1],
                        "high": risk[2],
                        "distance_percentile": one.percentile,
                        "remarks": "; ".join(one.remarks),
                    }
                )
    return pd.DataFrame(rows)


def curve_table(predictions: Sequence[PatientPrediction], endpoints: Sequence[str]) -> pd.DataFrame:
    """A row a patient, endpoint and time, up to the end of development follow-up."""
    parts = []
    for one in predictions:
        for column, endpoint in enumerate(endpoints):
            shown = one.times <= one.last_time[column]
            parts.append(
                pd.DataFrame(
                    {
                        "site": one.site,
                        PATIENT_ID: one.patient,
                        "endpoint": endpoint,
                        "days": one.times[shown],
                        "survival": one.survival[column, shown],
                        "low": one.low[column, shown],
                        "high": one.high[column, shown],
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
