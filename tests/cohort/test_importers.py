"""Importing the public data sets: the traps that their READMEs name, and sources that are not what they should be."""

import csv
import filecmp
import re
import shutil

import pandas as pd
import pytest

from stsmm_core.cohort.check import check_cohort
from stsmm_core.cohort.dictionary import VARIABLES
from stsmm_core.cohort.importing import new_folder
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.cohort.sts_public import HISTOLOGY as STS_HISTOLOGY
from stsmm_core.cohort.sts_public import import_sts_public
from stsmm_core.cohort.tcga_sarc import HISTOLOGY as TCGA_HISTOLOGY
from stsmm_core.cohort.tcga_sarc import import_tcga_sarc
from stsmm_core.errors import CohortError

STS = {
    "age": "50", "sex": "F", "histology": "malignant fibrous histiocytoma", "location": "axial",
    "location_girdle": "lower_extremity", "grade": "high", "chemotherapy": "1", "radiotherapy": "1", "os_days": "700",
    "os_event": "1", "dm_days": "300", "dm_event": "1", "tumor_volume_cm3": "120.5", "tumor_diameter_cm": "9.25",
    "tumor_diameter_axial_cm": "6.0",
}  # fmt: skip
TCGA = {
    "fed_site": "Midwest", "age": "60", "sex": "M", "histology_group": "ups_mfh", "size_cm": "9.0", "grade": "NA",
    "location": "axial", "in_scope": "1", "depth": "NA", "radiotherapy": "1", "chemotherapy": "1",
    "metastasis_flag": "1", "os_days": "800", "os_event": "1", "dm_days": "400", "dm_event": "1",
}  # fmt: skip


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def sts_source(tmp_path, make_cohort, mask):
    """A source folder of three patients in the layout of the public set."""
    source = tmp_path / "sts_public"
    rows = [{"patient_id": f"STS_00{number}", **STS} for number in (1, 2, 3)]
    rows[1] |= {"grade": "NA", "histology": "liposarcoma", "dm_event": "0", "dm_days": "700"}
    write_table(source / "clinical.csv", rows)
    write_table(source / "scanner.csv", [{"patient_id": row["patient_id"], "mr_group": "Philips"} for row in rows])
    images = make_cohort(3, channels=("t1", "pet"))
    for number in (1, 2, 3):
        images.write_image(f"P0{number}", "pet_mask", mask)
        shutil.copytree(images.root / "images" / f"P0{number}", source / f"STS_00{number}")
    return source


@pytest.fixture
def tcga_source(tmp_path):
    """Five in scope on two sites, one retroperitoneal."""
    source = tmp_path / "tcga_sarc"
    rows = [{"patient_id": f"TCGA-{number}", **TCGA} for number in range(4)]
    rows[1] |= {"fed_site": "MSKCC", "depth": "deep"}
    rows[2] |= {"dm_days": "NA", "dm_event": "NA"}
    rows[3] |= {"in_scope": "0", "location": "retroperitoneal", "histology_group": "wdls"}
    rows.append({"patient_id": "TCGA-X6-A7W8", **TCGA, "dm_days": "24"})
    rows.append({"patient_id": "TCGA-9", **TCGA, "size_cm": "NA"})
    write_table(source / "clinical.csv", rows)
    return source


def test_sts_public_respects_the_traps_of_its_source(sts_source, tmp_path):
    out = import_sts_public(sts_source, tmp_path / "out")
    cohort = load_cohort(out)
    assert cohort.manifest.channels == ("t1", "pet")
    assert cohort.manifest.time_zero == "diagnosis"
    assert cohort.extra_columns == ("location_girdle", "mr_group")
    assert cohort.clinical.loc["STS_001", "size_cm"] == 9.25
    assert cohort.clinical.loc["STS_001", "volume_cm3"] == 120.5
    assert cohort.clinical.loc["STS_001", "histology"] == "undifferentiated_pleomorphic_sarcoma"
    assert cohort.clinical.loc["STS_001", "location"] == "axial"
    assert cohort.clinical.loc["STS_002", ["grade", "histology"]].isna().all()
    for unknown in ("neoadjuvant_chemo", "radiotherapy", "metastasis_at_presentation", "depth"):
        assert cohort.clinical[unknown].isna().all()
    assert cohort.outcomes(["os", "dm"]).events().tolist() == [3, 2]
    assert [finding for finding in check_cohort(out) if finding.severity == "fault"] == []


