"""The report of figures over all sites and of the certificate."""

import json
from html.parser import HTMLParser

import pytest

from stsmm_core.errors import RunError
from stsmm_core.report.report import write_report
from stsmm_core.report.results import read_results


def figure(value, low=None, high=None, **more):
    return {"value": value, "ci_low": low, "ci_high": high, "n": 90, "events": 40, "bounds": None, "left_out": 0} | more


def no_figure(reason):
    return figure(None, reason=reason)


def horizon(**changes):
    figures = {
        "auc": figure(0.7312, 0.65, 0.81, bounds=[0.70, 0.76]),
        "brier": figure(0.181, 0.15, 0.21),
        "brier_null": figure(0.224, 0.2, 0.24),
        "ipa": figure(0.192, 0.05, 0.3),
        "oe": figure(1.123, 0.9, 1.4),
        "brier_site": figure(0.177, 0.15, 0.21),
        "ipa_site": figure(0.2, 0.05, 0.3),
        "oe_site": figure(1.045, 0.8, 1.3),
    }
    groups = [{"n": 30, "predicted": 0.124, "observed": figure(0.151, 0.05, 0.27)}]
    return figures | {"groups": groups} | changes


def check(minimum, name, federated, pooled, *, exact, low=None, high=None):
    return {
        "minimum": minimum,
        "endpoint": "os",
        "figure": name,
        "federated": federated,
        "pooled": pooled,
        "difference": abs(federated - pooled),
        "exact": exact,
        "low": low,
        "high": high,
    }


@pytest.fixture
def pooled_metrics(metrics):
    for head in metrics["heads"].values():
        for endpoint, result in head.items():
            head[endpoint] = {**result, "pooled_c": figure(0.6871, 0.61, 0.75, left_out=4)}
    nothing = dict.fromkeys(horizon(), no_figure("fewer than 5 events by then")) | {"groups": []}
    for result in metrics["heads"]["fusion"].values():
        result["horizons"] = {"2": nothing, "5": horizon()}
    metrics["test"] = metrics["heads"]["fusion"]
    metrics["certificate"] = [
        check(1, "AUC at 2 years", 0.7, 0.7, exact=True),
        check(5, "AUC at 2 years", 0.71, 0.7, exact=False, low=0.6, high=0.8),
        check(5, "AUC at 5 years", 0.75, 0.7, exact=False, low=0.55, high=0.85),
        check(5, "baseline hazard at 5 years", 0.31, 0.32, exact=False),
    ]
    return metrics


class Text(HTMLParser):
    """The words of a page."""

    def __init__(self):
        super().__init__()
        self.words = []

    def handle_data(self, data):
        self.words.append(data)


def words_of(page):
    parser = Text()
    parser.feed(page.read_text(encoding="utf-8"))
    return " ".join(" ".join(parser.words).split())


def test_the_figures_over_all_sites_are_shown(pooled_metrics, write):
    words = words_of(write_report(write(pooled_metrics)))
    assert "0.687 [0.610, 0.750]" in words  # all pairs
    assert "0.715 [0.625, 0.795]" in words  # within sites
    assert "0.731 [0.650, 0.810] {0.700, 0.760}" in words
    assert "fewer than 5 events by then" in words
    assert "15 [5, 27]" in words
    assert "At most 4 patients are in no figure" in words


def test_the_certificate_shows_the_largest_difference(pooled_metrics, write):
    words = words_of(write_report(write(pooled_metrics)))
    assert "AUC 1 0.7000 0.7000 0.0e+00 equal" in words
    assert "AUC 5 0.7500 0.7000 5.0e-02 0.5500 to 0.8500" in words
    assert "baseline hazard 5 0.3100 0.3200 1.0e-02 none" in words


@pytest.mark.parametrize(
    ("failed", "shown"),
    [
        (check(1, "AUC at 5 years", 0.7, 0.7 + 2e-9, exact=True), "AUC 1 0.7000 0.7000 2.0e-09 NOT equal"),
        (check(5, "AUC at 3 years", 0.61, 0.59, exact=False, low=0.6, high=0.8), "0.6000 to 0.8000, NOT within"),
    ],
)
def test_a_certificate_that_fails_says_so_before_larger_differences(pooled_metrics, write, failed, shown):
    assert "certificate fails" not in words_of(write_report(write(pooled_metrics)))
    pooled_metrics["certificate"].insert(0, failed)
    words = words_of(write_report(write(pooled_metrics, name="failed")))
    assert shown in words
    assert "The exactness certificate fails" in words


def test_the_figures_of_an_ensemble_are_said_to_be_means_over_its_networks(pooled_metrics, write):
    run = write(pooled_metrics)
    config = run / "config.toml"
    config.write_text(config.read_text().replace("[evaluation]\n", "[evaluation]\nmembers = 4\n"))
    words = words_of(write_report(run))
    assert "within sites the mean risk of 4 networks is tested" in words
    assert "All figures here are means over single networks" in words


def test_a_run_without_them_has_no_such_tables(metrics, write):
    words = words_of(write_report(write(metrics)))
    assert "certificate" not in words.lower()
    assert "pairs are compared within a site only" in words


def test_a_figure_without_value_needs_a_reason(pooled_metrics, write):
    run = write(pooled_metrics)
    broken = json.loads((run / "metrics.json").read_text())
    broken["test"]["os"]["pooled_c"]["value"] = None
    (run / "metrics.json").write_text(json.dumps(broken))
    with pytest.raises(RunError, match="a figure without value needs a reason"):
        read_results(run)


@pytest.mark.parametrize("setting", ["local_normalisation = true", "personal_epochs = 3"])
def test_figures_of_several_networks_are_said_to_be_so(pooled_metrics, write, setting):
    run = write(pooled_metrics)
    assert "different networks" not in words_of(write_report(run))
    config = run / "config.toml"
    config.write_text(f"federation.{setting}\n{config.read_text()}")
    assert "come from different networks" in words_of(write_report(run))
