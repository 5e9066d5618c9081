"""Newton's method on a Cox partial likelihood, be it of one table of rows or of the sums of many sites."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from stsmm_core.errors import RunError
from stsmm_core.survival.risk_set_sums import PartialLikelihood

STEPS = 60
HALVINGS = 30
CONVERGED = 1e-9
LARGEST_COEFFICIENT = 20.0
"""On standardised covariates; beyond it the likelihood has no maximum (events perfectly separated)."""


@dataclass(frozen=True, eq=False)
class CoxFit:
    """A fitted Cox model.

    Attributes:
        coefficients: log hazard ratios, shape (covariates,).
        covariance: inverse of the information at the maximum, the ridge added to its diagonal: with a ridge, the
            curvature of the penalised likelihood and no sampling variance; shape (covariates, covariates).
        log_likelihood: log partial likelihood at the coefficients, without the ridge's penalty.
        null_log_likelihood: at coefficients of 0.
        rounds: how often the likelihood was asked for.
    """

    coefficients: NDArray[np.float64]
    covariance: NDArray[np.float64]
    log_likelihood: float
    null_log_likelihood: float
    rounds: int

    @property
    def standard_errors(self) -> NDArray[np.float64]:
        """Square roots of the variances, shape (covariates,)."""
        return np.sqrt(np.diag(self.covariance))

    def interval(self, *, level: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Wald intervals of the coefficients, a shape (covariates,) each."""
        width = ndtri((1 + level) / 2) * self.standard_errors
        return self.coefficients - width, self.coefficients + width


def maximise(
    likelihood: Callable[[NDArray[np.float64]], PartialLikelihood], covariates: int, *, ridge: float
) -> CoxFit:
    """The coefficients with the largest log partial likelihood - ridge / 2 |coefficients|².

    Args:
        likelihood: at given coefficients; asked one after the other, about six times.
        covariates: how many; each standardised, or the ridge and the check for a maximum mean something else.

    Raises:
        RunError: when there is no maximum, with what to do about it.
    """
    coefficients = np.zeros(covariates)
    at = likelihood(coefficients)
    null, rounds = at.value, 1
    for _ in range(STEPS):
        information = at.information + ridge * np.eye(covariates)
        step = _solve(information, at.gradient - ridge * coefficients)
        size = 1.0
        for _ in range(HALVINGS):
            candidate = coefficients + size * step
            if np.abs(candidate).max(initial=0.0) <= LARGEST_COEFFICIENT:
                following = likelihood(candidate)
                rounds += 1
                if _no_worse(following, candidate, at, coefficients, ridge):
                    break
            size /= 2
        else:
            raise _no_maximum()
        coefficients, at = candidate, following
        if np.abs(step).max(initial=0.0) < CONVERGED:
            information = at.information + ridge * np.eye(covariates)
            covariance = _solve(information, np.eye(covariates))
            return CoxFit(coefficients, covariance, at.value, null, rounds)
    raise _no_maximum()


def _no_worse(
    new: PartialLikelihood,
    new_coefficients: NDArray[np.float64],
    old: PartialLikelihood,
    old_coefficients: NDArray[np.float64],
    ridge: float,
) -> bool:
    """Whether the penalised likelihood did not fall by more than rounding."""
    penalty = ridge / 2 * (new_coefficients @ new_coefficients - old_coefficients @ old_coefficients)
    return bool(new.value - penalty >= old.value - 1e-10 * (1 + abs(old.value)))


def _solve(information: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    if information.size and not np.linalg.cond(information) < 1 / (10 * np.finfo(float).eps):
        raise RunError(
            "the Cox model has no single best fit: no events, or columns that say the same; "
            "set cox.ridge above 0 or leave variables out"
        )
    return np.linalg.solve(information, right).astype(float)


def _no_maximum() -> RunError:
    return RunError(
        "the Cox likelihood has no maximum: some variable separates the patients with an event from the others; "
        "set cox.ridge above 0 or leave the variable out"
    )
