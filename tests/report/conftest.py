"""Finished run folders of four kinds, written by hand: nothing of the code under test makes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparison_folder import comparison, write_comparison
from history_file import VERSIONS, write_history
from metrics_file import concordance, no_pairs, site

from stsmm_core.report.comparison.comparison_report import write_comparison_report

CONFIG = """
seed = 11

[data]
endpoints = ["os", "dm"]
modalities = {modalities}
variables = ["age", "grade"]

[training]
epochs = 20

[blending]
interval = 2

[evaluation]
scheme = "{scheme}"
"""


def write_run(run: Path, metrics: dict[str, Any], *, scheme: str = "split") -> Path:
    run.mkdir()
    heads = list(metrics["heads"])
    config = CONFIG.format(modalities=json.dumps(heads[1:]), scheme=scheme)
    (run / "config.toml").write_text(config, encoding="utf-8")
    (run / "versions.json").write_text(json.dumps(VERSIONS), encoding="utf-8")
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    write_history(run, heads, metrics["first_blending_rounds"])
    return run


def federated_metrics() -> dict[str, Any]:
    fusion = {
        "os": concordance(0.7149, 0.6251, 0.7948),
        "dm": concordance(0.6612, 0.4808, 0.8013, events=21, pairs=402),
    }
    return {
        "mode": "federated",
        "cohorts": [site("site_1"), site("Hôpital <b>& Cie</b>", 100), site("site_3", 80)],
        "test": fusion,
        "heads": {
            "fusion": fusion,
            "image": {"os": concordance(0.5531, 0.4402, 0.6613, n=44), "dm": concordance(0.5622, 0.4507, 0.6711, n=44)},
            "clinical": {"os": concordance(0.6907, 0.5903, 0.7804), "dm": concordance(0.6418, 0.5302, 0.7406)},
        },
        "oracle": {"os": 0.7832, "dm": 0.7714},
        "tested_sites": ["site_1", "Hôpital <b>& Cie</b>", "site_3"],
        "selected_rounds": [7],
        "first_blending_rounds": [2],
        "wall_s": 93.2,
        "rounds": 20,
    }


@pytest.fixture
def metrics() -> dict[str, Any]:
    """Metrics of a federated run, free to be changed by a test before it is written."""
    return federated_metrics()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder from metrics and return it."""

    def folder(metrics: dict[str, Any], name: str = "run_of_a_test", **options: Any) -> Path:
        return write_run(tmp_path / name, metrics, **options)

    return folder


@pytest.fixture(scope="session")
def untouched_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The federated run for tests that only read its page."""
    return write_run(tmp_path_factory.mktemp("session") / "run_of_a_test", federated_metrics())


@pytest.fixture
def federated_run(write: Callable[..., Path]) -> Path:
    """Three sites, one split, synthetic data, one site with mark-up in its name."""
    return write(federated_metrics())


@pytest.fixture
def cv_run(write: Callable[..., Path]) -> Path:
    """Centralised five-fold cross-validation on real data; one fold never updated its weights."""
    metrics = federated_metrics()
    metrics |= {
        "mode": "centralised",
        "cohorts": [site("sts_public", 71)],
        "oracle": None,
        "tested_sites": ["sts_public"],
        "selected_rounds": [7, 9, 3, 12, 8],
        "first_blending_rounds": [2, 4, None, 2, 6],
        "wall_s": 4000.0,
    }
    return write(metrics, scheme="cv")


@pytest.fixture
def clinical_only_run(write: Callable[..., Path]) -> Path:
    """No image modality, and a test set without a comparable pair for metastasis."""
    metrics = federated_metrics()
    for results in metrics["heads"].values():
        results["dm"] = no_pairs("no event among the test patients at any site")
    metrics["test"] = metrics["heads"]["fusion"]
    del metrics["heads"]["image"]
    metrics["oracle"] = None
    return write(metrics)


@pytest.fixture
def suppressed_run(write: Callable[..., Path]) -> Path:
    """One site below its minimum cell size in several counts."""
    metrics = federated_metrics()
    small = metrics["cohorts"][1]
    small["events"]["os"] = None
    small["with_image"] = None
    small["image_flags"]["volume"] = None
    small["variables"]["grade"]["levels"]["low"] = None
    small["variables"]["age"] = {"n": None, "mean": None, "sd": None}
    return write(metrics)


@pytest.fixture(scope="session")
def comparison_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison on one split, with its report; for tests that only read."""
    folder = write_comparison(tmp_path_factory.mktemp("comparison") / "run_of_a_test", comparison())
    write_comparison_report(folder)
    return folder


@pytest.fixture(scope="session")
def comparison_cv_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison by cross-validation, without curves, with its report; for tests that only read."""
    folder = tmp_path_factory.mktemp("comparison") / "cv"
    write_comparison(folder, {**comparison("cv"), "curves": {}}, scheme="cv")
    write_comparison_report(folder)
    return folder
