"""stsmm compare, whole: every model on the same patients, nothing learned from those who test it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from rich.console import Console
from typer.testing import CliRunner

from stsmm_core.cli import build_app
from stsmm_core.cohort.cohort import Outcomes
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.comparators.description import cohort_columns, flow, follow_up
from stsmm_core.comparators.networks import BLENDED, NETWORKS, train_network
from stsmm_core.comparators.out_of_fold import comparator_outcomes, network_outcomes
from stsmm_core.comparators.specification import COMPARATORS
from stsmm_core.comparators.study import pool_study
from stsmm_core.config import parse_experiment
from stsmm_core.errors import StsmmError
from stsmm_core.survival.predictions import Predictions
from stsmm_core.training.inputs import open_cohorts
from stsmm_core.training.train import load_centres

CONFIG = """
[imaging]
shape = [16, 16, 16]
steps = ["resampling", "zscore", "masking"]

[imaging.augmentation]
rotation_degrees = 0.0
zoom = 0.0

[model]
image_encoder = "small_densenet"

[training]
epochs = 2
batch_size = 16
risk_window = 16
optimizer = "adamw"
learning_rate = 0.01

[blending]
interval = 1
bootstrap_replicates = 20

[comparators]
trees = 10
strengths = 3
inner_folds = 2
min_events = 3

[evaluation]
scheme = "cv"
folds = 2
bootstrap_replicates = 100
horizons_years = [2.0, 5.0]
"""


def run(*arguments):
    result = CliRunner().invoke(build_app(), [str(each) for each in arguments], env={"COLUMNS": "160"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """A folder with cohorts of two sites, a configuration and a finished comparison."""
    root = tmp_path_factory.mktemp("compared")
    write_synthetic_cohorts(root / "cohorts", sites=2, patients=48, seed=2)
    (root / "config.toml").write_text(CONFIG)
    output = run(
        *("compare", root / "config.toml", "--cohort", root / "cohorts", "--out", root / "run"),
        *("--cache", root / "cache", "--second-reader", root / "cohorts" / "site_1"),
    )
    (root / "output.txt").write_text(output)
    return root


@pytest.fixture(scope="session")
def comparison(compared):
    return json.loads((compared / "run" / "comparison.json").read_text())


@pytest.mark.slow
def test_every_model_is_tested_on_the_same_patients(comparison):
    assert [model["key"] for model in comparison["models"]] == [network.key for network in NETWORKS] + list(COMPARATORS)
    for endpoint in ("os", "dm"):
        figures = [results[endpoint]["harrell_c"] for results in comparison["results"].values()]
        assert len({(figure["n"], figure["events"]) for figure in figures}) == 1
        assert all(
            0 <= figure["value"] <= 1 and figure["low"] <= figure["value"] <= figure["high"] for figure in figures
        )
        against = [each["against"] for each in comparison["differences"][endpoint]]
        assert against == [key for key in comparison["results"] if key != BLENDED]


@pytest.mark.slow
def test_what_became_of_the_features_is_on_record(compared, comparison):
    """The second reader drew the same outlines: every feature that varies is kept, and the page says so."""
    versions = json.loads((compared / "run" / "versions.json").read_text())
    assert {"scikit-survival", "pyradiomics-bhklab", "captum"} <= set(versions)
    measured, used = comparison["radiomics"]["measured"], comparison["radiomics"]["used"]
    assert comparison["radiomics"]["second_reader"]
    assert len(used) == 2
    assert all(150 < each <= measured for each in used)
    assert f"of {measured} were used" in (compared / "run" / "report.html").read_text()


@pytest.mark.slow
def test_differences_are_those_of_the_figures(comparison):
    for endpoint, differences in comparison["differences"].items():
        own = comparison["results"][BLENDED][endpoint]["harrell_c"]["value"]
        for each in differences:
            other = comparison["results"][each["against"]][endpoint]["harrell_c"]["value"]
            assert each["difference"]["value"] == pytest.approx(own - other, abs=1e-12)


@pytest.mark.slow
def test_what_may_be_passed_on_names_no_patient(compared):
    run_folder = compared / "run"
    shown = [path for path in run_folder.rglob("*") if path.is_file() and "private" not in path.parts]
    assert len(shown) > 20
    content = b"".join(str(path.relative_to(run_folder)).encode() + path.read_bytes() for path in shown)
    content += (compared / "output.txt").read_bytes()
    cohorts = open_cohorts([compared / "cohorts"])
    for patient in (patient for cohort in cohorts for patient in cohort.patients):
        assert patient in (run_folder / "private" / "predictions.csv").read_text()
        assert patient.encode() not in content
    assert str(compared / "cohorts").encode() not in content
    assert list((run_folder / "private" / "maps").glob("*.png"))


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers(compared, comparison):
    run(
        *("compare", compared / "config.toml", "--cohort", compared / "cohorts"),
        *("--out", compared / "again", "--cache", compared / "cache"),
        *("--second-reader", compared / "cohorts" / "site_1"),
    )
    again = json.loads((compared / "again" / "comparison.json").read_text())
    assert {**again, "wall_s": None} == {**comparison, "wall_s": None}


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.key)
def test_labels_of_test_patients_reach_nothing_that_is_trained(compared, tmp_path, network):
    """The test patients' outcomes are replaced by nonsense: no weight, risk, baseline, null or censoring moves."""
    experiment = parse_experiment(CONFIG.replace('scheme = "cv"', 'scheme = "split"'), source="test")
    cohorts = open_cohorts([compared / "cohorts"])
    centres = load_centres(Console(quiet=True), experiment, cohorts, tmp_path / "a", cache=compared / "cache")
    planted = []
    for centre in centres:
        outcomes, (fold,) = centre.data.outcomes, centre.folds
        time, event = outcomes.time.copy(), outcomes.event.copy()
        time[fold.test] = np.where(np.isfinite(time[fold.test]), 1.0, np.nan)
        event[fold.test] = np.where(np.isfinite(time[fold.test]), 1.0, np.nan)
        planted.append(replace(centre, data=replace(centre.data, outcomes=Outcomes(time, event))))
    pairs = []
    for name, each in (("a", centres), ("b", planted)):
        study = pool_study(each)
        (model,) = train_network(Console(quiet=True), network, each, tmp_path / name)
        fitted = (tmp_path / name / "checkpoints" / "fold-0.json").read_text()
        pairs.append((model, fitted, network_outcomes(study, [model])))
    (model, fitted, outcomes), (other, other_fitted, other_outcomes) = pairs
    for name, weights in model.progress.selected.items():
        np.testing.assert_array_equal(weights, other.progress.selected[name])
    assert model.progress.history == other.progress.history
    assert fitted == other_fitted
    np.testing.assert_array_equal(model.risks, other.risks)
    for endpoint, one in outcomes.items():
        assert isinstance(one, Predictions)
        for part in ("risk", "absolute_risk", "null_risk", "censoring_at", "last_development_time"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other_outcomes[endpoint], part))
        assert not np.array_equal(one.time, other_outcomes[endpoint].time)


