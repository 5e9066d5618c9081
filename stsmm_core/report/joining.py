"""Is it worth joining? The page of a comparison of federated, centralised and local training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from matplotlib.figure import Figure
from pydantic import Field, model_validator

from stsmm_core.cohort.dictionary import ENDPOINTS
from stsmm_core.config import to_toml
from stsmm_core.report.drawing import GREY, INK, PALETTE, WIDTH, data_uri, figure_style
from stsmm_core.report.page import template, write_page
from stsmm_core.report.report import REPORT_FILE
from stsmm_core.report.run_files import Record, read_record, read_run_experiment, read_versions
from stsmm_core.run_folder import COMPARISON_FILE, CONFIG_FILE, VERSIONS_FILE

FEW_EVENTS = 10
"""Below about so many the percentile interval covers less than it says (`survival.concordance.Concordance`)."""
NOT_THERE = "not available"
GAIN = "federated_minus_alone"
NAMES = {
    "centralised": "Centralised: all patients pooled",
    "federated": "Federated",
    "alone": "Each site alone, on its own test patients",
    "alone_everywhere": "Each site alone, on all sites' test patients (mean C-index of the models)",
    "federated_minus_centralised": "Federated minus centralised",
    "federated_minus_alone": "Federated minus each site alone",
    "federated_minus_alone_everywhere": "Federated minus mean local model on all sites",
    "share_of_gain": "Share of the centralised gain over 0.5",
}
DIFFERENCES = tuple(name for name in NAMES if "minus" in name)

Weights = Literal["selected", "final"]
Count = Annotated[int, Field(ge=0)]
Rows = list[tuple[str, ...]]
"""Of a table: cells, the first its label."""


LEAST_REACH = 0.1
"""The axis of gains reaches at least so far to both sides: gains of 0 alone would stretch it over rounding errors."""


class JoiningFigure(Record):
    """One number of the comparison with its interval, or the reason why it or its interval is missing."""

    weights: Weights
    endpoint: str
    name: str
    site: str | None
    value: float | None
    low: float | None
    high: float | None
    n: Count
    events: Count
    pairs: Count
    reason: str | None

    @model_validator(mode="after")
    def _interval_or_reason(self) -> "JoiningFigure":
        if (self.low is None) != (self.high is None):
            raise ValueError("give both ends of the interval or none")
        if self.low is None and not self.reason:
            raise ValueError("a figure without an interval needs a reason")
        return self


class JoiningCentre(Record):
    """A centre's size and case mix."""

    site: str
    patients: Count
    events: dict[str, Count]
    mix: dict[str, Count]


