"""A Cox regression over sites against the same in one place, and what a site refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clinical_cohorts import write_clinical_cohorts
from flwr.app import ConfigRecord, Message, RecordDict
from lifelines import CoxPHFitter
from rich.console import Console

from client.site import Site, read_site
from stsmm_core import protocol
from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.cohort.covariates import candidate_values
from stsmm_core.cohort.tcga_sarc import import_tcga_sarc
from stsmm_core.config import parse_experiment, read_experiment, to_toml
from stsmm_core.errors import RunError
from stsmm_core.protocol import cox
from stsmm_core.survival.kaplan_meier import kaplan_meier
from stsmm_core.training.inputs import open_cohorts
from stsmm_core.training.train import train_run

EXPERIMENT = """
seed = 5
data = {{ modalities = ["clinical"], variables = ["age", "sex", "grade", "size_cm", "depth", "radiotherapy"] }}
model.kind = "cox"
cox = {{ ties = "{ties}", ridge = 1.0, stratified = {stratified} }}
evaluation = {{ bootstrap_replicates = 100, scheme = "{scheme}", folds = 3 }}
"""


def experiment_of(*, ties="breslow", stratified="false", scheme="split"):
    return parse_experiment(EXPERIMENT.format(ties=ties, stratified=stratified, scheme=scheme), source="test")


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """Three hospitals without images: 130, 60 and 50 patients."""
    return write_clinical_cohorts(tmp_path_factory.mktemp("clinical"), (130, 60, 50))


def train(experiment, cohorts, out, cache):
    config = out.parent / f"{out.name}.toml"
    config.write_text(to_toml(experiment))
    train_run(Console(quiet=True), config, cohorts, out, cache=cache)


def read(run, name):
    return json.loads((run / name).read_text())


@pytest.mark.parametrize(
    "settings",
    [{}, {"ties": "efron", "scheme": "cv"}, {"stratified": "true"}],
    ids=["breslow", "efron, cross-validated", "stratified"],
)
def test_a_federation_gives_the_model_of_the_pooled_patients(settings, cohorts, federate, tmp_path, cache):
    experiment = experiment_of(**settings)
    train(experiment, [cohorts], tmp_path / "centralised", cache)
    federate(experiment, [cohorts], tmp_path / "federated")
    assert not (tmp_path / "federated" / "audit.jsonl").exists()
    pooled, together = (read(tmp_path / mode, "cox.json") for mode in ("centralised", "federated"))
    for endpoint in ("os", "dm"):
        expected, got = pooled["endpoints"][endpoint], together["endpoints"][endpoint]
        assert (got["patients"], got["events"]) == (expected["patients"], expected["events"])
        assert got["design"]["columns"] == expected["design"]["columns"]
        for key in ("coefficients", "standard_errors"):
            np.testing.assert_allclose(got["design"][key], expected["design"][key], rtol=0, atol=1e-9)
        assert got["baselines"].keys() == expected["baselines"].keys()
        for site in expected["baselines"]:
            np.testing.assert_allclose(got["baselines"][site], expected["baselines"][site], rtol=1e-9)
    alone, federated = (read(tmp_path / mode, "metrics.json") for mode in ("centralised", "federated"))
    assert list(alone["heads"]) == list(federated["heads"]) == ["cox"]
    for endpoint, figures in alone["heads"]["cox"].items():
        assert figures["harrell_c"] == federated["heads"]["cox"][endpoint]["harrell_c"]
    assert federated["test"]["os"]["harrell_c"]["value"] > 0.5
    assert len(federated["selected_rounds"]) == experiment.evaluation.runs


def assert_final_model_is_that_of_lifelines(run, experiment, cohorts):
    """Coefficients and standard errors of cox.json against lifelines on the rows of all cohorts."""
    fitted = read(run, "cox.json")
    every = open_cohorts([cohorts])
    moments = {key: tuple(value) for key, value in fitted["encoding"].items()}
    encoding = ClinicalEncoding(experiment.data.variables, moments)
    candidates = candidate_values(encoding, pd.concat([cohort.clinical for cohort in every]))
    for column, endpoint in enumerate(experiment.data.endpoints):
        outcomes = [cohort.outcomes(experiment.data.endpoints) for cohort in every]
        time = np.concatenate([each.time[:, column] for each in outcomes])
        event = np.concatenate([each.event[:, column] for each in outcomes])
        design = fitted["endpoints"][endpoint]["design"]
        values = candidates[:, design["columns"]][np.isfinite(time)]
        values = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
        table = pd.DataFrame(values).assign(time=time[np.isfinite(time)], event=event[np.isfinite(time)])
        expected = CoxPHFitter(penalizer=experiment.cox.ridge / len(table)).fit(
            table, "time", "event", fit_options={"precision": 1e-12, "r_precision": 1e-14}
        )
        np.testing.assert_allclose(design["coefficients"], expected.params_, rtol=0, atol=1e-6)
        np.testing.assert_allclose(design["standard_errors"], expected.standard_errors_, rtol=0, atol=1e-6)


def test_the_final_model_equals_lifelines_on_all_rows(cohorts, federate, tmp_path):
    experiment = experiment_of(ties="efron")
    federate(experiment, [cohorts], tmp_path / "run")
    assert_final_model_is_that_of_lifelines(tmp_path / "run", experiment, cohorts)
    fitted = read(tmp_path / "run", "cox.json")["endpoints"]["os"]
    columns = fitted["hazard_ratios"], fitted["design"]["coefficients"], fitted["design"]["scales"]
    for row, coefficient, scale in zip(*columns, strict=True):
        assert row["hazard_ratio"] == pytest.approx(np.exp(coefficient / scale))
        assert row["ci_low"] < row["hazard_ratio"] < row["ci_high"]


@pytest.mark.real_data
def test_the_four_sites_of_tcga_sarc_give_the_pooled_model(federate, tmp_path):
    source = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tcga_sarc"
    if not source.is_dir():
        pytest.skip("the real data are not beside the checkout (../shared/data)")
    import_tcga_sarc(source, tmp_path / "cohorts")
    experiment = read_experiment(Path(__file__).resolve().parents[2] / "configs" / "tcga_sarc_cox.toml")
    experiment = experiment.model_copy(
        update={
            "cox": experiment.cox.model_copy(update={"ties": "efron"}),
            "evaluation": experiment.evaluation.model_copy(update={"repeats": 1}),
        }
    )
    federate(experiment, [tmp_path / "cohorts"], tmp_path / "run")
    assert_final_model_is_that_of_lifelines(tmp_path / "run", experiment, tmp_path / "cohorts")
    test = read(tmp_path / "run", "metrics.json")["test"]
    for endpoint, patients in (("os", 112), ("dm", 111)):
        assert test[endpoint]["harrell_c"]["n"] == patients
        assert test[endpoint]["harrell_c"]["value"] > 0.6


def test_a_site_that_stops_answering_is_left_out_and_the_fit_begins_again(cohorts, federate, tmp_path):
    experiment = experiment_of()
    asked = []

    def deliver(site: int, message: Message, answer) -> Message:
        if message.metadata.message_type.endswith(cox.COX_SUMS_ACTION):
            asked.append(site)
            if site == 1 and asked.count(1) > 2:
                return Message(RecordDict(), reply_to=message)
        return answer()

    federate(experiment, [cohorts], tmp_path / "run", deliver=deliver)
    federate(experiment, [cohorts / "site_1", cohorts / "site_3"], tmp_path / "two")
    log = (tmp_path / "run" / "audit.jsonl").read_text()
    assert "it stopped answering" in log
    lost, two = (read(tmp_path / run, "cox.json")["endpoints"]["dm"]["patients"] for run in ("run", "two"))
    assert lost == two


def test_hospitals_share_times_of_five_patients_and_only_columns_of_five(hospitals, cohorts, federate, tmp_path, cache):
    said = []

    def deliver(site: int, message: Message, answer) -> Message:
        reply = answer()
        if message.metadata.message_type.endswith((cox.COX_SUMS_ACTION, cox.COX_COLUMNS_ACTION)):
            said.append((message, reply))
        return reply

    federate(experiment_of(), [cohorts], tmp_path / "run", deliver=deliver)
    sums = [(m, r) for m, r in said if m.metadata.message_type.endswith(cox.COX_SUMS_ACTION)]
    assert sums
    for question, reply in sums:
        if protocol.REFUSAL in reply.content:
            continue
        numbers = reply.content.metric_records[protocol.METRICS]
        asked = question.content.config_records[protocol.CONFIG]
        endpoint = "os" if asked["endpoint"] == 0 else "dm"
        if not any(asked[f"{endpoint}.coefficients"]):  # the sums of hazards then count patients
            at_risk = np.array([*numbers["at-risk.zeroth"], 0.0])
            leaving = -np.diff(at_risk)
            assert ((leaving < 1e-9) | (leaving >= 5 - 1e-9)).all()
    assert read(tmp_path / "run", "cox.json")["endpoints"]["os"]["largest_move_days"] > 0


def test_a_hospital_gives_no_risk_set_sums_unless_it_says_so(cohorts, federate, tmp_path, monkeypatch):
    def read_as_hospital(path: Path) -> Site:
        return read_site(path).model_copy(update={"min_cell_size": 5})

    monkeypatch.setattr("client.work.read_site", read_as_hospital)
    asked = []

    def deliver(site: int, message: Message, answer) -> Message:
        asked.append(message.metadata.message_type)
        return answer()

    with pytest.raises(RunError, match="overall survival: 0 sites can take part"):
        federate(experiment_of(), [cohorts], tmp_path / "run", deliver=deliver)
    assert not any(kind.endswith(cox.COX_SUMS_ACTION) for kind in asked)
    assert "gives no risk-set sums: cox.stratified = true" in (tmp_path / "run" / "audit.jsonl").read_text()
    federate(experiment_of(stratified="true"), [cohorts], tmp_path / "stratified")
    assert read(tmp_path / "stratified", "cox.json")["endpoints"]["os"]["patients"] > 0


def test_a_hospital_refuses_efrons_sums_over_a_few_patients(hospitals, cohorts, federate, tmp_path):
    with pytest.raises(RunError, match="overall survival: 0 sites can take part"):
        federate(experiment_of(ties="efron"), [cohorts], tmp_path / "run")
    assert "minimum cell size" in (tmp_path / "run" / "audit.jsonl").read_text()


def test_a_federated_run_shows_the_curves_of_the_pooled_patients(cohorts, federate, tmp_path):
    federate(experiment_of(), [cohorts], tmp_path / "run")
    survival = read(tmp_path / "run", "metrics.json")["survival"]
    outcomes = [cohort.outcomes(["os", "dm"]) for cohort in open_cohorts([cohorts])]
    for column, endpoint in enumerate(("os", "dm")):
        time = np.concatenate([each.time[:, column] for each in outcomes])
        event = np.concatenate([each.event[:, column] for each in outcomes])[np.isfinite(time)]
        expected = kaplan_meier(time=time[np.isfinite(time)], event=event)
        np.testing.assert_array_equal(survival[endpoint]["pooled"]["days"], expected.times)
        np.testing.assert_allclose(survival[endpoint]["pooled"]["survival"], expected.survival, atol=1e-12)
        assert survival[endpoint]["pooled"]["at_risk"][0] == len(event)
        assert list(survival[endpoint]["sites"]) == ["site_1", "site_2", "site_3"]
        assert survival[endpoint]["largest_move_days"] == 0


def test_the_curves_of_hospitals_have_steps_of_five_patients(hospitals, cohorts, federate, tmp_path):
    federate(experiment_of(), [cohorts], tmp_path / "run")
    survival = read(tmp_path / "run", "metrics.json")["survival"]["os"]
    assert survival["largest_move_days"] > 0
    for curve in survival["sites"].values():
        assert (-np.diff([*curve["at_risk"], 0]) >= 5).all()


def test_a_hospital_refuses_a_column_that_it_withholds(hospitals, cohorts, federate, tmp_path):
    experiment = experiment_of()
    data = experiment.data.model_copy(update={"variables": ("age", "histology")})
    rare_levels = experiment.model_copy(update={"data": data})
    withheld = {}

    def deliver(site: int, message: Message, answer) -> Message:
        if message.metadata.message_type.endswith(cox.COX_SUMS_ACTION):
            asked = message.content.config_records[protocol.CONFIG]
            rare = [place for place, small in enumerate(withheld[site]) if small][:1]
            name = "os" if asked["endpoint"] == 0 else "dm"
            stray = ConfigRecord(dict(asked) | {f"{name}.columns": rare})
            for key in ("means", "scales", "coefficients"):
                stray[f"{name}.{key}"] = [1.0]
            message.content[protocol.CONFIG] = stray
        reply = answer()
        if message.metadata.message_type.endswith(cox.COX_COLUMNS_ACTION) and site not in withheld:
            withheld[site] = list(reply.content.metric_records[protocol.METRICS]["withheld"])
        return reply

    with pytest.raises(RunError, match="0 sites can take part"):
        federate(rare_levels, [cohorts], tmp_path / "run", deliver=deliver)
    assert all(any(columns) for columns in withheld.values())
    log = (tmp_path / "run" / "audit.jsonl").read_text()
    assert log.count("minimum cell size") == 3


def test_a_hospital_with_a_few_events_takes_no_part_in_that_model(hospitals, cohorts, federate, tmp_path):
    shutil.copytree(cohorts, tmp_path / "cohorts")
    file = tmp_path / "cohorts" / "site_2" / "clinical.csv"
    table = pd.read_csv(file, dtype=str)
    table["os_event"] = "0"
    table.loc[:2, "os_event"] = "1"
    table.to_csv(file, index=False)
    federate(experiment_of(), [tmp_path / "cohorts"], tmp_path / "run")
    entries = [json.loads(line) for line in (tmp_path / "run" / "audit.jsonl").read_text().splitlines()]
    refused = {(entry["site"], entry["stage"]) for entry in entries if entry["reason"].startswith("refused")}
    assert refused == {("site_2", "columns of os")}
    fitted = read(tmp_path / "run", "cox.json")["endpoints"]
    assert fitted["os"]["patients"] == 130 + 50
    assert fitted["dm"]["patients"] > 180
