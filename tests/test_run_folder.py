import dataclasses
import json
import os
import shutil
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from stsmm_core.cohort.cohort import Cohort, write_cohort_tables
from stsmm_core.cohort.manifest import Manifest
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.config import Experiment, parse_experiment
from stsmm_core.errors import RunError
from stsmm_core.run_folder import cohort_fingerprint, describe_inputs, open_run, software_versions

EXPERIMENT = Experiment()
INPUTS = {"mode": "centralised", "cohorts": [{"site": "north", "fingerprint": "0" * 64}]}


@pytest.fixture
def cohort(tmp_path) -> Cohort:
    root = tmp_path / "cohort"
    manifest = Manifest(
        schema_version=1, name="test", site="north", channels=("t1",), endpoints=("os",), time_zero="surgery"
    )
    table = pd.DataFrame({"patient_id": ["P1", "P2", "P3"], "age": [50, 60, 70], "os_days": [1, 2, 3], "os_event": 1})
    write_cohort_tables(root, manifest, table)
    for patient in ("P1", "P2"):
        for name in ("t1", "mask"):
            path = root / "images" / patient / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{patient} {name}".encode())
    return load_cohort(root)


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.name != ".lock"}


def test_a_file_where_the_run_should_be(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with (
        pytest.raises(RunError, match=r"taken: cannot be made a run folder \(File exists\)"),
        open_run(tmp_path / "taken", Experiment(), {}),
    ):
        pass


def test_a_new_run_says_what_it_is_made_of(tmp_path):
    run = tmp_path / "runs" / "new"
    with open_run(run, EXPERIMENT, INPUTS):
        pass
    assert set(contents(run)) == {"config.toml", "inputs.json", "versions.json"}
    assert parse_experiment((run / "config.toml").read_text(), source="run") == EXPERIMENT
    assert json.loads((run / "inputs.json").read_text()) == INPUTS
    assert json.loads((run / "versions.json").read_text()) == software_versions()


def test_versions_name_what_computes_the_numbers():
    versions = software_versions()
    assert {"python", "stsmm", "torch", "flwr", "numpy", "monai"} <= set(versions)
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    assert versions["stsmm"] == project["version"]


def test_the_same_experiment_goes_on(tmp_path):
    run = tmp_path / "run"
    with open_run(run, EXPERIMENT, INPUTS):
        (run / "history.csv").write_text("kept")
    before = contents(run)
    with open_run(run, Experiment(), dict(INPUTS)):
        pass
    assert contents(run) == before


def test_the_folder_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), open_run(tmp_path / "run", EXPERIMENT, INPUTS):
        _ = 1 / 0
    with open_run(tmp_path / "run", EXPERIMENT, INPUTS):
        pass


@pytest.mark.parametrize(
    ("experiment", "inputs"),
    [(Experiment(seed=1), INPUTS), (EXPERIMENT, INPUTS | {"mode": "simulation"}), (EXPERIMENT, {})],
)
def test_another_run_in_the_folder_is_refused_and_untouched(tmp_path, experiment, inputs):
    run = tmp_path / "run"
    with open_run(run, EXPERIMENT, INPUTS):
        pass
    before = contents(run)
    with (
        pytest.raises(RunError, match=r"holds a run (with another configuration|on other data)"),
        open_run(run, experiment, inputs),
    ):
        pytest.fail("the run must not start")
    assert contents(run) == before


def test_a_folder_of_other_things_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.docx").write_text("precious")
    with pytest.raises(RunError, match="not empty and is not a run"), open_run(tmp_path, EXPERIMENT, INPUTS):
        pytest.fail("the run must not start")
    assert contents(tmp_path) == {"thesis.docx": b"precious"}


def test_a_start_that_was_killed_half_way_is_taken_up(tmp_path):
    run = tmp_path / "run"
    with open_run(run, EXPERIMENT, INPUTS):
        pass
    whole = contents(run)
    (run / "config.toml").unlink()
    with open_run(run, EXPERIMENT, INPUTS):
        pass
    assert contents(run) == whole


def test_a_run_does_not_go_on_with_other_software_but_can_be_looked_at(tmp_path):
    run = tmp_path / "run"
    with open_run(run, EXPERIMENT, INPUTS):
        pass
    (run / "versions.json").write_text(json.dumps(software_versions() | {"torch": "1.0"}, indent=2))
    with pytest.raises(RunError, match="other software versions"), open_run(run, EXPERIMENT, INPUTS):
        pytest.fail("the run must not start")
    (run / "metrics.json").write_text("{}")
    with open_run(run, EXPERIMENT, INPUTS):
        pass


def test_an_empty_folder_will_do(tmp_path):
    with open_run(tmp_path, EXPERIMENT, INPUTS):
        assert (tmp_path / "config.toml").exists()


def test_two_commands_cannot_write_into_one_run(tmp_path):
    run = tmp_path / "run"
    with open_run(run, EXPERIMENT, INPUTS):
        with pytest.raises(RunError, match="in use"), open_run(run, EXPERIMENT, INPUTS):
            pytest.fail("the run must not start")
        with open_run(tmp_path / "other", EXPERIMENT, INPUTS):
            pass


def test_fingerprint_is_of_the_content_not_the_place(tmp_path, cohort):
    shutil.copytree(cohort.root, tmp_path / "elsewhere")
    assert cohort_fingerprint(load_cohort(tmp_path / "elsewhere")) == cohort_fingerprint(cohort)


def change_a_cell(root: Path) -> None:
    table = root / "clinical.csv"
    table.write_text(table.read_text().replace("60", "61"))


def change_the_manifest(root: Path) -> None:
    manifest = root / "cohort.toml"
    manifest.write_text(manifest.read_text().replace("surgery", "diagnosis"))


def touch_an_image(root: Path) -> None:
    os.utime(root / "images" / "P2" / "t1.nii.gz", ns=(1, 1))


def grow_an_image(root: Path) -> None:
    image = root / "images" / "P1" / "mask.nii.gz"
    status = image.stat()
    image.write_bytes(image.read_bytes() + b"0")
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))


def add_an_image(root: Path) -> None:
    shutil.copytree(root / "images" / "P1", root / "images" / "P3")


def remove_an_image(root: Path) -> None:
    shutil.rmtree(root / "images" / "P2")


def swap_two_patients(root: Path) -> None:
    folder = root / "images"
    (folder / "P1").rename(folder / "tmp")
    (folder / "P2").rename(folder / "P1")
    (folder / "tmp").rename(folder / "P2")


@pytest.mark.parametrize(
    "change",
    [
        change_a_cell,
        change_the_manifest,
        touch_an_image,
        grow_an_image,
        add_an_image,
        remove_an_image,
        swap_two_patients,
    ],
)
def test_fingerprint_changes_with_the_cohort(cohort, change):
    before = cohort_fingerprint(cohort)
    change(cohort.root)
    assert cohort_fingerprint(load_cohort(cohort.root)) != before


def test_virtual_centres_of_one_cohort_differ(cohort):
    prints = {cohort_fingerprint(cohort.subset(part)) for part in (["P1"], ["P2"], ["P1", "P2"], ["P3"])}
    assert len(prints) == 4


def test_inputs_name_sites_and_no_path(cohort):
    south = dataclasses.replace(cohort, manifest=cohort.manifest.model_copy(update={"site": "south"}))
    inputs = describe_inputs("simulation", [cohort, south])
    assert inputs["mode"] == "simulation"
    assert [entry["site"] for entry in inputs["cohorts"]] == ["north", "south"]
    text = json.dumps(inputs)
    assert str(cohort.root) not in text
    assert "P1" not in text
