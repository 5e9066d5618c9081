"""The strength of a penalty, by cross-validation of the C-index within the development patients."""

from collections.abc import Callable
from itertools import chain

import numpy as np

from stsmm_core.cohort.splits import Rows
from stsmm_core.comparators.models import Floats, NotEnoughEvents
from stsmm_core.seeds import generator
from stsmm_core.survival.concordance import PairCounts, count_pairs, total


def choose_strength(
    path: Callable[..., Floats],
    strengths: Floats,
    values: Floats,
    *,
    time: Floats,
    event: Floats,
    folds: int,
    repeats: int = 1,
    seed: int,
) -> int:
    """Position of the strength with the highest C-index; of equals, the first.

    Pairs are compared within a fold and added up over folds, so that one without comparable pairs does no harm, and
    over repeated divisions into folds, of which a single one is chance.

    Args:
        path: from (values, time, event, strengths) to coefficients, shape (strengths, inputs).
        strengths: decreasing, so that of equals the strongest is taken.
        values: shape (patients, inputs).

    Raises:
        NotEnoughEvents: when no fold has a comparable pair.
    """
    counts: list[list[PairCounts]] = [[] for _ in strengths]
    divisions = (inner_folds(event, folds, seed=seed, repeat=repeat) for repeat in range(repeats))
    for held_out in chain.from_iterable(divisions):
        rest = np.setdiff1d(np.arange(len(event)), held_out)
        coefficients = path(values[rest], time=time[rest], event=event[rest], strengths=strengths)
        for position, risk in enumerate(coefficients @ values[held_out].T):
            counts[position].append(
                count_pairs(risk, time=time[held_out], event=event[held_out], replicates=0, rng=generator(seed))
            )
    totals = [total(each) for each in counts]
    if not totals[0].comparable:
        raise NotEnoughEvents(f"no comparable pair of patients within any of {folds} inner folds")
    # The pairs are the same at every strength.
    return int(np.argmax([each.concordant for each in totals]))


def inner_folds(event: Floats, folds: int, *, seed: int, repeat: int = 0) -> list[Rows]:
    """Divide patients at random, events and censored ones evenly: rows of each fold, sorted."""
    rng = generator(seed, "inner folds", repeat) if repeat else generator(seed, "inner folds")
    shuffled = rng.permutation(len(event))
    # Sorted by event, dealing in turn gives every fold its share of either kind.
    order = shuffled[np.argsort(event[shuffled] <= 0, kind="stable")]
    return [np.sort(order[start::folds]) for start in range(folds)]
