"""The cohort commands as a person at a hospital runs them, and the numbers in the description."""

import math
import re

import lifelines
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from stsmm_core.cohort.cli import app
from stsmm_core.cohort.description import describe_cohort, median_follow_up
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.errors import CohortError


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows_by_label(folder):
    return {row.label: row for row in describe_cohort(load_cohort(folder.root))}


def test_check_of_a_valid_cohort(make_cohort):
    folder = make_cohort(12)
    result = run("check", folder.root)
    assert result.exit_code == 0
    assert result.output == f"{folder.root}: 0 faults, 0 notes. The cohort can be used.\n"


def test_check_prints_faults_then_notes_and_fails(make_cohort, mask):
    folder = make_cohort(3)
    folder.set_cell("P01", "grade", "G[3]")
    folder.write_image("P02", "t1_mask", mask * 0)
    result = run("check", folder.root)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["fault", "fault", "note"]
    assert "clinical.csv, patient P01, column grade: 'G[3]' is not a level" in lines[0]
    assert "images/P02/t1_mask.nii.gz, patient P02: is empty" in lines[1]
    assert lines[3] == f"{folder.root}: 2 faults, 1 note. Mend the faults, then check again."


def test_describe_prints_what_a_clinician_expects(make_cohort):
    folder = make_cohort(4)
    result = CliRunner(env={"COLUMNS": "140"}).invoke(app, ["describe", str(folder.root)])
    assert result.exit_code == 0
    for part in ("Cohort test, site north", "Age at diagnosis (years)", "42.5 (1.3) / 42.5 (41.8-43.2)", "t1, t2"):
        assert part in result.output


def test_description_counts(make_cohort):
    folder = make_cohort(4)
    folder.set_cell("P02", "grade", "")
    folder.set_cell("P03", "grade", "low")
    folder.set_cell("P01", "dm_days", "")
    folder.set_cell("P01", "dm_event", "")
    folder.set_column("depth", "")
    rows = rows_by_label(folder)
    assert rows["Patients"].value == "4"
    assert rows["With images"].value == "4 of 4 (100 %)"
    # P01 and P03 die; 901 + 902 + 903 + 904 days are 9.883 years.
    assert rows["Overall survival: events"].value == "2 of 4 (50 %), 20.2 per 100 patient-years"
    # Without P01: P04 alone metastasises; 302 + 303 + 304 days are 2.489 years.
    assert rows["Distant metastasis: events"].value == "1 of 3 (33 %), 40.2 per 100 patient-years"
    assert rows["Distant metastasis: events"].missing == 1
    assert rows["FNCLCC grade: n (% of known)"].missing == 1
    assert rows["  low"].value == "1 of 3 (33 %)"
    assert rows["  high"].value == "2 of 3 (67 %)"
    assert (rows["Depth: n (% of known)"].value, rows["Depth: n (% of known)"].missing) == ("none known", 4)


def test_description_of_one_patient(make_cohort):
    row = rows_by_label(make_cohort(1))["Age at diagnosis (years): mean (SD) / median (IQR)"]
    assert row.value == "41.0 (-) / 41.0 (41.0-41.0)"


def test_describe_refuses_a_cohort_with_faults(make_cohort):
    folder = make_cohort(3)
    folder.set_cell("P01", "sex", "x")
    result = run("describe", folder.root)
    assert result.exit_code == 1
    assert isinstance(result.exception, CohortError)
    assert "patient P01, column sex" in str(result.exception)


def test_median_follow_up_by_hand():
    # Censored at 2 (of 4 still followed), 3 (of 2), 4: 3/4, then 3/4 · 1/2 = 0.375.
    assert median_follow_up(np.array([2.0, 2.5, 3.0, 4.0]), np.array([0.0, 1.0, 0.0, 0.0])) == 3.0
    # 2/3 · 3/4 is one half although floating point may say a little more.
    assert median_follow_up(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 0.0, 1.0, 1.0])) == 2.0


def test_median_follow_up_not_reached():
    assert math.isnan(median_follow_up(np.array([1.0, 2.0]), np.array([1.0, 1.0])))
    assert math.isnan(median_follow_up(np.array([]), np.array([])))


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=40))
def test_median_follow_up_is_the_kaplan_meier_median_with_roles_exchanged(observed):
    days = np.array([float(day) for day, _ in observed])
    event = np.array([float(died) for _, died in observed])
    curve = lifelines.KaplanMeierFitter().fit(days, 1 - event).survival_function_["KM_estimate"]
    median = median_follow_up(days, event)
    if math.isnan(median):
        assert curve.min() > 0.5
    else:
        assert curve.loc[median] <= 0.5 + 1e-9
        assert (curve[curve.index < median] > 0.5 - 1e-9).all()


@pytest.mark.parametrize("arguments", [[], ["import"], ["check", "--help"], ["synth", "--help"]])
def test_help_is_there(arguments):
    assert "Usage" in run(*arguments).output


def test_import_commands_say_a_wrong_source(tmp_path):
    for command in ("sts-public", "tcga-sarc"):
        result = run("import", command, tmp_path, tmp_path / "out")
        assert result.exit_code == 1
        assert isinstance(result.exception, CohortError)
        assert str(tmp_path / "clinical.csv") in str(result.exception)


