"""Exact federated Cox regression on real consortia: what is published for FLamby's benchmark, and TCGA-SARC.

    python benchmarks/federated_cox.py DATA

DATA holds the folders fed_tcga_brca and tcga_sarc. Every fit is Newton's method on sums over risk sets that each site
makes of its own rows; no row of one site meets one of another but in the C-index of all pairs, for which the risks of
the test patients are put together here (they lie on one machine). The ridge's strength is chosen by cross-validation
on training rows alone.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stsmm_core.cohort.clinical import fit_encoding, summarise
from stsmm_core.cohort.cohort import Cohort
from stsmm_core.cohort.covariates import candidate_values, choose_design, sum_columns
from stsmm_core.cohort.dictionary import ENDPOINTS
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.cohort.splits import Rows as FoldRows
from stsmm_core.cohort.splits import make_folds
from stsmm_core.cohort.tcga_sarc import import_tcga_sarc
from stsmm_core.config import Evaluation
from stsmm_core.seeds import generator
from stsmm_core.survival.concordance import Concordance, concordance, count_pairs, total
from stsmm_core.survival.cox_newton import CoxFit, maximise
from stsmm_core.survival.risk_set_sums import PartialLikelihood, Ties, sum_risk_sets
from stsmm_core.survival.time_grid import shareable_times

Floats = NDArray[np.float64]
STRENGTHS = np.geomspace(1000, 0.1, 25)
"""Decreasing, so that of equals the strongest is taken."""
TIES: tuple[Ties, ...] = ("breslow", "efron")
FOLDS = 5
REPLICATES = 1000
HOSPITALS_MINIMUM = 5
SARCOMA = Evaluation(scheme="cv", folds=5, repeats=3)
VARIABLES = ("age", "sex", "histology", "size_cm", "location", "depth")
"""What TCGA-SARC records of the data dictionary's."""
NOT_FEATURES = ("patient_id", "centre", "centre_name", "tss", "site", "fold", "os_event", "os_days")


@dataclass(frozen=True, eq=False)
class Rows:
    """Patients of one site: covariates (patients, columns), days and events (patients,)."""

    covariates: Floats
    time: Floats
    event: Floats

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> "Rows":
        return Rows(self.covariates[chosen], self.time[chosen], self.event[chosen])


def likelihood_of(sites: Sequence[Rows], coefficients: Floats, *, ties: Ties) -> PartialLikelihood:
    """The pooled partial likelihood, from the sites' sums."""
    times = np.unique(np.concatenate([site.time[site.event > 0] for site in sites]))
    parts = (
        sum_risk_sets(
            site.covariates, time=site.time, event=site.event, coefficients=coefficients, times=times, ties=ties
        )
        for site in sites
    )
    return reduce(add, parts).likelihood(coefficients)


def fit(sites: Sequence[Rows], *, ties: Ties, ridge: float) -> CoxFit:
    """The pooled model of all sites' rows."""
    return maximise(lambda at: likelihood_of(sites, at, ties=ties), sites[0].covariates.shape[1], ridge=ridge)


def standardised(train: Sequence[Rows], other: Sequence[Rows]) -> tuple[list[Rows], list[Rows]]:
    """Both by mean and standard deviation of the training rows (sums of the sites); without what does not vary."""
    n = sum(len(site.time) for site in train)
    mean = sum(site.covariates.sum(axis=0) for site in train) / n
    sd = np.sqrt(sum(((site.covariates - mean) ** 2).sum(axis=0) for site in train) / (n - 1))
    varies = sd > 0

    def scaled(sites: Sequence[Rows]) -> list[Rows]:
        return [Rows((each.covariates - mean)[:, varies] / sd[varies], each.time, each.event) for each in sites]

    return scaled(train), scaled(other)


