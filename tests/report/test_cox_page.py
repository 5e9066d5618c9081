"""The page of a Cox regression, from run folders written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from history_file import VERSIONS
from metrics_file import concordance, site

from stsmm_core.errors import RunError
from stsmm_core.report.report import write_report

CONFIG = """
seed = 11
data = { endpoints = ["os"], modalities = ["clinical"], variables = ["age", "grade"] }
model.kind = "cox"
cox = { ridge = 2.0, stratified = false }
"""


def ratio(variable: str, level: str | None, value: float, *, per: float | None = None) -> dict[str, Any]:
    return {
        "variable": variable,
        "level": level,
        "per": per,
        "coefficient": 0.0,
        "standard_error": 0.1,
        "hazard_ratio": value,
        "ci_low": value / 2,
        "ci_high": value * 2,
    }


def cox_json() -> dict[str, Any]:
    ratios = [ratio("age", None, 1.51, per=13.21), ratio("age", "", 0.9), ratio("grade", "low", 0.402)]
    model = {
        "patients": 180,
        "events": 71,
        "rounds": 7,
        "largest_move_days": 44.0,
        "grid_error": 0.02,
        "references": {"grade": ["intermediate", "high", ""]},
        "hazard_ratios": ratios,
    }
    return {"ties": "breslow", "endpoints": {"os": model}}


def curve(*survival: float) -> dict[str, Any]:
    steps = len(survival)
    return {"days": [300.0 * (step + 1) for step in range(steps)], "survival": list(survival), "at_risk": [9] * steps}


def metrics_json() -> dict[str, Any]:
    test = {"os": concordance(0.7149, 0.6251, 0.7948)}
    pooled = curve(0.9, 0.7, 0.0) | {"low": [0.8, 0.5, None], "high": [0.97, 0.8, None]}
    return {
        "mode": "federated",
        "cohorts": [site("site_1"), site("site_2", 100)],
        "test": test,
        "heads": {"cox": test},
        "oracle": None,
        "tested_sites": ["site_1", "site_2"],
        "selected_rounds": [7],
        "first_blending_rounds": [None],
        "wall_s": 3.2,
        "rounds": 7,
        "survival": {
            "os": {
                "sites": {"site_1": curve(0.9, 0.8), "site_2": curve(0.8, 0.1)},
                "pooled": pooled,
                "withheld": ["site_9"],
                "largest_move_days": 44.0,
            }
        },
    }


def write_cox_run(run: Path, *, metrics: dict[str, Any], cox: dict[str, Any]) -> Path:
    run.mkdir()
    (run / "config.toml").write_text(CONFIG, encoding="utf-8")
    (run / "versions.json").write_text(json.dumps(VERSIONS), encoding="utf-8")
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (run / "cox.json").write_text(json.dumps(cox), encoding="utf-8")
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_cox_run(tmp_path / "run", metrics=metrics_json(), cox=cox_json())


def test_the_page_shows_the_hazard_ratios_with_their_reference(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    for words in (
        "Age at diagnosis, per 13.2 years (1 SD)",
        "1.51 [0.76, 3.02]",
        "Age at diagnosis: missing",
        "FNCLCC grade (reference: intermediate, high, missing)",
        "0.40 [0.20, 0.80]",
        "Overall survival: 180 patients, 71 events",
        "0.715 [0.625, 0.795]",
    ):
        assert words in text
    assert "Blending" not in text
    assert "Kaplan-Meier" in text
    assert "by up to 44 days" in text
    assert "site_9" in text


def test_the_methods_say_how_it_was_fitted(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    assert "Newton" in text
    assert "at most 7 rounds" in text
    assert "risk-set sums" in text
    assert "ridge penalty of 2 / 2" in text


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("variable", "shoe_size", "not in the data dictionary"), ("per", None, "a number needs `per`")],
)
def test_a_broken_file_is_named(tmp_path: Path, key: str, value: Any, words: str) -> None:
    cox = cox_json()
    cox["endpoints"]["os"]["hazard_ratios"][0][key] = value
    with pytest.raises(RunError, match=words):
        write_report(write_cox_run(tmp_path / "broken", metrics=metrics_json(), cox=cox))


def test_a_run_without_curves_has_no_figure_of_them(tmp_path: Path) -> None:
    metrics = metrics_json() | {"survival": None}
    text = write_report(write_cox_run(tmp_path / "old", metrics=metrics, cox=cox_json())).read_text(encoding="utf-8")
    assert "Kaplan-Meier" not in text
