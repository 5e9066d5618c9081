"""Fitting a comparator to one endpoint."""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from stsmm_core.comparators.models import CannotFit, CoxModel, FittedModel, Floats, ForestModel, NotEnoughEvents
from stsmm_core.comparators.specification import Estimator
from stsmm_core.comparators.strength import choose_strength
from stsmm_core.config import Comparators
from stsmm_core.errors import not_installed
from stsmm_core.seeds import derive_seed
from stsmm_core.survival.baseline import breslow

try:
    from sksurv.ensemble import RandomSurvivalForest
    from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis
    from sksurv.util import Surv
except ModuleNotFoundError:
    raise not_installed("scikit-survival") from None

RIDGE_STRENGTHS = (10.0, 1e-3)
"""From next to no effect to next to no penalty: a patient's share of the information on a standardised input is
about that of its event, 0.3."""
WEAKEST_ELASTIC_NET = 0.01
"""Of the strength at which every coefficient is 0 (glmnet's choice for more inputs than patients)."""


def fit(
    estimator: Estimator,
    features: pd.DataFrame,
    *,
    time: Floats,
    event: Floats,
    config: Comparators,
    seed: int,
) -> FittedModel:
    """Fit a model to the development patients.

    Args:
        features: one row a patient (`Design.inputs`), no value missing.
        time: days, shape (rows,); patients to whom the endpoint does not apply are left out before.
        event: 1.0 event, 0.0 censored, shape (rows,).

    Raises:
        NotEnoughEvents: fewer events than `comparators.min_events`, or than a cross-validation has folds.
    """
    needed = config.min_events
    if estimator in ("ridge", "elastic_net"):
        needed = max(needed, config.inner_folds)
    events = int(event.sum())
    if events < needed:
        raise NotEnoughEvents(f"{events} events among {len(event)} development patients; {needed} are needed")
    if len(np.unique(time[event > 0])) == 1:
        raise NotEnoughEvents(f"all {events} events among the development patients fall on one day")
    match estimator:
        case "cox":
            return _fit_cox(features, time=time, event=event, penalty=config.cox_penalty)
        case "forest":
            return _fit_forest(features, time=time, event=event, config=config, seed=seed)
        case "ridge" | "elastic_net":
            return _fit_penalised(features, time=time, event=event, config=config, seed=seed, estimator=estimator)


def _fit_cox(features: pd.DataFrame, *, time: Floats, event: Floats, penalty: float) -> CoxModel:
    """Efron's ties; a fixed ridge on the whole log likelihood."""
    strengths = np.array([penalty / len(features)])
    (coefficients,) = ridge_path(features.to_numpy(), time=time, event=event, strengths=strengths)
    return _with_baseline(features, coefficients, time=time, event=event)


def _fit_penalised(
    features: pd.DataFrame, *, time: Floats, event: Floats, config: Comparators, seed: int, estimator: Estimator
) -> CoxModel:
    """The strength is the one whose risks order the held-out patients of the inner folds best."""
    values = features.to_numpy()
    path: Callable[..., Floats]
    if estimator == "ridge":
        path, strengths = ridge_path, np.geomspace(*RIDGE_STRENGTHS, config.strengths)
    else:
        path = partial(elastic_net_path, l1_ratio=config.l1_ratio)
        strongest = all_zero_strength(values, time=time, event=event, l1_ratio=config.l1_ratio)
        strengths = np.geomspace(strongest, WEAKEST_ELASTIC_NET * strongest, config.strengths)
    chosen = choose_strength(
        path,
        strengths,
        values,
        time=time,
        event=event,
        folds=config.inner_folds,
        repeats=config.inner_repeats,
        seed=seed,
    )
    # Down to the chosen one, as the path starts each from the one before.
    coefficients = path(values, time=time, event=event, strengths=strengths[: chosen + 1])[-1]
    return _with_baseline(features, coefficients, time=time, event=event, strength=float(strengths[chosen]))


def _fit_forest(features: pd.DataFrame, *, time: Floats, event: Floats, config: Comparators, seed: int) -> ForestModel:
    """A log-rank split on the square root of the inputs a node."""
    forest = RandomSurvivalForest(
        n_estimators=config.trees,
        min_samples_split=2 * config.min_leaf,
        min_samples_leaf=config.min_leaf,
        max_features="sqrt",
        random_state=derive_seed(seed, "forest") % 2**32,
    )
    return ForestModel(tuple(features.columns), forest.fit(features.to_numpy(), _outcome(time, event)))


def ridge_path(values: Floats, *, time: Floats, event: Floats, strengths: Floats) -> Floats:
    """Coefficients at each strength s, shape (strengths, inputs): the largest log likelihood / n - s/2 |b|²."""
    outcome = _outcome(time, event)
    with np.errstate(over="ignore"):  # a Newton step too far, which is halved
        fits = [CoxPHSurvivalAnalysis(alpha=s * len(values), ties="efron").fit(values, outcome) for s in strengths]
    return np.array([each.coef_ for each in fits])


def elastic_net_path(values: Floats, *, time: Floats, event: Floats, strengths: Floats, l1_ratio: float) -> Floats:
    """Coefficients at each strength s, shape (strengths, inputs), by coordinate descent.

    The largest log likelihood / n - s (l1_ratio |b| + (1 - l1_ratio)/2 |b|²), Breslow's ties (Simon et al., J Stat
    Softw 2011, doi 10.18637/jss.v039.i05). Where the path ends, because less penalty explains no more or the patients
    are too few to hold a coefficient, its last coefficients stand for the weaker strengths.

    Raises:
        CannotFit: when the strongest penalty does not hold the coefficients either.
    """
    for end in range(len(strengths), 0, -1):
        net = CoxnetSurvivalAnalysis(alphas=strengths[:end], l1_ratio=l1_ratio)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "all coefficients are zero")  # which is an answer
            warnings.filterwarnings("error", "Optimization terminated early")
            try:
                net.fit(values, _outcome(time, event))
            except (ArithmeticError, UserWarning):
                continue
        return net.coef_.T[np.minimum(np.arange(len(strengths)), net.coef_.shape[1] - 1)]
    raise CannotFit("the elastic net does not converge at any strength")


def all_zero_strength(values: Floats, *, time: Floats, event: Floats, l1_ratio: float) -> float:
    """The least strength of the elastic net at which every coefficient is 0.

    There the likelihood is nowhere steeper than the lasso's part of the penalty.
    """
    nobody_knows = breslow(np.zeros(len(time)), time=time, event=event)
    expected = -np.log(nobody_knows.survival(np.zeros(1), time)[0])
    return float(np.abs(values.T @ ((event > 0) - expected)).max() / len(time) / l1_ratio)


def _with_baseline(
    features: pd.DataFrame, coefficients: Floats, *, time: Floats, event: Floats, strength: float | None = None
) -> CoxModel:
    baseline = breslow(features.to_numpy() @ coefficients, time=time, event=event)
    return CoxModel(pd.Series(coefficients, features.columns), baseline, strength)


def _outcome(time: Floats, event: Floats) -> np.ndarray:
    return Surv.from_arrays(event > 0, time)
