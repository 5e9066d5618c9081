"""What a model said of its test patients, with all that is needed to judge it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from stsmm_core.survival.kaplan_meier import censoring_curve, kaplan_meier


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of one model and endpoint for test patients, one row a patient and test fold.

    Attributes:
        patient: number of the patient, shape (rows,); with repeated cross-validation a patient has a row a repeat.
        stratum: test fold (and site), shape (rows,); pairs are compared within a stratum only.
        time, event: days and 1.0 or 0.0, shape (rows,).
        risk: log relative hazard, shape (rows,); higher is worse.
        times: grid of the curves in days, increasing, shape (T,); it contains the horizons.
        absolute_risk: 1 - S(t) of the model, shape (rows, T).
        null_risk: 1 - Kaplan-Meier of the fold's development patients, shape (rows, T).
        censoring_before: G(time-), censoring survival of the development patients, shape (rows,).
        censoring_at: G(times), shape (rows, T).
        last_development_time: largest observed time of the fold's development patients in days, shape (rows,).

    Raises:
        ValueError: when shapes do not fit or a value is not a finite number.
    """

    patient: NDArray[np.intp]
    stratum: NDArray[np.intp]
    time: NDArray[np.float64]
    event: NDArray[np.float64]
    risk: NDArray[np.float64]
    times: NDArray[np.float64]
    absolute_risk: NDArray[np.float64]
    null_risk: NDArray[np.float64]
    censoring_before: NDArray[np.float64]
    censoring_at: NDArray[np.float64]
    last_development_time: NDArray[np.float64]

    def __post_init__(self) -> None:
        rows, columns = len(self.patient), len(self.times)
        for field in fields(self):
            values = getattr(self, field.name)
            expected = {"times": (columns,)}.get(field.name, (rows, columns) if field.name in CURVES else (rows,))
            if values.shape != expected:
                raise ValueError(f"{field.name} must have shape {expected}, not {values.shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{field.name} holds a value that is not a finite number")
        if not (np.diff(self.times) > 0).all():
            raise ValueError("times must increase")
        if not ((self.event == 0) | (self.event == 1)).all():
            raise ValueError("event must be 0 or 1")

    def __len__(self) -> int:
        return len(self.patient)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "Predictions":
        """The same of some rows (a subgroup)."""
        columns = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "times"}
        return replace(self, **columns)


CURVES = ("absolute_risk", "null_risk", "censoring_at")


def predict_fold(
    *,
    patients: NDArray[np.intp],
    stratum: NDArray[np.intp],
    development_time: NDArray[np.float64],
    development_event: NDArray[np.float64],
    time: NDArray[np.float64],
    event: NDArray[np.float64],
    risk: NDArray[np.float64],
    survival: NDArray[np.float64],
    times: NDArray[np.float64],
) -> Predictions:
    """Predictions of one test fold, with the null model and the censoring of its development patients.

    Args:
        patients, stratum, time, event, risk: of the test rows, shape (rows,).
        development_time, development_event: of the patients the model was developed on, shape (development,).
        survival: S(t) of the model at `times`, shape (rows, T).

    Raises:
        ValueError: when there is no development patient, shapes do not fit or a value is not a finite number.
    """
    if len(development_time) == 0:
        raise ValueError("there is no development patient")
    rows = len(patients)
    null = kaplan_meier(time=development_time, event=development_event)
    censoring = censoring_curve(time=development_time, event=development_event)
    return Predictions(
        patient=patients,
        stratum=stratum,
        time=time,
        event=event,
        risk=risk,
        times=times,
        absolute_risk=1 - survival,
        null_risk=np.tile(1 - null.at(times), (rows, 1)),
        censoring_before=censoring.before(time),
        censoring_at=np.tile(censoring.at(times), (rows, 1)),
        last_development_time=np.full(rows, development_time.max()),
    )


def concatenate(folds: Sequence[Predictions]) -> Predictions:
    """Put the folds of one model and endpoint together.

    Raises:
        ValueError: when there is no fold, or the folds do not share their grid of times.
    """
    if not folds:
        raise ValueError("there is no fold")
    if any(not np.array_equal(fold.times, folds[0].times) for fold in folds):
        raise ValueError("folds must share one grid of times")
    columns = {
        field.name: np.concatenate([getattr(fold, field.name) for fold in folds])
        for field in fields(Predictions)
        if field.name != "times"
    }
    return replace(folds[0], **columns)
