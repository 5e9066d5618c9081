"""`stsmm compare`: every model on the same patients, from start to report."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from stsmm_core.cohort.cohort import ORACLE_FILE, Cohort
from stsmm_core.cohort.dictionary import DAYS_PER_YEAR
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.comparators.analysis import analyse
from stsmm_core.comparators.explaining import explain_model
from stsmm_core.comparators.networks import NETWORKS, check_comparable, train_network
from stsmm_core.comparators.out_of_fold import Outcome, comparator_outcomes, network_outcomes
from stsmm_core.comparators.radiomics import agreed_features
from stsmm_core.comparators.specification import COMPARATORS
from stsmm_core.comparators.study import Study, pool_study
from stsmm_core.comparators.summary import print_comparison
from stsmm_core.config import Experiment, read_experiment
from stsmm_core.files import write_text_atomically
from stsmm_core.imaging.radiomics import radiomics_table
from stsmm_core.report.comparison.comparison_report import write_comparison_report
from stsmm_core.run_folder import (
    BLENDED,
    COMPARISON_FILE,
    COMPARISON_PACKAGES,
    NETWORKS_FOLDER,
    PACKAGES,
    PRIVATE_FOLDER,
    describe_inputs,
    open_run,
)
from stsmm_core.survival.discrimination import column_of
from stsmm_core.survival.predictions import Predictions
from stsmm_core.training.device import available_device
from stsmm_core.training.inputs import announce_inputs, image_jobs, open_cohorts
from stsmm_core.training.progress import progress_bar
from stsmm_core.training.train import load_centres

PREDICTIONS_FILE = "predictions.csv"


def compare_run(
    console: Console, config: Path, cohort: Sequence[Path], out: Path, *, cache: Path | None, second_reader: Path | None
) -> None:
    """Train and fit every model on every fold, test them on the same patients, and write the run folder.

    Raises:
        StsmmError: when the experiment, the cohorts or the run folder cannot be used.
    """
    started = time.monotonic()
    experiment = read_experiment(config)
    check_comparable(experiment)
    available_device(experiment.training.device)
    cohorts = open_cohorts(cohort)
    reader = None if second_reader is None else load_cohort(second_reader)
    inputs = describe_inputs("comparison", cohorts) | {
        "second_reader": None if reader is None else describe_inputs("comparison", [reader])["cohorts"]
    }
    announce_inputs(console, experiment, cohorts)
    cache = cache or out / PRIVATE_FOLDER / "cache"
    with open_run(out, experiment, inputs, packages=(*PACKAGES, *COMPARISON_PACKAGES)):
        centres = load_centres(console, experiment, cohorts, out / NETWORKS_FOLDER, cache=cache)
        study = pool_study(centres)
        features = _features(console, experiment, cohorts, cache=cache)
        radiomics = [features] * len(study.folds)
        if reader is not None:
            second = _features(console, experiment, [reader], cache=cache)
            radiomics = agreed_features(study, features, second, experiment.radiomics.min_icc)
        outcomes: dict[str, dict[str, Outcome]] = {}
        models = {
            network.key: train_network(console, network, centres, out / NETWORKS_FOLDER / network.key)
            for network in NETWORKS
        }
        for key, trained in models.items():
            outcomes[key] = network_outcomes(study, trained)
        with progress_bar(console, "Fitting comparators", len(COMPARATORS)) as bar:
            for key, specification in COMPARATORS.items():
                outcomes[key] = comparator_outcomes(study, specification, radiomics)
                bar.advance()
        _write_predictions(study, outcomes, out / PRIVATE_FOLDER / PREDICTIONS_FILE)
        with progress_bar(console, "Testing models", len(outcomes)) as bar:
            comparison = analyse(study, outcomes, advance=bar.advance)
        with console.status("Explaining the network"):
            comparison["explanations"] = explain_model(study, cohorts, models[BLENDED][0], outcomes[BLENDED], out)
        comparison["radiomics"] = {
            "measured": len(features.columns),
            "used": [len(table.columns) for table in radiomics],
            "second_reader": reader is not None,
        }
        comparison["synthetic"] = all((each.root / ORACLE_FILE).exists() for each in cohorts)
        # A run that was interrupted has trained for longer than this start took.
        training_s = sum(model.progress.seconds for trained in models.values() for model in trained)
        comparison["wall_s"] = round(max(time.monotonic() - started, training_s), 1)
        write_text_atomically(out / COMPARISON_FILE, json.dumps(comparison, indent=1, allow_nan=False))
        print_comparison(console, comparison, write_comparison_report(out))


def _features(console: Console, experiment: Experiment, cohorts: Sequence[Cohort], *, cache: Path) -> pd.DataFrame:
    jobs = [job for cohort in cohorts for job in image_jobs(cohort)]
    with progress_bar(console, "Radiomics", len(jobs)) as bar:
        return radiomics_table(
            jobs,
            experiment.imaging,
            experiment.radiomics,
            cache=cache,
            workers=os.cpu_count() or 1,
            advance=bar.advance,
        )


def _write_predictions(study: Study, outcomes: Mapping[str, Mapping[str, Outcome]], path: Path) -> None:
    """A row a model, endpoint, test fold and patient, with identifiers: this file stays at the centre."""
    parts = []
    for key, by_endpoint in outcomes.items():
        for endpoint, one in by_endpoint.items():
            if not isinstance(one, Predictions):
                continue
            risks = {
                f"risk_{years:g}y": one.absolute_risk[:, column_of(one, years * DAYS_PER_YEAR)]
                for years in study.experiment.evaluation.horizons_years
            }
            parts.append(
                pd.DataFrame(
                    {
                        "model": key,
                        "endpoint": endpoint,
                        "patient": study.data.clinical.index[one.patient],
                        "fold": one.stratum // len(study.sites),
                        "days": one.time,
                        "event": one.event,
                        "log_hazard": one.risk,
                        **risks,
                    }
                )
            )
    write_text_atomically(path, pd.concat(parts).to_csv(index=False, lineterminator="\n"))
