"""Reading a cohort's manifest and table: each fault names its place, and all come at once."""

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stsmm_core.cohort.reading import load_cohort, parse_cohort
from stsmm_core.errors import CohortError


def faults(folder):
    return [finding for finding in parse_cohort(folder.root)[1] if finding.severity == "fault"]


def notes(folder):
    return [str(finding) for finding in parse_cohort(folder.root)[1] if finding.severity == "note"]


def only_fault(folder):
    found = faults(folder)
    assert len(found) == 1, [str(fault) for fault in found]
    return found[0]


def test_valid_cohort_is_read_with_its_values(make_cohort):
    folder = make_cohort(12)
    cohort = load_cohort(folder.root)
    assert cohort.patients == tuple(f"P{number:02d}" for number in range(1, 13))
    assert cohort.clinical.loc["P03", "age"] == 43
    assert cohort.clinical.loc["P03", "sex"] == "M"
    outcomes = cohort.outcomes(["os", "dm"])
    assert outcomes.time[2].tolist() == [903, 303]
    assert outcomes.events().tolist() == [6, 4]
    assert cohort.has_image("P01")


def test_rows_are_sorted_and_blank_lines_and_byte_order_mark_do_not_matter(make_cohort):
    folder = make_cohort(4)
    header, *rows = folder.rows()
    folder.write_rows([header, *reversed(rows), [], [""] * len(header)])
    path = folder.root / "clinical.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_cohort(folder.root).patients == ("P01", "P02", "P03", "P04")


def test_quoted_header_is_understood(make_cohort):
    folder = make_cohort(3)
    path = folder.root / "clinical.csv"
    header, rest = path.read_text(encoding="utf-8").split("\n", 1)
    quoted = ",".join(f'"{name}"' for name in header.strip().split(","))
    path.write_text(f"{quoted}\n{rest}", encoding="utf-8")
    assert len(load_cohort(folder.root).patients) == 3


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("age", "fifty", "'fifty' is not a number"),
        ("age", "1_0", None),
        ("age", "nan", "outside 0 to 120"),
        ("size_cm", "85", "outside 0.1 to 60; check the unit (cm)"),
        ("size_cm", "8,5", "'8,5' is not a number"),
        ("grade", "G3", "write one of low, intermediate, high"),
        ("sex", "female", "write one of F, M"),
        ("neoadjuvant_chemo", "yes", "write one of 0, 1"),
        ("os_days", "-3", "not below 0"),
        ("os_days", "inf", "not below 0"),
        ("os_days", "54901", "more than 150 years"),
        ("os_days", "2 years", "'2 years' is not a number of days"),
        ("os_days", "", "is empty although its event is given"),
        ("dm_event", "", "is empty although its time is given"),
        ("os_event", "2", "write 1 (event) or 0 (censored)"),
        ("dm_event", "yes", "write 1 (event) or 0 (censored)"),
    ],
)
def test_bad_cell_is_named_by_file_patient_and_column(make_cohort, column, cell, words):
    folder = make_cohort(4)
    folder.set_cell("P02", column, cell)
    if words is None:
        assert load_cohort(folder.root).clinical.loc["P02", column] == 10
        return
    fault = only_fault(folder)
    assert (fault.file, fault.patient, fault.column) == ("clinical.csv", "P02", column)
    assert words in fault.message


def test_all_faults_are_reported_at_once(make_cohort):
    folder = make_cohort(4)
    folder.set_cell("P01", "grade", "G1")
    folder.set_cell("P02", "os_days", "-1")
    folder.set_cell("P02", "os_event", "x")
    folder.image("P03", "t1_mask").unlink()
    with pytest.raises(CohortError) as error:
        load_cohort(folder.root)
    message = str(error.value)
    assert "4 faults" in message
    for part in ("patient P01, column grade", "patient P02, column os_days", "column os_event", "images/P03/t1_mask"):
        assert part in message


