"""Cox regression on a few covariates, for hundreds of bootstrap samples at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 60
CONVERGED = 1e-9
LARGEST_COEFFICIENT = 20.0
"""On standardised covariates; beyond it the likelihood has no maximum (events perfectly separated)."""


@dataclass(frozen=True, eq=False)
class CoxFits:
    """A Cox model a sample.

    Attributes:
        coefficients: log hazard ratios, shape (samples, covariates); not a number where the likelihood has no maximum.
        log_cumulative_hazard: of a row whose covariates are 0, over the time fitted to (Breslow), shape (samples,).
    """

    coefficients: NDArray[np.float64]
    log_cumulative_hazard: NDArray[np.float64]

    def event_probability(self, covariates: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 - S at the end of the time fitted to, shape (samples, rows), of covariates of shape (rows, covariates)."""
        with np.errstate(over="ignore"):
            return -np.expm1(-np.exp(self.coefficients @ covariates.T + self.log_cumulative_hazard[:, None]))


def fit_cox(
    covariates: NDArray[np.float64],
    *,
    time: NDArray[np.float64],
    event: NDArray[np.float64],
    samples: NDArray[np.float64],
    until: float,
) -> CoxFits:
    """Maximise the partial likelihood of each sample by Newton's method, ties after Breslow (1974).

    Breslow's ties make a row that was drawn twice the same as a row of weight 2.

    Args:
        covariates: shape (rows, covariates).
        time, event: shape (rows,); days.
        samples: how often each row is in each sample, shape (samples, rows).
        until: rows observed longer, in days, are censored there.
    """
    order = np.argsort(-time, kind="stable")
    happened = (event[order] > 0) & (time[order] <= until)
    time, samples = np.minimum(time[order], until), samples[:, order]
    centre, scale = covariates.mean(axis=0), covariates.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    standardised = ((covariates - centre) / scale)[order]
    last_of_tie = np.searchsorted(-time, -time, side="right") - 1
    likelihood = _PartialLikelihood(standardised, samples * happened, samples, last_of_tie)
    coefficients = _maximise(likelihood, len(samples), covariates.shape[1])
    log_hazard = likelihood.log_cumulative_hazard(coefficients)
    original = coefficients / scale
    return CoxFits(original, log_hazard - original @ centre)


@dataclass(frozen=True, eq=False)
class _PartialLikelihood:
    """Breslow's partial likelihood of rows sorted from the longest time to the shortest."""

    covariates: NDArray[np.float64]  # (rows, covariates)
    events: NDArray[np.float64]  # (samples, rows)
    samples: NDArray[np.float64]  # (samples, rows)
    last_of_tie: NDArray[np.intp]  # (rows,)

    def at_risk(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over the risk set of each row."""
        return np.cumsum(values, axis=1)[:, self.last_of_tie]

    def hazards(self, coefficients: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weighted relative hazards over the largest, (samples, rows), and the logarithm of that, (samples, 1)."""
        risk = coefficients @ self.covariates.T
        largest = risk.max(axis=1, keepdims=True)
        return self.samples * np.exp(risk - largest), largest

    def value(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log partial likelihood, shape (samples,)."""
        hazards, largest = self.hazards(coefficients)
        total = self.at_risk(hazards)
        log_total = np.log(total, out=np.zeros_like(total), where=total > 0) + largest
        return (self.events * (coefficients @ self.covariates.T - log_total)).sum(axis=1)

    def derivatives(self, coefficients: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gradient (samples, covariates) and information matrix (samples, covariates, covariates)."""
        hazards, _ = self.hazards(coefficients)
        share = _share(self.events, self.at_risk(hazards))
        count = self.covariates.shape[1]
        means = [self.at_risk(hazards * self.covariates[:, k]) for k in range(count)]
        inverse = _share(np.ones_like(self.events), self.at_risk(hazards))
        gradient = self.events @ self.covariates - np.stack([(share * mean).sum(axis=1) for mean in means], axis=1)
        information = np.empty((len(coefficients), count, count))
        for k in range(count):
            for m in range(k + 1):
                product = self.at_risk(hazards * self.covariates[:, k] * self.covariates[:, m])
                second = (share * (product - means[k] * means[m] * inverse)).sum(axis=1)
                information[:, k, m] = information[:, m, k] = second
        return gradient, information

    def log_cumulative_hazard(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Breslow's baseline over the whole time, at standardised covariates of 0."""
        hazards, largest = self.hazards(coefficients)
        with np.errstate(divide="ignore"):
            return np.log(_share(self.events, self.at_risk(hazards)).sum(axis=1)) - largest[:, 0]


def _maximise(likelihood: _PartialLikelihood, samples: int, covariates: int) -> NDArray[np.float64]:
    """Newton's method with halved steps, all samples at once; not a number where there is no maximum."""
    coefficients = np.zeros((samples, covariates))
    value = likelihood.value(coefficients)
    gradient, information = likelihood.derivatives(coefficients)
    solvable = np.linalg.cond(information) < 1 / np.finfo(float).eps
    converged = np.zeros(samples, dtype=bool)
    for _ in range(STEPS):
        safe = np.where(solvable[:, None, None], information, np.eye(covariates))
        step = np.linalg.solve(safe, gradient[:, :, None])[:, :, 0] * (solvable & ~converged)[:, None]
        for _ in range(10):
            following = likelihood.value(coefficients + step)
            worse = following < value - 1e-10 * (1 + np.abs(value))
            if not worse.any():
                break
            step[worse] /= 2
        coefficients = coefficients + step
        value = likelihood.value(coefficients)
        converged |= np.abs(step).max(axis=1) < CONVERGED
        gradient, information = likelihood.derivatives(coefficients)
        solvable &= (np.abs(coefficients).max(axis=1) < LARGEST_COEFFICIENT) & (
            np.linalg.cond(information) < 1 / np.finfo(float).eps
        )
        if (converged | ~solvable).all():
            break
    return np.where((converged & solvable)[:, None], coefficients, np.nan)


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """A ratio that is 0 where a sample has nobody at risk."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
