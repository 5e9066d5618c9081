"""The page of a prediction: each patient's curves with their interval, and what to be careful about."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from stsmm_core.cohort.dictionary import DAYS_PER_YEAR
from stsmm_core.config import Experiment
from stsmm_core.files import write_text_atomically
from stsmm_core.prediction.patients import PatientPrediction
from stsmm_core.report.prose import net_risk, tested_and_used

PAGE_FILE = "predictions.html"
CURVE_COLOUR = "#0b4f7d"
CURVE_TITLES = {"os": "Overall survival", "dm": "Free of distant metastasis"}


def write_page(
    out: Path,
    predictions: Sequence[PatientPrediction],
    endpoints: Sequence[str],
    experiment: Experiment,
    *,
    trained_on: bool,
) -> Path:
    """Write predictions.html, which names patients and stays at the centre; returns its path.

    Args:
        experiment: of the run that predicts.
        trained_on: whether that run was made from patients of the same site.
    """
    loader = PackageLoader("stsmm_core.prediction", ".")
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("predictions.html")
    patients = [
        (one, _data_uri(curve_figure(one, endpoints, experiment.evaluation.horizons_years))) for one in predictions
    ]
    page = template.render(
        patients=patients,
        trained_on=trained_on,
        tested_and_used=tested_and_used(experiment),
        net_risk=net_risk(endpoints),
    )
    write_text_atomically(out / PAGE_FILE, page)
    return out / PAGE_FILE


def curve_figure(one: PatientPrediction, endpoints: Sequence[str], horizons_years: Sequence[float]) -> Figure:
    """Curves of the probability to be free of each event, to the end of development follow-up."""
    figure = Figure(figsize=(4.2 * len(endpoints), 2.9), layout="constrained")
    panels = figure.subplots(1, len(endpoints), squeeze=False)[0]
    for column, (axes, endpoint) in enumerate(zip(panels, endpoints, strict=True)):
        shown = one.times <= one.last_time[column]
        years = one.times[shown] / DAYS_PER_YEAR
        axes.fill_between(years, one.low[column, shown], one.high[column, shown], color=CURVE_COLOUR, alpha=0.18, lw=0)
        axes.plot(years, one.survival[column, shown], color=CURVE_COLOUR)
        axes.set(ylim=(0, 1), xlim=(0, max(horizons_years)), xlabel="years", title=CURVE_TITLES[endpoint])
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _data_uri(figure: Figure) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