class Joining(Record):
    """comparison.json."""

    seed: int
    endpoints: tuple[str, ...]
    epochs: int
    rounds: int
    partition: dict[str, Any] | None
    centres: tuple[JoiningCentre, ...]
    selected_rounds: dict[str, tuple[int, ...]]
    oracle: dict[str, float | None] | None
    figures: tuple[JoiningFigure, ...]
    notes: tuple[str, ...]

    def find(
        self, name: str, endpoint: str, *, site: str | None = None, weights: Weights = "selected"
    ) -> JoiningFigure | None:
        """The figure, or None where the comparison does not have it."""
        wanted = (name, endpoint, site, weights)
        return next(
            (each for each in self.figures if (each.name, each.endpoint, each.site, each.weights) == wanted), None
        )

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the centres."""
        return tuple(centre.site for centre in self.centres)


def write_joining_report(run: Path) -> tuple[Path, Joining]:
    """Write `report.html` of a comparison into its folder; the path, and what was read.

    Raises:
        RunError: naming the file of the folder that is missing, broken or cannot be written.
    """
    joining = read_record(run / COMPARISON_FILE, Joining)
    experiment = read_run_experiment(run / CONFIG_FILE)
    page = template("joining.html").render(
        joining=joining,
        endpoint_names=ENDPOINTS,
        honest=honest_sentences(joining),
        advice={endpoint: advice_by_site(joining, endpoint) for endpoint in joining.endpoints},
        site_rows={endpoint: _site_rows(joining, endpoint) for endpoint in joining.endpoints},
        model_rows={endpoint: _model_rows(joining, endpoint) for endpoint in joining.endpoints},
        loss_rows={endpoint: _loss_rows(joining, endpoint) for endpoint in joining.endpoints},
        final=any(figure.weights == "final" for figure in joining.figures),
        forest=data_uri(gain_figure(joining)),
        config=to_toml(experiment.with_pretrained(Path(experiment.model.pretrained).name)),
        versions=read_versions(run / VERSIONS_FILE),
    )
    write_page(run / REPORT_FILE, page)
    return run / REPORT_FILE, joining


def advice_by_site(joining: Joining, endpoint: str) -> dict[str, str]:
    """The answer for each site in plain words."""
    gains = {site: joining.find(GAIN, endpoint, site=site) for site in joining.sites}
    return {site: advice(gain) for site, gain in gains.items() if gain is not None}


def advice(gain: JoiningFigure) -> str:
    """What the difference of federated and local training says to a site."""
    basis = f"{_count(gain.n, 'test patient')}, {_count(gain.events, 'event')}"
    if gain.value is None:
        return f"The gain is not known: {gain.reason} ({basis})."
    change = f"{gain.value:+.3f}"
    if gain.low is None or gain.high is None:
        return (
            f"Joining changes the C-index by {change}, without an interval ({gain.reason}; {basis}): it shows nothing."
        )
    said = f"Expected gain in C-index {change} (95 % CI {gain.low:+.3f} to {gain.high:+.3f}; {basis}). "
    if gain.low > 0:
        said += "Joining ranked this site's patients better than training alone."
    elif gain.high < 0:
        said += "Joining ranked this site's patients worse than training alone."
    else:
        said += "The interval includes 0: this does not show a gain."
    few = f" With fewer than {FEW_EVENTS} events the interval is too narrow." if gain.events < FEW_EVENTS else ""
    return said + few


def honest_sentences(joining: Joining) -> list[str]:
    """What a reader must know before believing a number."""
    said = []
    if joining.oracle is not None:
        said.append("Synthetic data: for tests and demonstration, never for claims.")
    said.append(
        "All models were tested on the same patients in the same bootstrap samples, so differences have intervals of "
        "their own. The models are held fixed: another seed, split or training would move the numbers too."
    )
    tests = len(joining.sites) * len(joining.endpoints)
    said.append(
        f"There are {tests} gains by site, each with a 95 % interval of its own: by chance alone about one in twenty "
        "would exclude 0. Nothing is corrected for that."
    )
    without = [site for site in joining.sites if any(_alone_missing(joining, end, site) for end in joining.endpoints)]
    if without:
        said.append(
            f"No model of its own, and left out of the figures of each site alone: {', '.join(without)}. The gap to "
            "the federated model is over the other sites."
        )
    return [*said, *joining.notes]


def show_figure(figure: JoiningFigure | None) -> str:
    """A figure with its interval or the reason why there is none; differences with their sign."""
    if figure is None:
        return NOT_THERE
    if figure.value is None:
        return figure.reason or NOT_THERE
    share = figure.name == "share_of_gain"
    signed = figure.name in DIFFERENCES or figure.name.startswith("loss")

    def number(value: float) -> str:
        return f"{value:.0%}" if share else f"{value:+.3f}" if signed else f"{value:.3f}"

    if figure.low is None or figure.high is None:
        return f"{number(figure.value)} ({figure.reason})"
    return f"{number(figure.value)} [{number(figure.low)}, {number(figure.high)}]"


def gain_figure(joining: Joining) -> Figure:
    """Gain of joining by site with its interval, one panel an endpoint; the line is no gain."""
    sites = joining.sites
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(sites)), layout="constrained")
        panels = figure.subplots(1, len(joining.endpoints), sharex=True, sharey=True, squeeze=False)[0]
        for axes, endpoint in zip(panels, joining.endpoints, strict=True):
            axes.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            for row, site in enumerate(sites):
                gain = joining.find(GAIN, endpoint, site=site)
                if gain is None or gain.value is None:
                    axes.text(0, row, " not known", color=GREY, style="italic", va="center")
                elif gain.low is None or gain.high is None:
                    axes.plot(gain.value, row, marker="o", markersize=5, color=INK, markerfacecolor="white")
                else:
                    axes.plot([gain.low, gain.high], [row, row], color=PALETTE[0], linewidth=1.6)
                    axes.plot(gain.value, row, marker="o", markersize=5, color=PALETTE[0])
            low, high = axes.get_xlim()
            axes.set_xlim(min(low, -LEAST_REACH), max(high, LEAST_REACH))
            axes.set_title(ENDPOINTS[endpoint].capitalize())
            axes.set_xlabel("federated minus alone (C-index)")
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        panels[0].set_yticks(range(len(sites)), sites)
        panels[0].set_ylim(len(sites) - 0.5, -0.5)
        return figure


def _model_rows(joining: Joining, endpoint: str) -> Rows:
    """Label, figure of the selected weights, of the final ones, patients, events, pairs."""
    rows: Rows = []
    for name, label in NAMES.items():
        selected, final = joining.find(name, endpoint), joining.find(name, endpoint, weights="final")
        if selected is not None:
            counts = (str(selected.n), str(selected.events), str(selected.pairs))
            rows.append((label, show_figure(selected), show_figure(final), *counts))
    return rows


def _site_rows(joining: Joining, endpoint: str) -> Rows:
    """Site, patients, events, alone, federated, gain."""
    rows: Rows = []
    for site in joining.sites:
        alone, federated, gain = (joining.find(name, endpoint, site=site) for name in ("alone", "federated", GAIN))
        if gain is not None:
            shown: Sequence[str] = [show_figure(each) for each in (alone, federated, gain)]
            rows.append((site, str(gain.n), str(gain.events), *shown))
    return rows


def _loss_rows(joining: Joining, endpoint: str) -> Rows:
    """Site left out, loss of the others, loss of the site itself."""
    rows: Rows = []
    for site in joining.sites:
        others, itself = (joining.find(name, endpoint, site=site) for name in ("loss_of_others", "loss_of_site"))
        if others is not None:
            rows.append((site, show_figure(others), show_figure(itself)))
    return rows


def _alone_missing(joining: Joining, endpoint: str, site: str) -> bool:
    alone = joining.find("alone", endpoint, site=site)
    return alone is not None and alone.value is None and (alone.reason or "").startswith("no model")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