def test_table_is_checked_although_the_manifest_is_wrong(make_cohort):
    folder = make_cohort(4)
    manifest = folder.root / "cohort.toml"
    manifest.write_text(manifest.read_text(encoding="utf-8") + 'centre = "south"\n', encoding="utf-8")
    folder.set_cell("P04", "grade", "IV")
    places = [(fault.file, fault.patient) for fault in faults(folder)]
    assert places == [("cohort.toml", None), ("clinical.csv", "P04")]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("", 'centre = "south"\n', "centre: unknown key; choose from schema_version, name, site"),
        ('time_zero = "surgery"', 'time_zero = "biopsy"', "time_zero: 'biopsy' must be 'surgery' or 'diagnosis'"),
        ("schema_version = 1", "schema_version = 2", "schema_version must be 1"),
        ('site = "north"\n', "", "site: is missing"),
        ('["t1", "t2"]', '["t1", "t1"]', "channels: names an entry twice"),
        ('["t1", "t2"]', '["t1", "t2_mask"]', "cannot be called mask"),
        ('["t1", "t2"]', '["t1", "t2"', "not valid TOML"),
        ('["os", "dm"]', '["os", "pfs"]', "endpoints.1: 'pfs' must be 'os' or 'dm'"),
        ('["os", "dm"]', "[]", "endpoints: must not be empty"),
        ('site = "north"', 'site = "the north"', "site: 'the north' must be a name of letters, digits, _ and -"),
    ],
)
def test_wrong_manifest(make_cohort, old, new, words):
    folder = make_cohort(3)
    manifest = folder.root / "cohort.toml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace(old, new, 1) if old else text + new, encoding="utf-8")
    fault = only_fault(folder)
    assert fault.file == "cohort.toml"
    assert words in fault.message


def test_duplicate_patient(make_cohort):
    folder = make_cohort(3)
    rows = folder.rows()
    folder.write_rows([*rows, rows[2]])
    fault = only_fault(folder)
    assert (fault.file, fault.patient) == ("clinical.csv", "P02")
    assert "more than once" in fault.message


def test_identifier_that_cannot_be_a_folder(make_cohort):
    folder = make_cohort(3, channels=())
    folder.set_cell("P02", "patient_id", "../P02")
    fault = only_fault(folder)
    assert fault.column == "patient_id"
    assert "line 3: '../P02' cannot name a patient" in fault.message


def test_latin1_table_names_the_line(make_cohort):
    folder = make_cohort(3)
    path = folder.root / "clinical.csv"
    path.write_bytes(path.read_bytes().replace(b"P02", "Müller".encode("latin-1"), 1))
    fault = only_fault(folder)
    assert fault.file == "clinical.csv"
    assert "line 3 is not UTF-8" in fault.message
    assert "save the table as CSV UTF-8" in fault.message


def test_decimal_comma_shifts_no_cell(make_cohort):
    folder = make_cohort(3)
    path = folder.root / "clinical.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("8.5", "8,5"), encoding="utf-8")
    found = faults(folder)
    assert [fault.message.split(";")[0] for fault in found] == [
        f"line {line} has 17 cells, the header 16" for line in (2, 3, 4)
    ]


def test_a_variable_without_a_column_is_noted(make_cohort):
    folder = make_cohort(3)
    folder.drop_column("age")
    folder.drop_column("volume_cm3")  # the mask tells it
    folder.drop_column("grade")
    assert notes(folder) == ["clinical.csv: has no column age, grade: unknown for every patient of this site"]


@pytest.mark.parametrize("column", ["os_days", "dm_event"])
def test_missing_endpoint_column(make_cohort, column):
    folder = make_cohort(3)
    folder.drop_column(column)
    fault = only_fault(folder)
    assert (fault.file, fault.column) == ("clinical.csv", column)
    assert f"take '{column[:2]}' out of endpoints in cohort.toml" in fault.message


def test_cohort_that_records_one_endpoint_only(make_cohort):
    folder = make_cohort(4)
    manifest = folder.root / "cohort.toml"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('["os", "dm"]', '["os"]'), encoding="utf-8")
    folder.drop_column("dm_days")
    folder.drop_column("dm_event")
    outcomes = load_cohort(folder.root).outcomes(["os", "dm"])
    assert np.isfinite(outcomes.time[:, 0]).all()
    assert np.isnan(outcomes.time[:, 1]).all()


def test_patient_without_an_endpoint_is_a_note(make_cohort):
    folder = make_cohort(4)
    folder.set_cell("P01", "dm_days", "")
    folder.set_cell("P01", "dm_event", "")
    assert faults(folder) == []
    assert "clinical.csv, column dm_days: empty for 1 of 4 patients: they do not count for dm" in notes(folder)


def test_cohort_without_an_event_is_a_note(make_cohort):
    folder = make_cohort(5)
    folder.set_column("os_event", "0")
    folder.set_column("dm_event", "0")
    assert faults(folder) == []
    assert [note for note in notes(folder) if "no event of" in note] == [
        "clinical.csv: no event of os: this cohort adds nothing to its loss",
        "clinical.csv: no event of dm: this cohort adds nothing to its loss",
    ]


def test_metastasis_after_death(make_cohort):
    folder = make_cohort(4)
    folder.set_cell("P01", "dm_days", "5000")
    fault = only_fault(folder)
    assert (fault.patient, fault.column) == ("P01", "dm_days")


def test_metastatic_at_presentation_leaves_the_dm_endpoint(make_cohort):
    folder = make_cohort(4)
    folder.set_cell("P01", "metastasis_at_presentation", "1")
    outcomes = load_cohort(folder.root).outcomes(["os", "dm"])
    assert np.isnan(outcomes.event[0]).tolist() == [False, True]
    assert any("1 of 4 patients metastatic at presentation" in note for note in notes(folder))


