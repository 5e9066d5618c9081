"""Predictions to test statistics on."""

import numpy as np

from stsmm_core.survival.baseline import breslow
from stsmm_core.survival.predictions import Predictions, predict_fold

TIMES = np.arange(1, 21) * 100.0


def follow(risk, rng, *, scale=900.0, censoring=(200.0, 2400.0)):
    """Times and events of patients of given risk; no two on one day."""
    happens, lost = rng.exponential(scale * np.exp(-risk)), rng.uniform(*censoring, len(risk))
    return np.minimum(happens, lost), (happens <= lost).astype(float)


def simulate(seed=0, *, patients=120, strata=1, development=250, noise=0.5) -> Predictions:
    """A model that knows the risk up to noise; strata are of equal size and share their development patients."""
    rng = np.random.default_rng(seed)
    known, truth = rng.normal(size=development), rng.normal(size=patients)
    development_time, development_event = follow(known, rng)
    time, event = follow(truth, rng)
    risk = truth + rng.normal(size=patients) * noise
    baseline = breslow(known, time=development_time, event=development_event)
    return predict_fold(
        patients=np.arange(patients),
        stratum=np.arange(patients) * strata // max(patients, 1),
        development_time=development_time,
        development_event=development_event,
        time=time,
        event=event,
        risk=risk,
        survival=baseline.survival(risk, TIMES),
        times=TIMES,
    )


def development(seed=0, *, patients=120, development=250):
    """Time and event of the development patients of `simulate`."""
    rng = np.random.default_rng(seed)
    known = rng.normal(size=development)
    rng.normal(size=patients)
    return follow(known, rng)


def everyone(predictions):
    """The data themselves, as a single sample."""
    return np.ones((1, len(predictions)))
