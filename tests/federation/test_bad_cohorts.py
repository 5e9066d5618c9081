"""What a run does with cohorts that are legal but poor, and with such that are not."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from stsmm_core.config import to_toml
from stsmm_core.errors import CohortError, RunError
from stsmm_core.training.train import train_run


@pytest.fixture
def change(cohorts, tmp_path):
    """Copy the consortium and change one site's table."""

    def changed(site, edit):
        out = tmp_path / "changed"
        shutil.copytree(cohorts, out)
        table = pd.read_csv(out / site / "clinical.csv", dtype=str, keep_default_na=False)
        edit(table, out / site).to_csv(out / site / "clinical.csv", index=False)
        return out

    return changed


@pytest.fixture
def quick(experiment):
    return experiment.model_copy(update={"training": experiment.training.model_copy(update={"epochs": 2})})


def metrics_of(run):
    state = torch.load(run / "checkpoints" / "fold-0.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state["weights"].values())
    return json.loads((run / "metrics.json").read_text())


def drop_images(root, patients):
    for patient in patients:
        shutil.rmtree(root / "images" / patient, ignore_errors=True)


def test_a_site_without_any_image_trains(quick, change, federate, tmp_path):
    def edit(table, root):
        drop_images(root, table["patient_id"])
        return table

    federate(quick, [change("site_2", edit)], tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert [cohort["with_image"] == 0 for cohort in metrics["cohorts"]] == [False, True, False]
    image, fusion = (metrics["heads"][head]["os"]["harrell_c"]["n"] for head in ("image", "fusion"))
    assert image < fusion


def test_a_cohort_of_one_image_trains(quick, change, cache, tmp_path):
    """A batch in which a single patient has the modality has no batch statistics."""

    def edit(table, root):
        drop_images(root, table["patient_id"][1:])
        return table

    batch_norm = quick.model_copy(update={"model": quick.model.model_copy(update={"norm": "batch"})})
    (tmp_path / "c.toml").write_text(to_toml(batch_norm))
    train_run(
        Console(quiet=True), tmp_path / "c.toml", [change("site_2", edit) / "site_2"], tmp_path / "run", cache=cache
    )
    metrics_of(tmp_path / "run")


def test_a_centre_of_three_patients_takes_part(quick, change, federate, tmp_path):
    def edit(table, root):
        drop_images(root, table["patient_id"][3:])
        return table[:3]

    federate(quick, [change("site_3", edit)], tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert [cohort["patients"] for cohort in metrics["cohorts"]][2] == 3


def test_a_site_without_an_event_takes_part_and_adds_nothing(quick, change, federate, tmp_path):
    def edit(table, root):
        return table.assign(os_event=np.where(table["os_event"] == "", "", "0"),
                            dm_event=np.where(table["dm_event"] == "", "", "0"))  # fmt: skip

    federate(quick, [change("site_2", edit)], tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert metrics["cohorts"][1]["events"] == {"os": 0, "dm": 0}
    assert not (tmp_path / "run" / "audit.jsonl").exists()


def test_a_site_whose_events_look_inverted_is_warned_of(quick, change, federate, tmp_path):
    def edit(table, root):
        late = table["os_days"].astype(float).rank() > len(table) / 3
        return table.assign(os_event=np.where(late, "1", "0"))

    federate(quick, [change("site_1", edit)], tmp_path / "run")
    (entry,) = [json.loads(line) for line in (tmp_path / "run" / "audit.jsonl").read_text().splitlines()]
    assert (entry["site"], entry["decision"], entry["round"]) == ("site_1", "warning", 0)
    assert "os_event" in entry["reason"]


def test_no_event_anywhere_is_refused(quick, change, cache, tmp_path):
    def edit(table, root):
        return table.assign(os_event="0", dm_event=np.where(table["dm_event"] == "", "", "0"))

    (tmp_path / "c.toml").write_text(to_toml(quick))
    with pytest.raises(RunError, match="no training patient of any site has an event of os or dm"):
        train_run(
            Console(quiet=True), tmp_path / "c.toml", [change("site_2", edit) / "site_2"], tmp_path / "run", cache=cache
        )
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_site_that_records_one_endpoint_takes_part(quick, change, federate, tmp_path):
    def edit(table, root):
        manifest = (root / "cohort.toml").read_text()
        begin = manifest.index("endpoints")
        end = manifest.index("]", begin) + 1
        (root / "cohort.toml").write_text(manifest[:begin] + 'endpoints = ["os"]' + manifest[end:])
        return table.drop(columns=["dm_days", "dm_event"])

    federate(quick, [change("site_1", edit)], tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert metrics["cohorts"][0]["events"]["dm"] == 0
    both = (metrics["test"][endpoint]["harrell_c"]["n"] for endpoint in ("os", "dm"))
    assert next(both) > next(both)


def test_faults_stop_the_run_before_it_starts(quick, change, cache, tmp_path):
    def edit(table, root):
        return table.assign(grade="IV")

    (tmp_path / "c.toml").write_text(to_toml(quick))
    root = change("site_2", edit)
    with pytest.raises(CohortError, match="grade") as caught:
        train_run(Console(quiet=True), tmp_path / "c.toml", [root], tmp_path / "run", cache=cache)
    patients = pd.read_csv(root / "site_2" / "clinical.csv", dtype=str)["patient_id"]
    assert all(patient in str(caught.value) for patient in patients)
    assert not (tmp_path / "run").exists()