def test_synth_writes_cohorts_that_pass_the_check(tmp_path):
    result = run("synth", tmp_path / "out", "--sites", "2", "--patients", "8", "--seed", "3")
    assert result.exit_code == 0, result.exception
    roots = [line.removeprefix("Wrote ") for line in result.output.splitlines() if line.startswith("Wrote ")]
    assert len(roots) == 2
    assert sum(len(load_cohort(tmp_path / root).patients) for root in roots) == 8
    assert [run("check", root).exit_code for root in roots] == [0, 0]


def test_check_of_a_folder_of_cohorts(tmp_path):
    write_synthetic_cohorts(tmp_path / "two", sites=2, patients=12, seed=0)
    (tmp_path / "two" / "site_2" / "clinical.csv").write_text("patient_id\n")
    result = run("check", tmp_path / "two")
    assert result.exit_code == 1
    assert "site_1: 0 faults" in result.output
    assert "site_2: 1 fault" in result.output


def test_check_of_no_folder(tmp_path):
    result = run("check", tmp_path / "nowhere")
    assert isinstance(result.exception, CohortError)
    assert "nowhere: no such folder" in str(result.exception)


def test_table_with_semicolons(make_cohort):
    folder = make_cohort(3)
    table = folder.root / "clinical.csv"
    table.write_text(table.read_text().replace(",", ";"))
    assert "separated by ';'" in run("check", folder.root).output


def test_image_check_prints_flags_and_makes_pages(tmp_path):
    (root,) = write_synthetic_cohorts(tmp_path / "one", sites=1, patients=6, seed=0)
    config = tmp_path / "config.toml"
    config.write_text('[imaging]\nshape = [32, 32, 32]\nsteps = ["resampling", "zscore", "masking"]\n')
    cohort = load_cohort(root)
    patients = [patient for patient in cohort.patients if cohort.has_image(patient)]
    table = pd.read_csv(root / "clinical.csv", index_col="patient_id", dtype=str)
    table.loc[patients[0], "volume_cm3"] = "9999"
    table.to_csv(root / "clinical.csv")
    result = run("check", root, "--images", "--config", config, "--pages", tmp_path / "pages")
    assert result.exit_code == 0, result.output
    (flagged,) = [line for line in result.output.splitlines() if "but the clinical table says" in line]
    assert f"patient {patients[0]}" in flagged
    pages = {path.name for path in (tmp_path / "pages" / root.name).iterdir()}
    assert pages == {"image_check.html", *(f"{patient}.html" for patient in patients)}
    page = (tmp_path / "pages" / root.name / f"{patients[0]}.html").read_text()
    assert "data:image/png;base64," in page
    overview = (tmp_path / "pages" / root.name / "image_check.html").read_text()
    assert "but the clinical table says" in overview
    assert "but the clinical table says" in page
    assert "Tumour: " in page
    looked = f"Images of {len(patients)} of 6 patients looked at, "
    assert looked in result.output
    assert f"Pages: {tmp_path / 'pages' / root.name / 'image_check.html'}" in result.output
    (flagged,) = re.findall(r"looked at, (\d+) with something", result.output)
    assert f"{flagged} with something to look at" in overview


def test_the_border_is_something_to_look_at(make_cohort, mask, tmp_path):
    """On the terminal, in the list of pages and on the page alike."""
    folder = make_cohort(3)
    mask[:, :, 0] = 1
    folder.write_image("P01", "t1_mask", mask)
    config = tmp_path / "config.toml"
    config.write_text('[imaging]\nshape = [32, 32, 32]\nsteps = ["resampling", "zscore", "masking"]\n')
    result = run("check", folder.root, "--images", "--config", config, "--pages", tmp_path / "pages")
    pages = tmp_path / "pages" / folder.root.name
    flagged = re.search(r"(\d) with something to look at", result.output).group()
    assert flagged in (pages / "image_check.html").read_text()
    assert "touches the border" in (pages / "image_check.html").read_text()
    assert "touches the border" in (pages / "P01.html").read_text()
    assert re.search(r"touches the border of the image, n \(%\) *│ [1-3] ", result.output)


def test_registration_is_shown_flagged_or_not(tmp_path):
    (root,) = write_synthetic_cohorts(tmp_path / "one", sites=1, patients=3, seed=0)
    config = tmp_path / "config.toml"
    config.write_text(
        '[imaging]\nshape = [32, 32, 32]\nsteps = ["registration", "resampling", "zscore", "masking"]\n'
        '[imaging.registration]\nchannels = ["t2"]\n'
    )
    result = run("check", root, "--images", "--config", config, "--pages", tmp_path / "pages")
    assert re.search(r"│ t2 +│ [1-3] +│ \d\.\d{3} / \d\.\d{3} ", result.output)
    cohort = load_cohort(root)
    patient = next(name for name in cohort.patients if cohort.has_image(name))
    assert "before / after registration" in (tmp_path / "pages" / root.name / f"{patient}.html").read_text()


def test_pages_inside_a_cohort_are_refused(make_cohort):
    root = make_cohort(3).root
    result = run("check", root, "--images", "--pages", root / "pages")
    assert "--pages" in str(result.exception)
    assert "lies inside the cohort folder" in str(result.exception)
    assert not (root / "pages").exists()


def test_pages_need_images(tmp_path):
    result = run("check", tmp_path, "--pages", tmp_path / "pages")
    assert "are for --images" in str(result.exception)
