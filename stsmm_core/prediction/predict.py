"""`stsmm predict`: survival curves and absolute risks of patients, from the networks of a finished run."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stsmm_core.cohort.cohort import Cohort
from stsmm_core.errors import CohortError
from stsmm_core.files import write_text_atomically
from stsmm_core.prediction.model import RunModel, load_model
from stsmm_core.prediction.page import write_page
from stsmm_core.prediction.patients import PatientPrediction, curve_table, predict_patients, risk_table
from stsmm_core.report.prose import net_risk
from stsmm_core.run_folder import INPUTS_FILE, describe_inputs, open_run
from stsmm_core.training.inputs import describe_cohorts, open_cohorts
from stsmm_core.training.progress import progress_bar
from stsmm_core.training.site_data import load_site_data

PREDICTIONS_FILE = "predictions.csv"
CURVES_FILE = "curves.csv"


def predict_run(
    console: Console, run: Path, cohort: Sequence[Path], out: Path, *, patient: str | None, cache: Path | None
) -> None:
    """Predict the patients of some cohorts, or one of them, and write tables and a page into `out`.

    Raises:
        StsmmError: when the run, the cohorts or the patient cannot be used.
    """
    model = load_model(run)
    cohorts = [_chosen(each, patient) for each in open_cohorts(cohort)]
    cohorts = [each for each in cohorts if each.patients]
    if not cohorts:
        raise CohortError(f"no cohort has a patient '{patient}'; see patient_id in clinical.csv")
    for each in cohorts:
        _check_channels(each, model)
    console.print(describe_cohorts(cohorts), soft_wrap=True)
    inputs = describe_inputs("prediction", cohorts) | {"model": _fingerprint(run), "patient": patient}
    with open_run(out, model.experiment, inputs):
        predictions: list[PatientPrediction] = []
        with progress_bar(console, "Predicting", sum(len(each.patients) for each in cohorts)) as bar:
            for each in cohorts:
                data = load_site_data(each, model.experiment, cache=cache or out / "cache")
                for prediction in predict_patients(data, model):
                    predictions.append(prediction)
                    bar.advance()
        known = trained_on(run, cohorts)
        horizons, endpoints = model.experiment.evaluation.horizons_years, model.experiment.data.endpoints
        table = risk_table(predictions, endpoints, horizons)
        write_text_atomically(out / PREDICTIONS_FILE, table.to_csv(index=False, lineterminator="\n"))
        curves = curve_table(predictions, endpoints)
        write_text_atomically(out / CURVES_FILE, curves.to_csv(index=False, lineterminator="\n"))
        page = write_page(out, predictions, endpoints, model.experiment, trained_on=known)
        _print(console, predictions, endpoints, horizons, known)
        console.print(f"Wrote {out / PREDICTIONS_FILE}, {out / CURVES_FILE} and {page}", soft_wrap=True)


def patients_by_remark(predictions: Sequence[PatientPrediction]) -> dict[str, list[str]]:
    """Each remark once, with those it is true of."""
    found: dict[str, list[str]] = {}
    for one in predictions:
        for remark in one.remarks:
            found.setdefault(remark, []).append(f"{one.site} {one.patient}")
    return found


def trained_on(run: Path, cohorts: Sequence[Cohort]) -> bool:
    """Whether one of the cohorts comes from a site that the run was made from: its patients may have trained it."""
    inputs: dict[str, Any] = json.loads((run / INPUTS_FILE).read_text(encoding="utf-8"))
    used = {each["site"] for each in inputs["cohorts"]}
    return any(cohort.manifest.site in used for cohort in cohorts)


def _chosen(cohort: Cohort, patient: str | None) -> Cohort:
    if patient is None:
        return cohort
    return cohort.subset([name for name in cohort.patients if name == patient])


def _check_channels(cohort: Cohort, model: RunModel) -> None:
    channels = cohort.manifest.channels
    if "image" in model.experiment.data.modalities and channels and channels != model.channels:
        raise CohortError(
            f"{cohort.root}: has the channels {', '.join(channels)}, but the run was trained on "
            f"{', '.join(model.channels) or 'none'}; give the same channels in the same order"
        )


def _fingerprint(run: Path) -> str:
    return hashlib.sha256((run / INPUTS_FILE).read_bytes()).hexdigest()


def _print(
    console: Console,
    predictions: Sequence[PatientPrediction],
    endpoints: Sequence[str],
    horizons_years: Sequence[float],
    known: bool,
) -> None:
    table = Table(title="Absolute risk, % [95 % interval]")
    for name in ("Site", "Patient", "Of"):
        table.add_column(name, overflow="fold")
    for years in horizons_years:
        table.add_column(f"{years:g} y", no_wrap=True)
    table.add_column("Nearer*", no_wrap=True)
    for one in predictions:
        nearer = "-" if np.isnan(one.percentile) else f"{one.percentile:.0f} %"
        for endpoint, rows in risk_table([one], endpoints, horizons_years).groupby("endpoint", sort=False):
            risks = [
                "-"
                if np.isnan(risk)
                else f"{100 * risk:.0f}" + ("" if np.isnan(low) else f" [{100 * low:.0f}, {100 * high:.0f}]")
                for risk, low, high in zip(rows["risk"], rows["low"], rows["high"], strict=True)
            ]
            table.add_row(*map(Text, (one.site, one.patient, str(endpoint), *risks, nearer)))
    console.print(table)
    console.print("* Training patients that are nearer to their mean than this patient.", soft_wrap=True)
    if said := net_risk(endpoints):
        console.print(said, soft_wrap=True)
    for remark, patients in patients_by_remark(predictions).items():
        whose = "all patients" if len(patients) == len(predictions) > 1 else ", ".join(patients)
        console.print(Text(f"{whose}: {remark}"), soft_wrap=True)
    if known:
        console.print(
            "[bold]The run was made from patients of the same site: for those who trained it its risks are too sure. "
            "Honest figures are in the run's report.[/bold]"
        )