def choose_ridge(train: Sequence[Rows], *, ties: Ties, seed: int) -> dict[str, float]:
    """The best strength by either of two usual rules, each from the same cross-validation of the training rows.

    Largest cross-validated partial likelihood (Verweij and van Houwelingen 1993), and largest C-index of the held-out
    patients, the rule of the comparators. Folds are dealt within each site and within those with and without an event.
    """
    parts = [_deal(site.event, generator(seed, "ridge", number)) for number, site in enumerate(train)]
    likelihood, concordant = np.zeros(len(STRENGTHS)), np.zeros(len(STRENGTHS))
    for fold in range(FOLDS):
        kept = [site[part != fold] for site, part in zip(train, parts, strict=True)]
        held_out = joined([site[part == fold] for site, part in zip(train, parts, strict=True)])
        for at, strength in enumerate(STRENGTHS):
            b = fit(kept, ties=ties, ridge=strength).coefficients
            likelihood[at] += likelihood_of(train, b, ties=ties).value - likelihood_of(kept, b, ties=ties).value
            risk = held_out.covariates @ b
            concordant[at] += count_pairs(
                risk, time=held_out.time, event=held_out.event, replicates=0, rng=generator(seed)
            ).concordant
    scores = {"partial likelihood": likelihood, "C of the held-out": concordant}
    return {rule: float(STRENGTHS[np.argmax(score)]) for rule, score in scores.items()}


def joined(sites: Sequence[Rows]) -> Rows:
    """All rows as one."""
    return Rows(*(np.concatenate([getattr(rows, key) for rows in sites]) for key in ("covariates", "time", "event")))


def _deal(event: Floats, rng: np.random.Generator) -> NDArray[np.intp]:
    part = np.empty(len(event), dtype=np.intp)
    for kind in (0, 1):
        rows = rng.permutation(np.flatnonzero((event > 0) == kind))
        part[rows] = np.arange(len(rows)) % FOLDS
    return part


def print_indices(risks: Sequence[Floats], tests: Sequence[Rows], names: Sequence[str], *, seed: int) -> None:
    """All pairs of the union, pairs within a site only, and by site, each with a bootstrap interval."""

    def counted(risk: Floats, rows: Rows, name: str) -> tuple[str, Concordance]:
        counts = count_pairs(
            risk, time=rows.time, event=rows.event, replicates=REPLICATES, rng=generator(seed, "bootstrap", name)
        )
        return name, concordance(counts)

    union = joined(tests)
    within = total(
        count_pairs(risk, time=rows.time, event=rows.event, replicates=REPLICATES, rng=generator(seed, "within", name))
        for risk, rows, name in zip(risks, tests, names, strict=True)
    )
    lines = [
        counted(np.concatenate(risks), union, "all pairs"),
        ("pairs within a site", concordance(within)),
        *(counted(*each) for each in zip(risks, tests, names, strict=True)),
    ]
    print(f"| {'test patients':20} | C [95 % CI]          | patients | events | pairs  |")
    print(f"| {'-' * 20} | -------------------- | -------- | ------ | ------ |")
    for name, c in lines:
        if c.value is None:
            index = str(c.reason)
        elif c.ci_low is None:
            index = f"{c.value:.3f} (no interval)"
        else:
            index = f"{c.value:.3f} [{c.ci_low:.3f}, {c.ci_high:.3f}]"
        print(f"| {name:20} | {index:20} | {c.n:8d} | {c.events:6d} | {c.pairs:6d} |")


def brca(source: Path) -> None:
    """FLamby's six centres, its training and test rows."""
    table = pd.read_csv(source / "tidy.csv")
    names = [str(name) for name in table.groupby("centre")["centre_name"].first()]
    features = [column for column in table.columns if column not in NOT_FEATURES]
    train, test = (
        [
            Rows(*(part[columns].to_numpy(dtype=float) for columns in (features, "os_days", "os_event")))
            for _, part in table[table["fold"] == fold].groupby("centre")
        ]
        for fold in ("train", "test")
    )
    train, test = standardised(train, test)
    for rule, ridge in choose_ridge(train, ties="efron", seed=0).items():
        for ties in TIES:
            fitted = fit(train, ties=ties, ridge=ridge)
            print(f"\nfed_tcga_brca, overall survival: ridge {ridge:.3g} by {rule}, {ties}, {fitted.rounds} rounds\n")
            print_indices([site.covariates @ fitted.coefficients for site in test], test, names, seed=0)
            if ties == "breslow" and rule == "partial likelihood":
                print_effect_of_minimum(train, test, fitted, ridge=ridge)


