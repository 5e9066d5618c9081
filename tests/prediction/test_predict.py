"""stsmm predict: risks of new patients from a finished run, with their interval and what to be careful about."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from stsmm_core.cli import build_app
from stsmm_core.cohort.dictionary import PAPER_VARIABLES
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.errors import CohortError, RunError
from stsmm_core.prediction.model import dropout_risks, load_model, modality_batch, risk_and_features
from stsmm_core.prediction.patients import predict_patients, risk_table
from stsmm_core.prediction.predict import patients_by_remark
from stsmm_core.survival.baseline import breslow
from stsmm_core.training.inputs import open_cohorts
from stsmm_core.training.site_data import load_site_data

CONFIG = """
[imaging]
shape = [16, 16, 16]
steps = ["resampling", "zscore", "masking"]

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

[evaluation]
bootstrap_replicates = 100
horizons_years = [1.0, 3.0]
"""


def run(*arguments):
    result = CliRunner().invoke(build_app(), [str(each) for each in arguments], env={"COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on one cohort, and another cohort to predict."""
    root = tmp_path_factory.mktemp("trained")
    write_synthetic_cohorts(root / "cohorts", sites=2, patients=60, seed=4)
    (root / "config.toml").write_text(CONFIG)
    run("train", root / "config.toml", "--cohort", root / "cohorts" / "site_1", "--out", root / "run")
    return root


def predict(trained, out, *options):
    site = trained / "cohorts" / "site_2"
    output = run("predict", trained / "run", "--cohort", site, "--out", out, "--cache", trained / "cache", *options)
    return output, pd.read_csv(out / "predictions.csv", dtype={"patient_id": str}, keep_default_na=False)


@pytest.mark.slow
def test_every_patient_gets_a_risk_that_grows_with_time(trained, tmp_path):
    output, table = predict(trained, tmp_path / "out")
    rows = "\n".join(line for line in output.splitlines() if "│" in line)
    assert all(patient in rows for patient in table["patient_id"])
    assert set(table["patient_id"]) == set(open_cohorts([trained / "cohorts" / "site_2"])[0].patients)
    metastatic = open_cohorts([trained / "cohorts" / "site_2"])[0].clinical["metastasis_at_presentation"] == "1"
    assert metastatic.any()
    none = (table["endpoint"] == "dm") & table["patient_id"].map(metastatic)
    assert (table.loc[none, ["risk", "low", "high"]] == "").all(axis=None)
    table = table[~none]
    figures = table[["risk", "low", "high"]].astype(float)
    assert (figures["low"] <= figures["risk"]).all()
    assert (figures["risk"] <= figures["high"]).all()
    assert figures.stack().between(0, 1).all()
    assert (figures["high"] - figures["low"]).max() > 0.01
    wide = table.assign(risk=figures["risk"]).pivot(index=["patient_id", "endpoint"], columns="years", values="risk")
    assert (wide[3.0] >= wide[1.0]).all()
    page = (tmp_path / "out" / "predictions.html").read_text()
    assert "Not for clinical decisions" in page
    assert "No ensemble: the network that was tested is the one" in page


@pytest.mark.slow
def test_the_curve_is_that_of_the_development_patients_baseline(trained):
    """S(t) from the run's files equals Breslow's curve computed anew from the training cohort."""
    model = load_model(trained / "run")
    (fold,) = model.folds
    (cohort,) = open_cohorts([trained / "cohorts" / "site_1"])
    data = load_site_data(cohort, model.experiment, cache=trained / "cache")
    from stsmm_core.cohort.splits import make_folds

    (split,) = make_folds(cohort, model.experiment.evaluation, endpoints=("os", "dm"), seed=model.experiment.seed)
    development = np.concatenate([split.train, split.validation])
    risks = np.array(
        [risk_and_features(fold, modality_batch(data, row, fold, model.experiment))[0] for row in development]
    )
    outcomes = data.outcomes[development]
    baseline = breslow(risks[:, 0], time=outcomes.time[:, 0], event=outcomes.event[:, 0])
    expected = baseline.survival(risks[:5, 0], np.array(fold.fitted.times))
    np.testing.assert_allclose(fold.fitted.survival("os", risks[:5, 0]), expected, atol=1e-5)
    training = np.array(
        [risk_and_features(fold, modality_batch(data, row, fold, model.experiment))[0] for row in split.train]
    )
    np.testing.assert_allclose(training.mean(axis=0), 0, atol=1e-5)


