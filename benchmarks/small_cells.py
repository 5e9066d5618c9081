"""What does a minimum cell size of five cost? Figures over all sites of drawn consortia, whose hazard is known.

    python benchmarks/small_cells.py OUT [--draws 100] [--tested 15 --tested 30 --tested 60]

Five sites, each with so many test patients and three times as many to develop with; log hazards normal about a mean of
the site's own. Each consortium goes through the messages of a run twice, with a minimum of 1 (exact) and of 5. The
model is the truth, so that predicted over true risk and the sites' factors should be 1.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from stsmm_core.config import Experiment, parse_experiment
from stsmm_core.survival.estimates import draw_patients
from stsmm_core.survival.evaluation import label
from stsmm_core.survival.federated_evaluation import pooled_c
from stsmm_core.survival.site_records import FoldRecords, SiteRecords
from stsmm_core.survival.site_sums import site_factors
from stsmm_core.training.certificate import exchange, union_of_rows
from stsmm_core.training.evaluation_over_sites import horizons_in_days

SITES = 5
MEAN_DAYS = 3000.0
"""Of an exponential time at a log hazard of 0."""
FOLLOWED_DAYS = (400.0, 4000.0)
"""Follow-up ends evenly between."""
SPREAD = 0.8
"""SD of the log hazards of a site."""
PAIRS = 200_000
MINIMA = (1, 5)
EXPERIMENT = """
[data]
modalities = ["clinical"]
endpoints = ["os"]

[evaluation]
bootstrap_replicates = 200
horizons_years = [1.0, 3.0, 5.0]
"""


def main() -> None:
    """Draw consortia of each size; a row of the table for each size and minimum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--tested", type=int, action="append", help="test patients a site")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    experiment, console = parse_experiment(EXPERIMENT, source=__file__), Console(width=200)
    rows = [
        {"tested": tested, "draw": draw} | row
        for tested in given.tested or (15, 30, 60)
        for draw in track(range(given.draws), description=f"{tested} test patients a site", console=console)
        for row in _measure(experiment, tested, draw)
    ]
    table = pd.DataFrame(rows)
    table.to_csv(given.out / "small_cells.csv", index=False)
    console.print(_summary(table, experiment))


def _summary(table: pd.DataFrame, experiment: Experiment) -> Table:
    years = [label(each) for each in experiment.evaluation.horizons_years]
    shown = Table(title=f"Harrell's C of the hazard is {table['truth'].mean():.3f} on average")
    about_c = ("tested a site", "minimum", "C minus exact", "SD", "largest", "bounds", "interval holds it")
    for heading in (*about_c, *(f"predicted over true risk, {each} y" for each in years), "factors of sites"):
        shown.add_column(heading)
    for (tested, minimum), some in table.groupby(["tested", "minimum"]):
        off = some["c"] - some["exact_c"]
        shown.add_row(
            f"{tested}",
            f"{minimum}",
            f"{off.mean():+.4f}",
            f"{off.std():.4f}",
            f"{off.abs().max():.4f}",
            f"{some['low'].mean():.2f} to {some['high'].mean():.2f}",
            f"{some['covered'].mean():.1%}",
            *(f"{some[f'predicted_{each}'].mean() / some[f'true_{each}'].mean():.3f}" for each in years),
            f"{some['factor'].mean():.3f}",
        )
    return shown


def _measure(experiment: Experiment, tested: int, draw: int) -> list[dict[str, float]]:
    rng = np.random.default_rng([tested, draw])
    centres = rng.normal(scale=0.3, size=SITES)
    truth = _true_c(rng, centres, tested)
    records = {f"site_{number}": _draw_site(rng, centre, tested, experiment) for number, centre in enumerate(centres)}
    rows: list[dict[str, float]] = []
    for minimum in MINIMA:
        test = exchange(records, experiment, minimum=minimum)
        figure = pooled_c(list(test.sites.values()), test.scale, test.development, head=0, endpoint=0)
        found = figure.estimate
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        low, high = figure.bounds or (found.value, found.value)
        predicted = union_of_rows(records, test, experiment, 0).absolute_risk.mean(axis=0)
        log_hazard = np.concatenate([site.folds[0].test_output[0, :, 0] for site in records.values()])
        true = [_risk(log_hazard, days).mean() for days in horizons_in_days(experiment)]
        factors = [site_factors(site, test.scale, test.development) for site in records.values()]
        rows.append(
            {
                "minimum": minimum,
                "c": found.value,
                "exact_c": rows[0]["c"] if rows else found.value,
                "low": low,
                "high": high,
                "truth": truth,
                "covered": found.low <= truth <= found.high,
                "factor": float(np.mean(factors)),
            }
            | {
                f"{name}_{label(years)}": risk
                for name, risks in (("true", true), ("predicted", predicted))
                for years, risk in zip(experiment.evaluation.horizons_years, risks, strict=True)
            }
        )
    return rows


def _draw_site(rng: np.random.Generator, centre: float, tested: int, experiment: Experiment) -> SiteRecords:
    developed = 3 * tested
    patients = developed + tested
    log_hazard = rng.normal(centre, SPREAD, size=patients)
    time, event = _draw_outcomes(rng, log_hazard)
    outputs = np.tile(log_hazard[None, :, None], (2, 1, 1))
    rows = np.arange(patients)
    development, test = rows[:developed], rows[developed:]
    trained = development < developed * 0.8
    fold = FoldRecords(development, trained, outputs[:, development], test, outputs[:, test])
    samples = draw_patients(tested, experiment.evaluation.bootstrap_replicates, rng)[None]
    return SiteRecords(time[:, None], event[:, None], (fold,), samples, salt=int(rng.integers(2**32)))


def _draw_outcomes(
    rng: np.random.Generator, log_hazard: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whole days, and 1.0 or 0.0."""
    happens = rng.exponential(MEAN_DAYS / np.exp(log_hazard))
    followed = rng.uniform(*FOLLOWED_DAYS, size=len(log_hazard))
    return np.ceil(np.minimum(happens, followed)), (happens <= followed).astype(np.float64)


def _risk(log_hazard: NDArray[np.float64], days: float) -> NDArray[np.float64]:
    return np.asarray(1 - np.exp(-days / MEAN_DAYS * np.exp(log_hazard)))


def _true_c(rng: np.random.Generator, centres: NDArray[np.float64], tested: int) -> float:
    """Harrell's C of the log hazard in these sites, whose differences the bootstrap within sites holds fixed too.

    Of many pairs of patients, as often of one site as among so many test patients a site.
    """
    first, second = rng.integers(SITES, size=PAIRS), rng.integers(SITES - 1, size=PAIRS)
    same = rng.random(PAIRS) < (tested - 1) / (SITES * tested - 1)
    second = np.where(same, first, (first + 1 + second) % SITES)
    risk, other_risk = (rng.normal(centres[site], SPREAD) for site in (first, second))
    (time, event), (other_time, _) = _draw_outcomes(rng, risk), _draw_outcomes(rng, other_risk)
    comparable = (event == 1) & (time < other_time)
    return float((risk > other_risk)[comparable].mean())


if __name__ == "__main__":
    main()