def print_effect_of_minimum(train: Sequence[Rows], test: Sequence[Rows], exact: CoxFit, *, ridge: float) -> None:
    """What hospitals' moved times change, without the sites that would refuse as too few patients had the event."""
    moved = [
        Rows(site.covariates, shareable_times(site.time, minimum=HOSPITALS_MINIMUM), site.event)
        for site in train
        if site.event.sum() >= HOSPITALS_MINIMUM
    ]
    coarse = fit(moved, ties="breslow", ridge=ridge).coefficients
    union = joined(test)
    rng = generator(0)
    counts = count_pairs(union.covariates @ coarse, time=union.time, event=union.event, replicates=0, rng=rng)
    furthest = float((np.abs(coarse - exact.coefficients) / exact.standard_errors).max())
    print(
        f"\nWith min_cell_size = {HOSPITALS_MINIMUM}, Breslow: {len(moved)} of {len(train)} sites take part, "
        f"coefficients move by up to {furthest:.2f} standard errors, C of all pairs "
        f"{counts.concordant / counts.comparable:.3f}"
    )


def sarcoma(source: Path) -> None:
    """TCGA-SARC's four sites, cross-validated; each model's ridge is chosen on its own development rows."""
    with tempfile.TemporaryDirectory() as scratch:
        cohorts = [load_cohort(folder) for folder in import_tcga_sarc(source, Path(scratch) / "cohorts")]
    names = [cohort.manifest.site for cohort in cohorts]
    folds = [make_folds(cohort, SARCOMA, endpoints=("os", "dm"), seed=0) for cohort in cohorts]
    for endpoint in ("os", "dm"):
        chosen: list[float] = []
        risks = [np.zeros(len(cohort.patients)) for cohort in cohorts]
        for number in range(SARCOMA.runs):
            tests = [each[number].test for each in folds]
            rests = [
                np.setdiff1d(np.arange(len(cohort.patients)), test) for cohort, test in zip(cohorts, tests, strict=True)
            ]
            train, test = _divided(cohorts, rests, tests, endpoint)
            chosen.append(choose_ridge(train, ties="efron", seed=number)["partial likelihood"])
            coefficients = fit(train, ties="efron", ridge=chosen[-1]).coefficients
            for risk, rows, held_out in zip(risks, tests, test, strict=True):
                risk[rows] += held_out.covariates @ coefficients / SARCOMA.repeats
        everyone = [_rows(cohort, endpoint, np.zeros((len(cohort.patients), 0))) for cohort in cohorts]
        print(
            f"\ntcga_sarc, {ENDPOINTS[endpoint]}: {SARCOMA.folds}-fold cross-validation, {SARCOMA.repeats} times, "
            f"Efron, ridge {min(chosen):.3g} to {max(chosen):.3g} by partial likelihood\n"
        )
        known = [np.isfinite(rows.time) for rows in everyone]
        print_indices(
            [risk[each] for risk, each in zip(risks, known, strict=True)],
            [rows[each] for rows, each in zip(everyone, known, strict=True)],
            names,
            seed=0,
        )


def _divided(
    cohorts: Sequence[Cohort], rests: Sequence[FoldRows], tests: Sequence[FoldRows], endpoint: str
) -> tuple[list[Rows], list[Rows]]:
    """Development rows whose outcome is known, and all test rows, by the columns that the former choose."""
    rests = [
        rest[np.isfinite(cohort.outcomes([endpoint]).time[rest, 0])]
        for cohort, rest in zip(cohorts, rests, strict=True)
    ]
    tables = [cohort.clinical.iloc[rest] for cohort, rest in zip(cohorts, rests, strict=True)]
    encoding = fit_encoding(reduce(add, (summarise(table, VARIABLES) for table in tables)), VARIABLES)
    sums = (sum_columns(candidate_values(encoding, table), VARIABLES, minimum=1) for table in tables)
    design = choose_design(reduce(add, sums), VARIABLES)
    both: tuple[list[Rows], list[Rows]] = ([], [])
    for cohort, rest, test in zip(cohorts, rests, tests, strict=True):
        rows = _rows(cohort, endpoint, design.covariates(candidate_values(encoding, cohort.clinical)))
        both[0].append(rows[rest])
        both[1].append(rows[test])
    return both


def _rows(cohort: Cohort, endpoint: str, covariates: Floats) -> Rows:
    outcomes = cohort.outcomes([endpoint])
    return Rows(covariates, outcomes.time[:, 0], outcomes.event[:, 0])


def main() -> None:
    """Both tables."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    brca(Path(sys.argv[1]) / "fed_tcga_brca")
    sarcoma(Path(sys.argv[1]) / "tcga_sarc")


if __name__ == "__main__":
    main()
