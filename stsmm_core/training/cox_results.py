"""cox.json: the fitted Cox models, in full, and as hazard ratios that a person can read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stsmm_core.cohort.covariates import candidates_of
from stsmm_core.config import Experiment
from stsmm_core.files import write_text_atomically
from stsmm_core.survival.baseline import BaselineHazard
from stsmm_core.survival.risk_set_sums import Floats
from stsmm_core.training.cox import CoxModel, FinalCox
from stsmm_core.training.fitted import curve_times


def write_cox(final: FinalCox, experiment: Experiment, path: Path) -> None:
    """Write cox.json.

    A hazard ratio is that of a level against the variable's reference, of a number by one standard deviation of the
    encoding (`per`). The baselines are cumulative hazards of a patient at the mean of every column, on a grid of
    quarter years; `grid_error` is the most that the survival of such a patient falls between two times of the grid.
    """
    times = curve_times(experiment.evaluation.horizons_years)
    content = {
        **experiment.cox.model_dump(),
        "encoding": {key: list(moments) for key, moments in final.encoding.moments.items()},
        "times_days": times.tolist(),
        "endpoints": {
            endpoint: _describe(model, experiment, final.encoding.moments, times)
            for endpoint, model in final.models.items()
        },
    }
    write_text_atomically(path, json.dumps(content, indent=2, allow_nan=False))


def _describe(
    model: CoxModel, experiment: Experiment, moments: Mapping[str, tuple[float, float]], times: Floats
) -> dict[str, Any]:
    hazards = {site: _on_grid(baseline, times) for site, baseline in model.baselines.items()}
    return {
        "patients": model.patients,
        "events": model.events,
        "rounds": model.fit.rounds,
        "log_likelihood": model.fit.log_likelihood,
        "null_log_likelihood": model.fit.null_log_likelihood,
        "largest_move_days": model.largest_move_days,
        "references": {key: list(levels) for key, levels in model.references.items()},
        "hazard_ratios": _hazard_ratios(model, experiment, moments),
        "design": {
            "columns": list(model.design.columns),
            "means": list(model.design.means),
            "scales": list(model.design.scales),
            "coefficients": model.fit.coefficients.tolist(),
            "standard_errors": model.fit.standard_errors.tolist(),
        },
        "baselines": {site: hazard.tolist() for site, hazard in hazards.items()},
        "last_event_days": {
            site: float(baseline.times[-1]) if len(baseline.times) else None
            for site, baseline in model.baselines.items()
        },
        "grid_error": max(float(np.abs(np.diff(np.exp(-hazard))).max(initial=0.0)) for hazard in hazards.values()),
    }


def _hazard_ratios(
    model: CoxModel, experiment: Experiment, moments: Mapping[str, tuple[float, float]]
) -> list[dict[str, Any]]:
    candidates = candidates_of(experiment.data.variables)
    low, high = model.fit.interval()
    rows = []
    for place, column in enumerate(model.design.columns):
        candidate, scale = candidates[column], model.design.scales[place]
        rows.append(
            {
                "variable": candidate.variable,
                "level": candidate.level,
                "per": moments[candidate.variable][1] if candidate.level is None else None,
                "coefficient": float(model.fit.coefficients[place] / scale),
                "standard_error": float(model.fit.standard_errors[place] / scale),
                "hazard_ratio": float(np.exp(model.fit.coefficients[place] / scale)),
                "ci_low": float(np.exp(low[place] / scale)),
                "ci_high": float(np.exp(high[place] / scale)),
            }
        )
    return rows


def _on_grid(baseline: BaselineHazard, times: Floats) -> Floats:
    return np.exp(baseline.log_cumulative_at(times))
