"""How do the twelve models of a comparison rank? One synthetic cohort a seed, cross-validated, paired over the seeds.

    python benchmarks/twelve_models.py OUT --seed 20 --seed 21 [--config configs/compare_demo.toml] [--patients 300]

Each seed draws other patients, other folds and other first weights. For each model and endpoint, and with a t interval
over the seeds how far MMNN with gradient blending is above it: Harrell's C, and the C to be expected of such risks when
the same patients are followed anew to their events, which is free of the chance in the outcomes of a cohort. Then how
the risk correlates within the test folds with the true log hazard, with the part of it that only the images show, and
with that of the clinical variables. What is finished is not done again.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from over_seeds import mean_with_interval
from rich.console import Console
from rich.table import Table
from scipy.special import expit

from stsmm_core.cohort.cohort import ORACLE_FILE
from stsmm_core.cohort.dictionary import PATIENT_ID
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.cohort.synthetic_patients import simulate_site
from stsmm_core.comparators.comparison import compare_run
from stsmm_core.config import read_experiment, to_toml
from stsmm_core.run_folder import COMPARISON_FILE

CONFIG = Path(__file__).parents[1] / "configs" / "compare_demo.toml"
SITE = "site_1"
PARTS = ("all", "image", "clinical")


def main() -> None:
    """Compare on each seed, then print a table an endpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, action="append", required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--patients", type=int, default=300)
    given = parser.parse_args()
    console = Console(width=150, highlight=False)
    seeds = []
    for seed in given.seed:
        folder = given.out / f"seed-{seed}"
        _compare(console, given.config, folder, seed=seed, patients=given.patients)
        figures = pd.DataFrame(_figures(folder / "run")).set_index(["endpoint", "model"])
        predicted = _beside_truth(folder, seed=seed, patients=given.patients)
        by_model = predicted.groupby(["endpoint", "model"])
        figures["expected_c"] = by_model[["fold", "log_hazard", "all"]].apply(_expected_c)
        seeds.append(figures.join(_correlations(predicted)))
    over_seeds = pd.concat(seeds, keys=given.seed, names=["seed"])
    for endpoint, rows in over_seeds.groupby("endpoint", sort=False):
        console.print(_table(str(endpoint), rows.droplevel("endpoint")))


def _compare(console: Console, config: Path, folder: Path, *, seed: int, patients: int) -> None:
    """Draw the cohort and compare on it, unless that is done."""
    experiment = read_experiment(config)
    evaluation = experiment.evaluation.model_copy(update={"scheme": "cv"})
    wanted = to_toml(experiment.model_copy(update={"seed": seed, "evaluation": evaluation}))
    own, cohort = folder / "experiment.toml", folder / "cohorts" / SITE
    folder.mkdir(parents=True, exist_ok=True)
    if own.exists() and own.read_text(encoding="utf-8") != wanted:
        raise SystemExit(f"{folder} was made with another configuration; give an empty folder")
    own.write_text(wanted, encoding="utf-8")
    if not cohort.exists():
        write_synthetic_cohorts(folder / "cohorts", sites=1, patients=patients, seed=seed)
    if (found := len(pd.read_csv(cohort / ORACLE_FILE))) != patients:
        raise SystemExit(f"{folder} was made with {found} patients, not {patients}; give an empty folder")
    if not (folder / "run" / COMPARISON_FILE).is_file():
        compare_run(console, own, [cohort], folder / "run", cache=folder / "cache", second_reader=None)


def _figures(run: Path) -> Iterator[dict[str, object]]:
    """Harrell's C of each model and endpoint."""
    comparison = json.loads((run / COMPARISON_FILE).read_text(encoding="utf-8"))
    labels = {model["key"]: model["label"] for model in comparison["models"]}
    for key, endpoints in comparison["results"].items():
        for endpoint, figures in endpoints.items():
            yield {"endpoint": endpoint, "model": key, "label": labels[key], "c": figures["harrell_c"]["value"]}


def _beside_truth(folder: Path, *, seed: int, patients: int) -> pd.DataFrame:
    """Each model's risk of each test patient beside the true parts of the log hazard."""
    site = simulate_site(site=1, patients=patients, seed=seed)
    names = pd.read_csv(folder / "cohorts" / SITE / ORACLE_FILE)[PATIENT_ID]
    truth = {"all": site.oracle, "image": site.image_risk, "clinical": site.clinical_risk}
    predicted = pd.read_csv(folder / "run" / "private" / "predictions.csv")
    row = predicted["patient"].str.removeprefix(f"{SITE}, patient ").map(pd.Series(names.index, index=names))
    for part in PARTS:
        stacked = truth[part].stack()
        predicted[part] = stacked.loc[list(zip(row, predicted["endpoint"], strict=True))].to_numpy()
    return predicted


def _expected_c(predicted: pd.DataFrame) -> float:
    """Probability that of two test patients of a fold the one with the higher risk has the event first.

    With proportional hazards that of the first is exp(a) / (exp(a) + exp(b)), a and b the log hazards; no censoring.
    """
    concordant, pairs = 0.0, 0
    for _, fold in predicted.groupby("fold"):
        risk, hazard = fold["log_hazard"].to_numpy(), fold["all"].to_numpy()
        first, second = np.triu_indices(len(fold), 1)
        sooner = expit(hazard[first] - hazard[second])
        above = np.sign(risk[first] - risk[second])
        concordant += float((0.5 + above * (sooner - 0.5)).sum())
        pairs += len(first)
    return concordant / pairs


def _correlations(predicted: pd.DataFrame) -> pd.DataFrame:
    """Mean over the test folds of the correlation of each model's risk with the true parts, by endpoint and model."""
    by_fold = predicted.groupby(["endpoint", "model", "fold"])[["log_hazard", *PARTS]].corr()["log_hazard"].unstack()
    # A risk that is the same for everyone has no correlation: it tells nothing of the truth.
    return by_fold[list(PARTS)].fillna(0.0).groupby(["endpoint", "model"]).mean()


def _table(endpoint: str, rows: pd.DataFrame) -> Table:
    """A row a model, its figures the mean over the seeds."""
    seeds = rows.index.get_level_values("seed").nunique()
    table = Table(title=f"{endpoint}, {seeds} seeds; difference: MMNN with blending minus the model")
    for column in ("model", "C", "difference", "expected C", "difference", *(f"r {part}" for part in PARTS)):
        table.add_column(column)
    by_seed = {measure: rows[measure].unstack("model") for measure in ("c", "expected_c")}
    for model, each in rows.groupby("model", sort=False):
        cells = [each["label"].iloc[0]]
        for measure, c in by_seed.items():
            above = "" if model == "mmnn_blending" else mean_with_interval(list(c["mmnn_blending"] - c[model]))
            cells += [f"{each[measure].mean():.3f}", above]
        table.add_row(*cells, *(f"{each[part].mean():.2f}" for part in PARTS))
    return table


if __name__ == "__main__":
    main()
