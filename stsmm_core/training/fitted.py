"""What a trained network needs beside its weights to tell a new patient's absolute risk, and how new the patient is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stsmm_core.cohort.clinical import ClinicalSummary
from stsmm_core.cohort.dictionary import DAYS_PER_YEAR, VARIABLES, Category
from stsmm_core.cohort.splits import Fold
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.files import write_text_atomically
from stsmm_core.model.mmnn import Weights
from stsmm_core.survival.baseline import breslow
from stsmm_core.training.evaluation_over_sites import FederatedTest
from stsmm_core.training.site_data import SiteData
from stsmm_core.training.trainer import Trainer

GRID_STEP_YEARS = 0.25
"""Survival curves are kept on this grid: fine enough to read, too coarse to tell the day of one patient's event."""
SHRINKAGE = 0.1
"""Share of the mean variance in the covariance of the features: with 25 patients and 24 features it has no inverse."""
LARGEST_LOG_HAZARD = 700.0
"""Just below the logarithm of the largest number."""
PERCENTS = tuple(range(101))


@dataclass(frozen=True)
class Familiarity:
    """How far the training patients lie from their own mean, to tell whether a new patient is like them.

    Attributes:
        mean, precision: of the fused features, shapes (features,) and (features, features).
        distances: percentiles 0 to 100 of the training patients' Mahalanobis distances.
        unseen_levels: levels of the categorical variables that no training patient had.
    """

    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    distances: tuple[float, ...]
    unseen_levels: Mapping[str, tuple[str, ...]]

    def percentile(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the training patients that lie nearer to their mean, in percent; features (rows, features)."""
        distance = _mahalanobis(features, np.array(self.mean), np.array(self.precision))
        return np.searchsorted(self.distances, distance, side="right").clip(1, len(PERCENTS)) - 1.0


@dataclass(frozen=True)
class FittedNetwork:
    """The part of a trained model that is no weight.

    Attributes:
        channels: names of the image channels, in order.
        reference: mean output of the fusion head over the training patients, one an endpoint.
        times: days, the grid of the baseline.
        baselines: cumulative baseline hazard at `times` of each endpoint, for a risk of 0 (Breslow).
        events: of the development patients, an endpoint; too few of them say nothing of anybody's risk.
        last_time: time of the grid up to which development patients were watched, an endpoint; the curves end there.
        familiarity: None where the patients lay at several sites, which told nothing of where their features lie.
    """

    channels: tuple[str, ...]
    reference: tuple[float, ...]
    times: tuple[float, ...]
    baselines: Mapping[str, tuple[float, ...]]
    events: Mapping[str, int]
    last_time: Mapping[str, float]
    familiarity: Familiarity | None

    def survival(self, endpoint: str, risk: NDArray[np.float64]) -> NDArray[np.float64]:
        """S(t) at `times` for log hazards relative to the reference, shape (*risk.shape, times)."""
        baseline = np.array(self.baselines[endpoint])
        with np.errstate(over="ignore", invalid="ignore"):  # inf times 0, before the first event
            return np.where(baseline > 0, np.exp(-np.exp(risk)[..., None] * baseline), 1.0)


def curve_times(horizons_years: Sequence[float]) -> NDArray[np.float64]:
    """The grid of survival curves, days: from 0 to the last horizon, all horizons on it."""
    steps = np.arange(0, max(horizons_years) + GRID_STEP_YEARS / 2, GRID_STEP_YEARS)
    return np.unique(np.concatenate([steps, horizons_years])) * DAYS_PER_YEAR


def describe_fit(
    trainer: Trainer,
    weights: Weights,
    data: SiteData,
    fold: Fold,
    experiment: Experiment,
    *,
    channels: Sequence[str],
    summary: ClinicalSummary,
) -> FittedNetwork:
    """Baseline hazards (Breslow) of the development patients, and where the training patients lie.

    Development is training and validation: no test patient is looked at.

    Args:
        summary: of the training patients' clinical variables.
    """
    development = np.concatenate([fold.train, fold.validation])
    # Without any modality there is no risk of one's own: such a patient counts as the mean one.
    risks = np.nan_to_num(trainer.risks(weights, development)[0])
    times = curve_times(experiment.evaluation.horizons_years)
    baselines: dict[str, tuple[float, ...]] = {}
    events: dict[str, int] = {}
    last_time: dict[str, float] = {}
    for column, endpoint in enumerate(experiment.data.endpoints):
        outcomes = data.outcomes[development]
        known = np.isfinite(outcomes.time[:, column])
        time, event = outcomes.time[known, column], outcomes.event[known, column]
        baseline = breslow(risks[known, column], time=time, event=event)
        baselines[endpoint] = _finite(baseline.log_cumulative_at(times))
        events[endpoint] = int((event > 0).sum())
        last_time[endpoint] = float(times[times <= time.max(initial=0.0)].max())
    return FittedNetwork(
        tuple(channels),
        tuple(trainer.mean_training_output(weights)[0].tolist()),
        tuple(times.tolist()),
        baselines,
        events,
        last_time,
        _familiarity(trainer.features(weights, fold.train), summary),
    )


def describe_federated_fit(
    test: FederatedTest, fold: int, experiment: Experiment, *, channels: Sequence[str]
) -> FittedNetwork:
    """The same of a federated run, from the sums that the sites told of their development patients."""
    times = curve_times(experiment.evaluation.horizons_years)
    sums = dict(zip(experiment.data.endpoints, test.development[fold], strict=True))
    return FittedNetwork(
        tuple(channels),
        tuple(test.scale.mean[fold, 0].tolist()),
        tuple(times.tolist()),
        {name: _finite(each.baseline().log_cumulative_at(times)) for name, each in sums.items()},
        {name: int(each.counts.events.sum()) for name, each in sums.items()},
        {name: float(times[times <= each.last_time].max()) for name, each in sums.items()},
        None,
    )


def save_fitted(fitted: FittedNetwork, path: Path) -> None:
    """Write what describes a fit beside its checkpoint."""
    write_text_atomically(path, json.dumps(asdict(fitted), allow_nan=False))


def load_fitted(path: Path) -> FittedNetwork:
    """Inverse of `save_fitted`.

    Raises:
        RunError: when the file is not there or not whole.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        familiarity = content["familiarity"]
        return FittedNetwork(
            tuple(content["channels"]),
            tuple(content["reference"]),
            tuple(content["times"]),
            {name: tuple(values) for name, values in content["baselines"].items()},
            content["events"],
            content["last_time"],
            None
            if familiarity is None
            else Familiarity(
                tuple(familiarity["mean"]),
                tuple(map(tuple, familiarity["precision"])),
                tuple(familiarity["distances"]),
                {key: tuple(levels) for key, levels in familiarity["unseen_levels"].items()},
            ),
        )
    except FileNotFoundError:
        raise RunError(
            f"{path}: missing; absolute risks need the baseline hazard that `stsmm train`, `stsmm simulate` and "
            "`stsmm compare` write when a model is done"
        ) from None
    except KeyError:
        raise RunError(f"{path}: written by another version of stsmm; train again into a new folder") from None
    except (json.JSONDecodeError, TypeError):
        raise RunError(f"{path}: cannot be read; restore the file that the run wrote, or run again") from None


def _finite(log_cumulative: NDArray[np.float64]) -> tuple[float, ...]:
    """A cumulative hazard that a file can hold: risks of a network can be too large for their exponentials."""
    return tuple(np.exp(np.minimum(log_cumulative, LARGEST_LOG_HAZARD)).tolist())


def _familiarity(features: NDArray[np.float64], summary: ClinicalSummary) -> Familiarity:
    mean = features.mean(axis=0)
    covariance = np.atleast_2d(np.cov(features, rowvar=False, bias=True))
    width = len(covariance)
    typical = max(float(np.trace(covariance)) / width, np.finfo(float).tiny)
    precision = np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * typical * np.eye(width)).astype(np.float64)
    distances = np.percentile(_mahalanobis(features, mean, precision), PERCENTS)
    unseen = {
        key: tuple(level for level, count in zip(variable.levels, summary.levels[key], strict=True) if count == 0)
        for key, variable in VARIABLES.items()
        if isinstance(variable, Category) and key in summary.levels
    }
    return Familiarity(tuple(mean.tolist()), tuple(map(tuple, precision.tolist())), tuple(distances.tolist()), unseen)


def _mahalanobis(
    features: NDArray[np.float64], mean: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    centred = features - mean
    return np.sqrt(np.einsum("ri,ij,rj->r", centred, precision, centred).clip(min=0))
