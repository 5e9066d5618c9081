"""Seeded, stratified division of one site's patients into training, validation and test sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stsmm_core.cohort.cohort import Cohort
from stsmm_core.config import Evaluation
from stsmm_core.seeds import generator

VOLUME_CUTS_CM3 = (500.0, 1000.0)
"""Cuts of the published code's stratification by tumour volume."""

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Fold:
    """Rows of the cohort (in the order of its patients) that train, select and test one model."""

    train: Rows
    validation: Rows
    test: Rows


def make_folds(cohort: Cohort, evaluation: Evaluation, *, endpoints: Sequence[str], seed: int) -> tuple[Fold, ...]:
    """Divide a cohort as the evaluation scheme asks; the same cohort and seed give the same folds.

    Split: one test set. Cross-validation: `folds` x `repeats` of them, each patient in one a repeat. The rest is
    divided into training and validation in the ratio of their fractions, `members` times for each test set; the folds
    of a test set follow each other.
    Stratified by events, volume, location, grade and timing of radiotherapy (published code): patients are sorted by
    these in turn, and neighbours go to different sets, which balances even where a joint stratum has one patient.
    """
    strata = _strata(cohort, endpoints)
    ratio = _training_share(evaluation)
    folds: list[Fold] = []
    for number, first in enumerate(_first_members(cohort, evaluation, strata, seed)):
        folds.append(first)
        rest = np.concatenate([first.train, first.validation])
        for member in range(1, evaluation.members):
            rng = generator(seed, "member", number, member, cohort.manifest.site)
            fitted, selecting = _deal(np.sort(rest), strata, (ratio, 1 - ratio), rng)
            folds.append(Fold(fitted, selecting, first.test))
    return tuple(folds)


def _first_members(cohort: Cohort, evaluation: Evaluation, strata: pd.DataFrame, seed: int) -> list[Fold]:
    """One fold a test set."""
    everyone = np.arange(len(cohort.patients))
    train, validation = evaluation.train_fraction, evaluation.validation_fraction
    if evaluation.scheme == "split":
        rng = generator(seed, "split", cohort.manifest.site)
        return [Fold(*_deal(everyone, strata, (train, validation, 1 - train - validation), rng))]
    ratio = _training_share(evaluation)
    folds: list[Fold] = []
    for repeat in range(evaluation.repeats):
        rng = generator(seed, "cv", repeat, cohort.manifest.site)
        for test in _deal(everyone, strata, (1 / evaluation.folds,) * evaluation.folds, rng):
            rest = np.setdiff1d(everyone, test)
            fitted, selecting = _deal(rest, strata, (ratio, 1 - ratio), rng)
            folds.append(Fold(fitted, selecting, test))
    return folds


def _training_share(evaluation: Evaluation) -> float:
    """Of the patients outside a test set."""
    return evaluation.train_fraction / (evaluation.train_fraction + evaluation.validation_fraction)


def _deal(rows: Rows, strata: pd.DataFrame, shares: Sequence[float], rng: np.random.Generator) -> list[Rows]:
    """Deal rows, sorted by strata, so that every stretch of the order holds about the shares.

    Which of a few neighbours within the leading stratum goes where is left to chance.
    """
    shuffled = rng.permutation(rows)
    order = shuffled[np.lexsort([strata[column].to_numpy()[shuffled] for column in reversed(strata.columns)])]
    # Dealing starts anywhere in the order: from its head, the first ranks would never reach the smaller sets.
    order = np.roll(order, rng.integers(len(order) + 1))
    credit = rng.uniform(size=len(shares)) * np.asarray(shares)
    owner = np.empty(len(order), dtype=np.intp)
    for position in range(len(order)):
        credit += shares
        owner[position] = np.argmax(credit)
        credit[owner[position]] -= 1
    # Strata rarely tie, so the order is nearly fixed: without shuffling neighbours every seed would deal alike.
    block, leading = round(1 / min(shares)), strata.iloc[order, 0].to_numpy()
    places = np.arange(1, len(order))
    ends = places[((places + rng.integers(block)) % block == 0) | (leading[1:] != leading[:-1])]
    owner = np.concatenate([rng.permutation(part) for part in np.split(owner, ends)])
    return [np.sort(order[owner == part]) for part in range(len(shares))]


def _strata(cohort: Cohort, endpoints: Sequence[str]) -> pd.DataFrame:
    """One integer column a stratifying variable, the most important first; missing is a level of its own."""
    clinical = cohort.clinical
    outcomes = cohort.outcomes(endpoints)
    strata: dict[str, NDArray[Any]] = {
        f"{endpoint}_event": np.nan_to_num(outcomes.event[:, column], nan=-1)
        for column, endpoint in enumerate(endpoints)
    }
    volume = clinical["volume_cm3"].to_numpy(dtype=float)
    strata["volume"] = np.where(np.isnan(volume), -1, np.digitize(np.nan_to_num(volume), VOLUME_CUTS_CM3))
    for key in ("location", "grade", "radiotherapy"):
        strata[key] = pd.factorize(clinical[key], sort=True)[0]
    return pd.DataFrame(strata)