def test_patient_without_image_is_legal(make_cohort):
    folder = make_cohort(4)
    for file in (folder.root / "images" / "P02").iterdir():
        file.unlink()
    (folder.root / "images" / "P02").rmdir()
    cohort = load_cohort(folder.root)
    assert [cohort.has_image(patient) for patient in cohort.patients] == [True, False, True, True]
    assert any("1 of 4 patients have no image" in note for note in notes(folder))


def test_image_without_clinical_row(make_cohort):
    folder = make_cohort(4)
    folder.write_rows(folder.rows()[:-1])
    fault = only_fault(folder)
    assert fault.file == "images/P04"
    assert "has no row in clinical.csv" in fault.message


def test_one_channel_missing_is_legal_and_counted(make_cohort):
    folder = make_cohort(6)
    for patient in ("P02", "P03", "P04"):
        folder.image(patient, "t2").unlink()
    for patient in ("P05", "P06"):
        folder.image(patient, "t1").unlink()
        folder.image(patient, "t1_mask").rename(folder.image(patient, "t2_mask"))
    shutil.rmtree(folder.root / "images" / "P01")
    cohort = load_cohort(folder.root)
    assert [list(cohort.channel_files(patient)) for patient in cohort.patients] == [
        [],
        *[["t1"]] * 3,
        *[["t2"]] * 2,
    ]
    assert [cohort.mask_path(patient).name for patient in ("P02", "P05")] == ["t1_mask.nii.gz", "t2_mask.nii.gz"]
    assert cohort.lacking_channel() == {"t1": 2, "t2": 3}
    said = [note for note in notes(folder) if "have no" in note]
    assert said == [
        "images: 1 of 6 patients have no image: they train without it",
        "images: 2 of 5 patients with images have no t1: the network sees 0 in its place",
        "images: 3 of 5 patients with images have no t2: the network sees 0 in its place",
    ]


def test_mask_of_a_missing_channel_does_not_stand_in(make_cohort):
    folder = make_cohort(4)
    folder.image("P03", "t1").unlink()
    fault = only_fault(folder)
    assert (fault.file, fault.patient) == ("images/P03/t2_mask.nii.gz", "P03")
    assert "t1_mask.nii.gz is not used: the patient has no t1.nii.gz" in fault.message


def test_mask_missing(make_cohort):
    folder = make_cohort(4)
    folder.image("P03", "t1_mask").unlink()
    fault = only_fault(folder)
    assert (fault.file, fault.patient) == ("images/P03/t1_mask.nii.gz", "P03")


def test_extra_column_is_kept_aside(make_cohort):
    folder = make_cohort(3)
    header, *rows = folder.rows()
    folder.write_rows([[*header, "surgeon"], *([*row, "A"] for row in rows)])
    cohort = load_cohort(folder.root)
    assert cohort.extra_columns == ("surgeon",)
    assert "surgeon" not in cohort.clinical


@pytest.mark.parametrize("file", ["cohort.toml", "clinical.csv"])
def test_missing_file(make_cohort, file):
    folder = make_cohort(3)
    (folder.root / file).unlink()
    fault = only_fault(folder)
    assert fault.file == file
    assert "is missing" in fault.message


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(CohortError, match="nowhere"):
        load_cohort(tmp_path / "nowhere")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cell=st.text(max_size=8), column=st.sampled_from(["age", "grade", "os_days", "dm_event"]))
def test_any_cell_is_either_read_or_a_fault(tmp_path, cell, column):
    """Whatever stands in a cell: no crash, and never a value lost without a word."""
    if any(char in cell for char in ',"\0\r\n') or any(0xD800 <= ord(char) < 0xE000 for char in cell):
        return
    (tmp_path / "cohort.toml").write_text(
        'schema_version = 1\nname = "a"\nsite = "a"\nchannels = []\nendpoints = ["os", "dm"]\ntime_zero = "surgery"\n',
        encoding="utf-8",
    )
    values = {"age": "50", "grade": "low", "os_days": "9", "os_event": "1", "dm_days": "9", "dm_event": "0"}
    values[column] = cell
    header, row = ",".join(["patient_id", *values]), ",".join(["P1", *values.values()])
    (tmp_path / "clinical.csv").write_text(f"{header}\n{row}\n", encoding="utf-8", newline="")
    cohort, findings = parse_cohort(tmp_path)
    assert cohort is not None
    read = cohort.clinical[column] if column in cohort.clinical else cohort.endpoints[column]
    if cell.strip() and read.isna().all():
        assert any(finding.severity == "fault" and finding.column == column for finding in findings)
