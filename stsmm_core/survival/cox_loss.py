"""Cox partial likelihood with Breslow or Efron ties."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ties = Literal["breslow", "efron"]


def cox_loss(risk: Tensor, *, time: Tensor, event: Tensor, ties: Ties = "breslow") -> Tensor:
    """Mean negative log partial likelihood per event.

    Args:
        risk: log relative hazards, shape (patients,); higher is worse.
        time: observed times, any unit, shape (patients,).
        event: 1 where the time is an event's, 0 where it is censored.
        ties: Breslow (1974) or Efron (1977) handling of events at the same time.

    Returns:
        A scalar attached to the graph of `risk`; exactly 0 with zero gradient when there is no event.

    Raises:
        ValueError: when shapes differ or a time, event or risk is not a number.
    """
    return cox_loss_sum(risk, time=time, event=event, ties=ties) / event.sum().clamp(min=1)


def cox_loss_sum(risk: Tensor, *, time: Tensor, event: Tensor, ties: Ties = "breslow") -> Tensor:
    """Negative log partial likelihood summed over events; arguments as in `cox_loss`.

    Computed in float64: a sum over the events of sites must not depend on how they were grouped.
    """
    _validate(risk, time, event)
    risk = risk.double()
    happened = event > 0
    if not happened.any():
        return risk.sum() * 0.0
    order = torch.argsort(time, descending=True, stable=True)
    time, risk, happened = time[order], risk[order], happened[order]
    # The risk set of a time holds every patient observed at least that long, so it ends with the last of its ties.
    _, group, size = torch.unique_consecutive(time, return_inverse=True, return_counts=True)
    at_risk = torch.logcumsumexp(risk, dim=0)[size.cumsum(0) - 1][group]
    log_denominator = at_risk[happened]
    if ties == "efron":
        log_denominator = log_denominator + _efron_correction(risk[happened], log_denominator, group[happened])
    return (log_denominator - risk[happened]).sum()


def _efron_correction(risk: Tensor, at_risk: Tensor, group: Tensor) -> Tensor:
    """log(1 - l/d * tied/at_risk) for the l-th of the d events of a tie."""
    _, tie, size = torch.unique_consecutive(group, return_inverse=True, return_counts=True)
    rank = torch.arange(len(tie), device=tie.device) - (size.cumsum(0) - size)[tie]
    share = rank.double() / size[tie]
    # Tied events are part of the risk set: their sum relative to it is at most 1.
    tied = torch.zeros(len(size), dtype=risk.dtype, device=risk.device).index_add(0, tie, torch.exp(risk - at_risk))
    return torch.log1p(-share * tied[tie])


def resampled_cox_loss_sums(
    risk: NDArray[np.float64],
    *,
    time: NDArray[np.float64],
    event: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Summed Breslow loss of bootstrap samples of the patients.

    Args:
        risk, time, event: shape (patients,).
        counts: how often each patient was drawn, shape (replicates, patients).

    Returns:
        Negative log partial likelihood a replicate, shape (replicates,).
    """
    order = np.argsort(-time, kind="stable")
    risk, time, event, counts = risk[order], time[order], event[order], counts[:, order]
    with np.errstate(divide="ignore"):
        log_at_risk = np.logaddexp.accumulate(np.log(counts) + risk, axis=1)
    last_of_tie = np.searchsorted(-time, -time, side="right") - 1
    weight = counts * event
    # A patient who was not drawn may head an empty risk set (log 0); its weight is 0 and its term must be too.
    terms = np.where(weight > 0, log_at_risk[:, last_of_tie] - risk, 0.0)
    return (weight * terms).sum(axis=1)


def _validate(risk: Tensor, time: Tensor, event: Tensor) -> None:
    if risk.ndim != 1 or risk.shape != time.shape or risk.shape != event.shape:
        raise ValueError(
            "risk, time and event must be vectors of one length, "
            f"not {tuple(risk.shape)}, {tuple(time.shape)} and {tuple(event.shape)}"
        )
    for name, values in (("risk", risk), ("time", time), ("event", event)):
        if not torch.isfinite(values).all():
            raise ValueError(f"{name} holds a value that is not a number")
    if not ((event == 0) | (event == 1)).all():
        raise ValueError("event must be 0 or 1")