@pytest.mark.slow
def test_dropout_draws_scatter_and_are_repeatable(trained):
    model = load_model(trained / "run")
    (fold,) = model.folds
    (cohort,) = open_cohorts([trained / "cohorts" / "site_2"])
    data = load_site_data(cohort, model.experiment, cache=trained / "cache")
    batch = modality_batch(data, 0, fold, model.experiment)
    first, second = (dropout_risks(fold, batch, draws=8, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.std(axis=0).min() > 0
    before, _ = risk_and_features(fold, batch)
    after, _ = risk_and_features(fold, batch)
    np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_one_patient_and_what_it_is_unlike(trained, tmp_path):
    site = trained / "cohorts" / "site_2"
    changed = tmp_path / "changed"
    shutil.copytree(site, changed)
    table = pd.read_csv(changed / "clinical.csv", dtype=str, keep_default_na=False)
    table.loc[0, ["age", "grade"]] = ["119", ""]
    table.to_csv(changed / "clinical.csv", index=False)
    patient = table.loc[0, "patient_id"]
    out = tmp_path / "out"
    output = run("predict", trained / "run", "--cohort", changed, "--out", out, "--patient", patient)
    remarks = pd.read_csv(out / "predictions.csv")["remarks"].unique()
    assert len(remarks) == 1
    assert "age at diagnosis lies" in remarks[0]
    assert "without fnclcc grade" in remarks[0].lower()
    assert "too sure" not in output
    with pytest.raises(CohortError, match="no cohort has a patient 'nobody'"):
        run("predict", trained / "run", "--cohort", changed, "--out", tmp_path / "no", "--patient", "nobody")


@pytest.mark.slow
def test_nothing_is_predicted_of_a_patient_of_whom_nothing_is_known(trained, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(trained / "cohorts" / "site_2", changed)
    table = pd.read_csv(changed / "clinical.csv", dtype=str, keep_default_na=False)
    patient = table.loc[0, "patient_id"]
    table.loc[0, [name for name in table.columns if name in PAPER_VARIABLES]] = ""
    table.to_csv(changed / "clinical.csv", index=False)
    shutil.rmtree(changed / "images" / patient, ignore_errors=True)
    out = tmp_path / "out"
    run("predict", trained / "run", "--cohort", changed, "--out", out, "--patient", patient)
    told = pd.read_csv(out / "predictions.csv")
    assert told["risk"].isna().all()
    assert told["remarks"].eq("no variable and no image is known: no prediction").all()
    assert pd.read_csv(out / "curves.csv")["survival"].dropna().empty


@pytest.mark.slow
def test_nothing_is_predicted_without_a_modality_that_the_network_cannot_do_without(trained):
    """The vector for an absent image is 0 until training compares patients with and without."""
    model = load_model(trained / "run")
    (cohort,) = open_cohorts([trained / "cohorts" / "site_2"])
    data = load_site_data(cohort, model.experiment, cache=trained / "cache")
    data = replace(data, has_image=np.arange(len(data.patients)) > 0)
    with torch.no_grad():
        model.folds[0].network.absent["image"].zero_()
    without, with_image = list(predict_patients(data, model))[:2]
    assert without.remarks == ("without image, and the network did not learn to do without it: no prediction",)
    assert np.isnan(without.survival).all()
    assert np.isfinite(with_image.survival).all()
    with torch.no_grad():
        model.folds[0].network.absent["image"].fill_(0.1)
    assert np.isfinite(next(predict_patients(data, model)).survival).all()


@pytest.mark.slow
def test_patients_that_trained_the_run_are_said(trained, tmp_path):
    site = trained / "cohorts" / "site_1"
    output = run("predict", trained / "run", "--cohort", site, "--out", tmp_path / "out", "--cache", trained / "cache")
    assert "too sure" in output
    assert "too sure" in (tmp_path / "out" / "predictions.html").read_text()


@pytest.mark.slow
def test_a_patient_who_has_metastasised_gets_no_risk_of_it(trained):
    """As in training and testing, where such a patient is out of the endpoint."""
    model = load_model(trained / "run")
    (cohort,) = open_cohorts([trained / "cohorts" / "site_2"])
    clinical = cohort.clinical.assign(metastasis_at_presentation="1")
    data = load_site_data(
        replace(cohort, clinical=clinical).subset(cohort.patients[:1]), model.experiment, cache=trained / "cache"
    )
    (found,) = list(predict_patients(data, model))
    table = risk_table([found], ("os", "dm"), (1.0, 3.0)).set_index("endpoint")[["risk", "low", "high"]]
    assert table.loc["dm"].isna().all(axis=None)
    assert table.loc["os"].notna().all(axis=None)
    assert found.remarks[0] == "metastatic at presentation, not at risk of dm: no prediction"


@pytest.mark.slow
def test_where_nothing_varies_there_is_no_interval(trained):
    """One network without dropout says one thing: an interval of no width would look like certainty."""
    model = load_model(trained / "run")
    for module in model.folds[0].network.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout3d):
            module.p = 0.0
    (cohort,) = open_cohorts([trained / "cohorts" / "site_2"])
    data = load_site_data(cohort.subset(cohort.patients[:1]), model.experiment, cache=trained / "cache")
    (found,) = list(predict_patients(data, model))
    assert np.isfinite(found.survival).all()
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()
    assert found.remarks[0].startswith("no interval: one network")
    table = risk_table([found], ("os", "dm"), (1.0, 3.0))
    assert table["risk"].notna().all()
    assert table["low"].isna().all()


@pytest.mark.slow
def test_an_endpoint_with_too_few_events_gets_no_risk(trained):
    """Without an event the baseline hazard is 0, and a risk of 0 % would be the answer for everybody."""
    model = load_model(trained / "run")
    (fold,) = model.folds
    assert fold.fitted.events["os"] > 4
    few = replace(model, folds=(replace(fold, fitted=replace(fold.fitted, events=fold.fitted.events | {"os": 4})),))
    (cohort,) = open_cohorts([trained / "cohorts" / "site_2"])
    data = load_site_data(cohort.subset(cohort.patients[:1]), model.experiment, cache=trained / "cache")
    (known,), (unknown,) = list(predict_patients(data, model)), list(predict_patients(data, few))
    table = risk_table([unknown], ("os", "dm"), (1.0, 3.0)).set_index("endpoint")
    assert table.loc["os", ["risk", "low", "high"]].isna().all(axis=None)
    assert np.array_equal(unknown.survival[1], known.survival[1])
    assert unknown.remarks[0] == "4 events of os among the development patients, 5 are needed: no prediction"
    assert unknown.remarks[1:] == known.remarks


@pytest.mark.slow
def test_runs_that_cannot_predict(trained, tmp_path):
    site = trained / "cohorts" / "site_2"
    (tmp_path / "joining" / "federated").mkdir(parents=True)
    (tmp_path / "joining" / "comparison.json").write_text("{}")
    with pytest.raises(RunError, match=r"give one of its runs, as .*federated"):
        run("predict", tmp_path / "joining", "--cohort", site, "--out", tmp_path / "out")
    with pytest.raises(RunError, match="no finished run of stsmm train, stsmm simulate or stsmm compare"):
        run("predict", tmp_path, "--cohort", site, "--out", tmp_path / "out")
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "fold-0.json").unlink()
    with pytest.raises(RunError, match="absolute risks need the baseline hazard"):
        run("predict", tmp_path / "run", "--cohort", site, "--out", tmp_path / "out")


def test_a_cox_regression_has_no_network_to_predict_with(tmp_path):
    (tmp_path / "config.toml").write_text('data.modalities = ["clinical"]\nmodel.kind = "cox"\n')
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(RunError, match=r"cox\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize("setting", ["local_normalisation = true", "personal_epochs = 3"])
def test_what_sites_kept_of_a_federation_is_missing_for_a_prediction(tmp_path, setting):
    """The weights in the run are not those that its baseline hazards are of."""
    (tmp_path / "config.toml").write_text(f"federation.{setting}\n")
    (tmp_path / "metrics.json").write_text('{"mode": "federated"}')
    with pytest.raises(RunError, match="of their own"):
        load_model(tmp_path)
    (tmp_path / "metrics.json").write_text('{"mode": "centralised"}')
    with pytest.raises(RunError, match="baseline hazard"):  # the settings mean nothing to a centralised run
        load_model(tmp_path)


@pytest.mark.slow
def test_a_remark_on_many_patients_is_said_once(trained):
    model = load_model(trained / "run")
    (cohort,) = open_cohorts([trained / "cohorts" / "site_2"])
    data = load_site_data(cohort.subset(cohort.patients[:3]), model.experiment, cache=trained / "cache")
    first, second, third = (
        replace(one, remarks=remarks)
        for one, remarks in zip(predict_patients(data, model), [("a", "b"), ("b",), ()], strict=True)
    )
    assert patients_by_remark([first, second, third]) == {
        "a": [f"site_2 {cohort.patients[0]}"],
        "b": [f"site_2 {patient}" for patient in cohort.patients[:2]],
    }
