"""The test over all sites through the ServerApp, against the rows that the virtual sites kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from client.work import open_site
from stsmm_core.config import to_toml
from stsmm_core.prediction.predict import predict_run
from stsmm_core.run_folder import describe_inputs
from stsmm_core.survival.evaluation import evaluate, label
from stsmm_core.survival.predictions import Predictions, concatenate
from stsmm_core.survival.site_sums import predictions_of
from stsmm_core.training.certificate import exchange
from stsmm_core.training.evaluation_over_sites import horizons_in_days
from stsmm_core.training.fitted import load_fitted
from stsmm_core.training.inputs import open_cohorts

CV = {"scheme": "cv", "folds": 2, "horizons_years": (1.0, 2.0)}
SPLIT = {"horizons_years": (1.0, 2.0), "train_fraction": 0.4}


def records_of(run, experiment):
    text = to_toml(experiment.with_pretrained(""))
    centres = [open_site(site, text)[1] for site in sorted((run / "sites").glob("*.toml"))]
    return {centre.site: centre.records() for centre in centres}


def pooled_rows(records, test, experiment, column) -> tuple[Predictions, np.ndarray]:
    parts, offset = [], 0
    for site in records.values():
        rows = predictions_of(site, test.scale, test.development, column, horizons=horizons_in_days(experiment))
        parts.append(replace(rows, patient=rows.patient + offset))
        offset += len(site.tested)
    return concatenate(parts), np.concatenate([site.samples[column] for site in records.values()], axis=1)


@pytest.mark.parametrize("evaluation", [CV, SPLIT])
def test_a_run_equals_the_evaluation_of_its_rows(experiment, cohorts, federate, tmp_path, evaluation):
    experiment = experiment.model_copy(
        update={
            "evaluation": experiment.evaluation.model_copy(update=evaluation),
            "data": experiment.data.model_copy(update={"modalities": ("clinical",)}),
        }
    )
    run = tmp_path / "run"
    federate(experiment, [cohorts], run)
    metrics = json.loads((run / "metrics.json").read_text())
    records = records_of(run, experiment)
    test = exchange(records, experiment, minimum=1)
    given = 0
    for column, endpoint in enumerate(experiment.data.endpoints):
        rows, multiplicities = pooled_rows(records, test, experiment, column)
        pooled = evaluate(rows, horizons_years=experiment.evaluation.horizons_years, multiplicities=multiplicities)
        told = metrics["test"][endpoint]
        compared = {"harrell_c": told["pooled_c"]}
        for years in experiment.evaluation.horizons_years:
            at_horizon = told["horizons"][label(years)]
            compared |= {
                f"{name}_{label(years)}": at_horizon[name] for name in ("auc", "brier", "brier_null", "ipa", "oe")
            }
        for name, figure in compared.items():
            assert figure["bounds"] is None
            if figure["value"] is None:
                assert pooled[name].value is None
                continue
            given += 1
            assert figure["value"] == pytest.approx(pooled[name].value, abs=1e-9)
            assert figure["ci_low"] == pytest.approx(pooled[name].low, abs=1e-9)
            assert figure["ci_high"] == pytest.approx(pooled[name].high, abs=1e-9)
    assert given > 6
    assert {check["minimum"] for check in metrics["certificate"]} == {1}  # with 5 no such small site takes part
    assert max(check["difference"] for check in metrics["certificate"] if check["exact"]) < 1e-9
    for fold in range(experiment.evaluation.runs):
        fitted = load_fitted(run / "checkpoints" / f"fold-{fold}.json")
        assert fitted.reference == pytest.approx(tuple(test.scale.mean[fold, 0]), abs=1e-12)


def test_a_federated_run_can_be_predicted_with(experiment, cohorts, federate, tmp_path):
    run = tmp_path / "run"
    federate(experiment, [cohorts], run)
    inputs = describe_inputs("federated", open_cohorts([cohorts]))
    (run / "inputs.json").write_text(json.dumps(inputs))
    predict_run(Console(quiet=True), run, [cohorts / "site_1"], tmp_path / "new", patient=None, cache=None)
    table = (tmp_path / "new" / "predictions.csv").read_text()
    assert "how like the training patients is not known" in table
    assert len(table.splitlines()) > 1