def test_sts_public_copies_images_byte_for_byte_with_their_terms(sts_source, tmp_path):
    out = import_sts_public(sts_source, tmp_path / "out")
    for name in ("t1.nii.gz", "t1_mask.nii.gz", "pet.nii.gz", "pet_mask.nii.gz"):
        assert filecmp.cmp(sts_source / "STS_002" / name, out / "images" / "STS_002" / name, shallow=False)
    terms = (out / "SOURCE.md").read_text(encoding="utf-8")
    for part in ("CC BY 3.0", "10.7937/K9/TCIA.2015.7GO2GSKS", "10.1088/0031-9155/60/14/5471", "## Changes"):
        assert part in terms


def test_tcga_sarc_respects_the_traps_of_its_source(tcga_source, tmp_path):
    out = tmp_path / "out"
    assert import_tcga_sarc(tcga_source, out) == [out / "MSKCC", out / "Midwest"]
    midwest, mskcc = load_cohort(out / "Midwest"), load_cohort(out / "MSKCC")
    assert midwest.patients == ("TCGA-0", "TCGA-2", "TCGA-9", "TCGA-X6-A7W8")
    assert mskcc.patients == ("TCGA-1",)
    assert midwest.manifest.channels == ()
    assert midwest.outcomes(["os", "dm"]).events().tolist() == [4, 2]
    assert midwest.endpoints["dm_days"].dropna().index.tolist() == ["TCGA-0", "TCGA-9"]
    assert mskcc.clinical.loc["TCGA-1", "depth"] == "deep"
    for unknown in ("neoadjuvant_chemo", "radiotherapy", "metastasis_at_presentation", "grade", "volume_cm3"):
        assert midwest.clinical[unknown].isna().all()
    notes = [str(finding) for finding in check_cohort(out / "Midwest")]
    assert "clinical.csv, column dm_days: empty for 2 of 4 patients: they do not count for dm" in notes
    for folder in (out, out / "Midwest", out / "MSKCC"):
        assert "TCGA Research Network" in (folder / "SOURCE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("levels", [STS_HISTOLOGY, TCGA_HISTOLOGY])
def test_histology_is_mapped_to_levels_of_the_dictionary(levels):
    assert set(levels.values()) <= {*VARIABLES["histology"].levels, ""}


def test_image_that_the_source_lacks(sts_source, tmp_path):
    (sts_source / "STS_003" / "pet_mask.nii.gz").unlink()
    with pytest.raises(CohortError, match=re.escape(str(sts_source / "STS_003" / "pet_mask.nii.gz"))):
        import_sts_public(sts_source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("importer", [import_sts_public, import_tcga_sarc])
def test_source_folder_without_its_table(importer, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CohortError, match=r"clinical\.csv: is missing; is .*empty the right source folder"):
        importer(tmp_path / "empty", tmp_path / "out")


@pytest.mark.parametrize("column", ["dm_days", "patient_id"])
def test_source_table_without_a_column(sts_source, tcga_source, tmp_path, column):
    for source, importer in ((sts_source, import_sts_public), (tcga_source, import_tcga_sarc)):
        table = pd.read_csv(source / "clinical.csv", dtype=str, keep_default_na=False)
        table.drop(columns=column).to_csv(source / "clinical.csv", index=False)
        with pytest.raises(CohortError, match=rf"clinical\.csv: has no column {column}"):
            importer(source, tmp_path / "out")


def test_unknown_histology_names_the_patient(sts_source, tmp_path):
    path = sts_source / "clinical.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("liposarcoma", "chordoma"), encoding="utf-8")
    with pytest.raises(CohortError, match=r"column histology: no level is known for STS_002 \('chordoma'\)"):
        import_sts_public(sts_source, tmp_path / "out")


def test_patient_without_scanner_row(sts_source, tmp_path):
    write_table(sts_source / "scanner.csv", [{"patient_id": "STS_001", "mr_group": "GE"}])
    with pytest.raises(CohortError, match=r"scanner\.csv: has no row for patient STS_002, STS_003"):
        import_sts_public(sts_source, tmp_path / "out")


def test_patient_with_two_rows(tcga_source, tmp_path):
    path = tcga_source / "clinical.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("TCGA-1,", "TCGA-0,"), encoding="utf-8")
    with pytest.raises(CohortError, match="patient TCGA-0 has more than one row"):
        import_tcga_sarc(tcga_source, tmp_path / "out")


def test_folder_in_use_is_refused_and_left_alone(tcga_source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("keep me")
    with pytest.raises(CohortError, match="not empty; name a new folder"):
        import_tcga_sarc(tcga_source, out)
    assert [entry.name for entry in out.iterdir()] == ["thesis.txt"]


def test_empty_folder_is_filled(tcga_source, tmp_path):
    (tmp_path / "out").mkdir()
    assert import_tcga_sarc(tcga_source, tmp_path / "out")[0].is_dir()


def test_interrupted_import_leaves_nothing(sts_source, tmp_path, monkeypatch):
    before = sorted(tmp_path.iterdir())
    copied = []

    def copy_until_interrupted(source, target):
        copied.append(target)
        if len(copied) == 5:
            raise KeyboardInterrupt
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr("stsmm_core.cohort.sts_public.shutil.copyfile", copy_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_sts_public(sts_source, tmp_path / "out")
    assert len(copied) == 5
    assert sorted(tmp_path.iterdir()) == before


def test_new_folder_is_not_there_before_it_is_complete(tmp_path):
    with new_folder(tmp_path / "deep" / "out") as building:
        (building / "file").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["out"]
    assert (tmp_path / "deep" / "out" / "file").read_text() == "x"


@pytest.mark.real_data
def test_real_sts_public(real_data, tmp_path):
    """11 deaths and 17 metastases, counted in the source's table; masks at the border as in its README."""
    cohort = load_cohort(import_sts_public(real_data / "sts_public", tmp_path / "out"))
    assert len(cohort.patients) == 36
    assert cohort.outcomes(["os", "dm"]).events().tolist() == [11, 17]
    assert cohort.clinical["location"].value_counts().to_dict() == {
        "lower_extremity": 28,
        "axial": 7,
        "upper_extremity": 1,
    }
    findings = check_cohort(cohort.root)
    assert [str(finding) for finding in findings if finding.severity == "fault"] == []
    at_border = {finding.patient for finding in findings if "touches the border" in finding.message}
    assert at_border == {"STS_009", "STS_020", "STS_022", "STS_034", "STS_038", "STS_044"}


@pytest.mark.real_data
def test_real_tcga_sarc(real_data, tmp_path):
    """Patients, deaths and metastases of the README's table in scope, less one metastasis left out as unreliable."""
    counts = {}
    for root in import_tcga_sarc(real_data / "tcga_sarc", tmp_path / "out"):
        cohort = load_cohort(root)
        assert [str(finding) for finding in check_cohort(root) if finding.severity == "fault"] == []
        counts[root.name] = (len(cohort.patients), *cohort.outcomes(["os", "dm"]).events().tolist())
    assert counts == {
        "MSKCC": (54, 23, 21),
        "Midwest": (24, 6, 10 - 1),
        "Northeast_other": (14, 6, 6),
        "South_West_other": (20, 2, 6),
    }
