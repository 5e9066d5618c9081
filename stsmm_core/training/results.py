"""metrics.json: what a run found, with its uncertainty."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd

from stsmm_core.cohort.cohort import ORACLE_FILE
from stsmm_core.cohort.dictionary import PATIENT_ID
from stsmm_core.config import Experiment
from stsmm_core.files import write_text_atomically
from stsmm_core.survival.concordance import PairCounts, concordance, total
from stsmm_core.training.centre import Centre, SiteDescription
from stsmm_core.training.certificate import certify
from stsmm_core.training.evaluation_over_sites import FederatedTest, pooled_results


class Course(Protocol):
    """How a fold's model came about, be it trained or fitted."""

    @property
    def rounds(self) -> int:
        """Rounds that were gone."""
        ...

    @property
    def selected_round(self) -> int:
        """The round whose model is tested."""
        ...

    @property
    def first_blending_round(self) -> int | None:
        """The round whose checkpoint first changed the blending weights, where there are any."""
        ...

    @property
    def seconds(self) -> float:
        """Time spent."""
        ...


def make_metrics(
    *,
    mode: Literal["centralised", "federated"],
    experiment: Experiment,
    sites: Sequence[SiteDescription],
    pairs: Mapping[str, Sequence[Sequence[PairCounts]]],
    folds: Sequence[Course],
    federated: FederatedTest | None = None,
) -> dict[str, Any]:
    """Put together metrics.json.

    Args:
        pairs: concordance counts, [head][endpoint], of each tested site; pairs are compared within a site only.
        federated: what the sites told for the figures over all of them, and then a certificate goes beside these.
    """
    endpoints = experiment.data.endpoints
    heads: dict[str, dict[str, dict[str, Any]]] = {
        name: {
            endpoint: {"harrell_c": _concordance(total([site[head][column] for site in pairs.values()]))}
            for column, endpoint in enumerate(endpoints)
        }
        for head, name in enumerate(experiment.heads)
    }
    certificate: list[dict[str, Any]] = []
    if federated is not None:
        for name, results in pooled_results(federated, experiment).items():
            for endpoint, figures in results.items():
                heads[name][endpoint] |= figures
        certificate = certify(experiment, sites)
    return {
        "mode": mode,
        "cohorts": [site.to_table() for site in sites],
        "test": heads[experiment.heads[0]],
        "heads": heads,
        "oracle": None,
        "tested_sites": sorted(pairs),
        "selected_rounds": [fold.selected_round for fold in folds],
        "first_blending_rounds": [fold.first_blending_round for fold in folds],
        "wall_s": round(sum(fold.seconds for fold in folds), 1),
        "rounds": max(fold.rounds for fold in folds),
        "certificate": certificate,
    }


def write_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Write metrics.json; a figure that does not exist is null, never NaN."""
    write_text_atomically(path, json.dumps(metrics, indent=2, allow_nan=False))


def oracle_concordance(centres: Sequence[Centre]) -> dict[str, float | None] | None:
    """C-index of the true risk on the tested patients, where every cohort is synthetic; else None.

    It bounds what any model can reach on these patients in expectation. Read after the last prediction is made.
    """
    if not all((centre.cohort.root / ORACLE_FILE).exists() for centre in centres):
        return None
    endpoints = centres[0].experiment.data.endpoints
    counts: list[list[PairCounts]] = []
    for centre in centres:
        oracle = pd.read_csv(centre.cohort.root / ORACLE_FILE, dtype={PATIENT_ID: str}).set_index(PATIENT_ID)
        risks = oracle.loc[list(centre.data.patients), list(endpoints)].to_numpy()
        counts.append(centre.count_pairs_of(risks))
    return {
        endpoint: concordance(total([site[column] for site in counts])).value
        for column, endpoint in enumerate(endpoints)
    }


def _concordance(counts: PairCounts) -> dict[str, Any]:
    figures = asdict(concordance(counts))
    if figures["reason"] is None:
        del figures["reason"]
    return figures