@pytest.mark.slow
def test_an_ensemble_is_tested_by_the_mean_risk_of_its_members(compared, tmp_path):
    experiment = parse_experiment(CONFIG + "members = 2\n", source="test")
    cohorts = open_cohorts([compared / "cohorts"])
    centres = load_centres(Console(quiet=True), experiment, cohorts, tmp_path, cache=compared / "cache")
    study = pool_study(centres)
    models = train_network(Console(quiet=True), NETWORKS[0], centres, tmp_path)
    assert (len(study.folds), len(models)) == (2, 4)
    assert not np.array_equal(models[0].risks, models[1].risks)
    predictions = network_outcomes(study, models)["os"]
    for fold in range(2):
        rows = study.test(fold, 0)
        own = predictions.stratum // len(study.sites) == fold
        np.testing.assert_array_equal(predictions.patient[own], rows)
        both = [model.risks[rows, 0] for model in models[2 * fold : 2 * fold + 2]]
        np.testing.assert_allclose(predictions.risk[own], np.mean(both, axis=0), rtol=1e-12)


@pytest.mark.slow
def test_sets_and_follow_up_of_one_split_with_an_ensemble(compared, tmp_path):
    """Each member divides the development patients anew; who died was followed to the end for metastasis too."""
    split = CONFIG.replace('scheme = "cv"', 'scheme = "split"')
    cohorts = open_cohorts([compared / "cohorts"])
    studies = [
        pool_study(load_centres(Console(quiet=True), each, cohorts, tmp_path, cache=compared / "cache"))
        for each in (parse_experiment(split, source="test"), parse_experiment(split + "members = 2\n", source="test"))
    ]
    alone, ensemble = (flow(study) for study in studies)
    assert alone["train"] + alone["validation"] == alone["development"] == ensemble["development"]
    assert (ensemble["train"], ensemble["validation"], ensemble["test"]) == (None, None, alone["test"])
    names = [[column["column"] for column in cohort_columns(study)][:3] for study in studies]
    assert names == [["training", "validation", "test"], ["development", "test", "site_1"]]
    time, event = studies[0].data.outcomes.time[:, 1], studies[0].data.outcomes.event
    known = np.isfinite(time)
    dead = KaplanMeierFitter().fit(time[known], (event[known] == 0).all(axis=1))
    assert follow_up(studies[0])["dm"]["median"] == pytest.approx(dead.median_survival_time_)


@pytest.mark.slow
def test_labels_of_development_patients_do(compared, tmp_path):
    """The test above could pass with models that ignore every label."""
    experiment = parse_experiment(CONFIG.replace('scheme = "cv"', 'scheme = "split"'), source="test")
    cohorts = open_cohorts([compared / "cohorts"])
    centres = load_centres(Console(quiet=True), experiment, cohorts, tmp_path / "a", cache=compared / "cache")
    changed = []
    for centre in centres:
        time = centre.data.outcomes.time.copy()
        rows = centre.folds[0].train
        time[rows] = time[rows][::-1]
        event = np.where(np.isfinite(time), np.nan_to_num(centre.data.outcomes.event), np.nan)
        changed.append(replace(centre, data=replace(centre.data, outcomes=Outcomes(time, event))))
    risks = [
        comparator_outcomes(pool_study(each), COMPARATORS["clinical_ridge"], [None])["os"].risk
        for each in (centres, changed)
    ]
    assert not np.allclose(*risks)


def test_a_comparison_needs_both_modalities(tmp_path):
    (tmp_path / "config.toml").write_text('data.modalities = ["clinical"]\n')
    with pytest.raises(StsmmError, match="a comparison is of image and clinical data"):
        run("compare", tmp_path / "config.toml", "--cohort", tmp_path, "--out", tmp_path / "run")
