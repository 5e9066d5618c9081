"""The command, from a hospital's export to a cohort that passes its check."""

import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest
from dicom_export import Grid, Written, blob, outline, rewrite, textured, write_series, write_structures
from dicom_running import edit_map, run, series_folder

from stsmm_core.cohort.acquisition import contour_volumes
from stsmm_core.cohort.check import check_cohort
from stsmm_core.cohort.dicom.scan import scan_export, text
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import read_volume


def test_cohort_has_the_voxels_the_masks_and_the_table(export):
    run(export, "--keep-ids")
    out = export.parent / "out"
    cohort = load_cohort(out)
    assert cohort.patients == ("P1", "P2")
    assert not [finding for finding in check_cohort(out) if finding.severity == "fault"]
    np.testing.assert_array_equal(read_volume(cohort.channel_path("P1", "t1")).array, textured(Grid()))
    np.testing.assert_array_equal(read_volume(cohort.mask_path("P1")).array > 0, blob(Grid()))
    assert cohort.clinical.loc["P2", "age"] == 60
    assert cohort.manifest.time_zero == "diagnosis"


def test_the_salt_decides_the_key(export):
    root = export.parent
    for out, salt in (("one", "a"), ("two", "a"), ("three", "b")):
        run(export, "--salt", str(root / salt), out=out)
    one, two, three = (load_cohort(root / out).patients for out in ("one", "two", "three"))
    assert one == two
    assert not set(one) & set(three)
    assert (root / "a").stat().st_mode & 0o077 == 0
    run(export, out="four")
    assert not set(one) & set(load_cohort(root / "four").patients)


def test_spoiled_salt(export):
    (export.parent / "salt").write_text("sugar")
    with pytest.raises(CohortError, match="holds no salt"):
        run(export, "--salt", str(export.parent / "salt"))


def test_dry_run_says_what_and_why_and_writes_nothing(export):
    write_series(export / "P1" / "loc", textured(Grid()), Grid(), tags={"SeriesDescription": "localiser"})
    before = sorted(export.parent.rglob("*"))
    result = run(export, "--dry-run", "--show-sources", "--keep-ids")
    assert result.exit_code == 0
    lines = result.output.replace("\n", " ")
    for words in ("t1_mask", "outlines it", "no rule matches", "localiser", "loc"):
        assert words in lines
    assert sorted(export.parent.rglob("*")) == before


def break_slice(export):
    path = sorted(series_folder(export).iterdir())[3]
    path.write_bytes(path.read_bytes()[:-50])


def second_match(export):
    write_series(export / "P1" / "more", textured(Grid()), Grid(), tags={"SeriesDescription": "T1 post late"})


def foreign_outline(export):
    """The outline of P2's images under the name of P1."""
    shutil.rmtree(export / "P1" / "assessors")
    (export / "P1" / "assessors").mkdir()
    copied = export / "P1" / "assessors" / "roi.dcm"
    shutil.copy(export / "P2" / "assessors" / "roi.dcm", copied)
    rewrite(copied, PatientID="P1", SeriesInstanceUID="1.2.3.8")


def other_frame(export):
    for path in series_folder(export).iterdir():
        rewrite(path, FrameOfReferenceUID="1.2.3.4")


def second_outline(export):
    copied = export / "P1" / "assessors" / "again.dcm"
    shutil.copy(export / "P1" / "assessors" / "roi.dcm", copied)
    rewrite(copied, SeriesInstanceUID="1.2.3.9")


def inverted_mask(export):
    """A mask series in place of the outlines of P1, dark inside."""
    edit_map(export, 'roi = "gtv"', 'roi = "gtv"\nseries = "tumour mask"')
    (export / "P1" / "assessors" / "roi.dcm").unlink()
    tags = {"SeriesDescription": "tumour mask", "PhotometricInterpretation": "MONOCHROME1"}
    (image,) = scan_export(series_folder(export), ()).series
    frame = text(image.header, "FrameOfReferenceUID")
    write_series(export / "P1" / "mask", blob(Grid()) * 255, Grid(), frame=frame, tags=tags)


def spoil_bytes(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


FAULTS = {
    "missing slice": (lambda export: sorted(series_folder(export).iterdir())[2].unlink(), "channel t1: lacks 1 slice"),
    "truncated": (break_slice, "channel t1: slice . of 6 is cut short"),
    "two series": (second_match, "2 series match channel t1: series"),
    "another patient": (foreign_outline, "outlines images of another patient"),
    "frame of reference": (other_frame, "t1_mask: the region has another frame of reference"),
    "two outlines": (second_outline, "2 outlines for t1"),
    "another person": (
        lambda export: (
            rewrite(sorted(series_folder(export).iterdir())[0], PatientBirthDate="19500101")
            or rewrite(export / "P1" / "assessors" / "roi.dcm", PatientBirthDate="19990101")
        ),
        "its series differ in PatientBirthDate",
    ),
    "decimal comma": (
        lambda export: spoil_bytes(sorted(series_folder(export).iterdir())[0], b"0.8\\0.8", b"0,8\\0,8"),
        "channel t1: ",
    ),
    "inverted": (
        lambda export: rewrite(sorted(series_folder(export).iterdir())[0], PhotometricInterpretation="MONOCHROME1"),
        "channel t1: is stored inverted",
    ),
    "inverted mask": (inverted_mask, "t1_mask: is stored inverted"),
    "letters for a number of frames": (
        lambda export: (
            second_match(export)
            or rewrite(sorted(series_folder(export).iterdir())[0], NumberOfFrames=4711)
            or spoil_bytes(sorted(series_folder(export).iterdir())[0], b"4711", b"six ")
        ),
        "NumberOfFrames holds no number",
    ),
    "odd length in a tag of the map": (
        lambda export: (
            edit_map(export, 'description = "t1"', 'description = "t1"\ntags = { Rows = "10" }')
            or spoil_bytes(sorted(series_folder(export).iterdir())[0], b"US\2\0\x0a\0", b"US\3\0\x0a\0\0")
        ),
        "Rows does not hold what it should",
    ),
    "slope of 0": (
        lambda export: rewrite(sorted(series_folder(export).iterdir())[0], RescaleSlope="0"),
        "RescaleSlope of 0",
    ),
    "no outline": (lambda export: (export / "P1" / "assessors" / "roi.dcm").unlink(), "has no tumour outline on t1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_nothing_is_written(export, fault):
    spoil, message = FAULTS[fault]
    spoil(export)
    with pytest.raises(CohortError, match=message) as caught:
        run(export, "--salt", str(export.parent / "salt"))
    assert "line 2 of the clinical table" in str(caught.value)
    assert "1 of 2 patients have a fault" in str(caught.value)
    assert not (export.parent / "out").exists()
    assert sorted(path.name for path in export.parent.iterdir()) == ["MAP.toml", "clinical.csv", "export"]


def test_a_faulty_patient_can_be_left_out(export):
    break_slice(export)
    result = run(export, "--leave-out-faulty", "--keep-ids")
    cohort = load_cohort(export.parent / "out")
    assert cohort.patients == ("P1", "P2")
    assert [cohort.has_image(patient) for patient in cohort.patients] == [False, True]
    assert "left out" in result.output
    assert not (export.parent / "out" / "images" / "P1").exists()


def cut(path, length=200):
    path.write_bytes(path.read_bytes()[:length])


def last_slice(export):
    """The file at the end of the stack, which no gap betrays."""
    return max(series_folder(export).iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])


def test_a_header_cut_short_is_a_fault_of_the_patient_in_whose_folder_it_lies(export):
    cut(last_slice(export))
    with pytest.raises(CohortError, match=r"line 2 of the clinical table\): 1 DICOM file.s. in its folders") as caught:
        run(export)
    assert "1 of 2 patients" in str(caught.value)
    assert "unreadable" in run(export, "--dry-run", "--show-sources").output
    assert "left out" in run(export, "--leave-out-faulty", "--keep-ids").output
    cohort = load_cohort(export.parent / "out")
    assert [cohort.has_image(patient) for patient in cohort.patients] == [False, True]


def test_a_header_cut_short_in_a_folder_of_two_patients_is_a_fault_of_both(export):
    for path in series_folder(export, "P2").iterdir():
        path.rename(series_folder(export) / f"P2_{path.name}")
    cut(last_slice(export))
    with pytest.raises(CohortError, match="2 of 2 patients have a fault"):
        run(export)


def test_an_outline_cut_short_is_a_fault_of_the_patient_in_the_folder_above(export):
    cut(export / "P1" / "assessors" / "roi.dcm")
    with pytest.raises(CohortError, match=r"line 2 of the clinical table\): 1 DICOM file.s. in its folders"):
        run(export)


def test_files_of_a_patient_of_whom_nothing_can_be_read(export):
    for path in (export / "P1").rglob("*.dcm"):
        cut(path)
    with pytest.raises(CohortError, match=r"7 DICOM file.s. cannot be read, and no folder tells whose"):
        run(export)
    assert not (export.parent / "out").exists()
    assert run(export, "--dry-run").exit_code == 1
    output = run(export, "--leave-out-faulty", "--keep-ids").output
    cohort = load_cohort(export.parent / "out")
    assert [cohort.has_image(patient) for patient in cohort.patients] == [False, True]
    assert "DICOM files that cannot be read, left out: 7" in output


def strip_preamble(path, *, group_2):
    """The file as an archive without the file format's preamble writes it, with or without its meta header."""
    file = pydicom.dcmread(path)
    if group_2:
        path.write_bytes(path.read_bytes()[132:])
        return
    with path.open("wb") as stream:
        pydicom.filewriter.write_dataset(pydicom.filebase.DicomFileLike(stream), without_meta(file))


def without_meta(file):
    dataset = pydicom.Dataset(file)
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    return dataset


@pytest.mark.parametrize("group_2", [True, False], ids=["with meta header", "without"])
def test_files_without_preamble_are_read(export, group_2):
    paths = [last_slice(export), export / "P1" / "assessors" / "roi.dcm", *series_folder(export, "P2").iterdir()]
    for path in paths:
        strip_preamble(path, group_2=group_2)
        assert path.read_bytes()[128:132] != b"DICM"
    assert "are not DICOM" not in run(export, "--keep-ids").output
    cohort = load_cohort(export.parent / "out")
    for patient in ("P1", "P2"):
        np.testing.assert_array_equal(read_volume(cohort.channel_path(patient, "t1")).array, textured(Grid()))
        np.testing.assert_array_equal(read_volume(cohort.mask_path(patient)).array > 0, blob(Grid()))


def test_files_that_are_not_dicom_are_counted(export):
    (export / "P1" / "readme.txt").write_text("nothing")
    (export / "P1" / "empty").touch()
    assert "note   files that are not DICOM by their content, not used: 2" in run(export, "--dry-run").output


def test_one_series_under_two_names(export):
    for path in series_folder(export).iterdir():
        shutil.copy(path, series_folder(export, "P2") / f"copy_{path.name}")
        rewrite(series_folder(export, "P2") / f"copy_{path.name}", PatientID="P2")
    with pytest.raises(CohortError, match="2 of 2 patients have a fault") as caught:
        run(export)
    assert str(caught.value).count("another patient has too") == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("P1,1,1,1,1\n\nP1 ,2,1,2,1\n", "lines 2 and 4 have the same patient_id"),
        ("P1,1,1,1,1\np1,2,1,2,1\n", "lines 2 and 3 have the same patient_id"),
        ("P1,1,1,1,1\n ,2,1,2,1\n", "line 3 has no patient_id"),
        ("P1,1,1,1,1,\nP2,2,1,2,1,\n", "line 2 has 6 cells, the header 5"),
        ("P1,1,1,1,1\nP2,2,1,2,1,5\n", "line 3 has 6 cells, the header 5"),
        ("P1,1,1,1,1\nP2,2,1\n", "line 3 has 3 cells, the header 5"),
        ('P1,1,1,1,1\nP2,2,1,2,"x" y\n', "cannot be read as a table"),
        ("../../x,1,1,1,1\n", "the patient_id of line 2 cannot name a folder"),
    ],
)
def test_identifiers_that_cannot_be(export, rows, message):
    (export.parent / "clinical.csv").write_text("patient_id,os_days,os_event,dm_days,dm_event\n" + rows)
    with pytest.raises(CohortError, match=message) as caught:
        run(export, "--keep-ids")
    assert "P1" not in str(caught.value)


def test_several_regions_need_a_rule(export):
    grid = Grid()
    path = export / "P1" / "assessors" / "roi.dcm"
    (series,) = scan_export(series_folder(export), ()).series
    drawn_on = Written(series.uid, text(series.header, "FrameOfReferenceUID"), [], [])
    everything = np.ones(grid.size[::-1], bool)
    everything[:, [0, -1]] = everything[:, :, [0, -1]] = False
    write_structures(path, {"GTV": outline(blob(grid), grid), "Body": outline(everything, grid)}, drawn_on)
    run(export, "--keep-ids")  # the map says gtv
    edit_map(export, 'roi = "gtv"', "")
    with pytest.raises(CohortError, match="has 2 regions, and the map does not say"):
        run(export, "--keep-ids", out="again")


def test_volume_within_the_contours_is_kept_and_read_back(export):
    run(export, "--keep-ids")
    out = export.parent / "out"
    volumes = contour_volumes(load_cohort(out))
    # Drawn around the mask, half a voxel outside its centres, the contours cut its corners.
    mask_cm3 = blob(Grid()).sum() * np.prod(Grid().spacing) / 1000
    assert volumes == pytest.approx({"P1": mask_cm3, "P2": mask_cm3}, rel=0.15)
    table = pd.read_csv(out / "acquisition.csv", dtype=str)
    assert table["contour_cm3"].astype(float).tolist() == list(volumes.values())
    (out / "acquisition.csv").write_text(table.assign(contour_cm3=["", "much"]).to_csv(index=False))
    with pytest.raises(CohortError, match="contour_cm3 holds what is no volume"):
        contour_volumes(load_cohort(out))
    (out / "acquisition.csv").write_text(table.assign(contour_cm3=["", "2.5"]).to_csv(index=False))
    assert contour_volumes(load_cohort(out)) == {"P2": 2.5}
    (out / "acquisition.csv").write_text(table.drop(columns="contour_cm3").to_csv(index=False))
    assert contour_volumes(load_cohort(out)) == {}
    (out / "acquisition.csv").unlink()
    assert contour_volumes(load_cohort(out)) == {}


def test_contours_too_small_for_the_pixels_are_said_with_key_and_line(export):
    coarse = Grid(spacing=(3.0, 3.0, 3.0))
    shutil.rmtree(export / "P1")
    series = write_series(export / "P1" / "scans", textured(coarse), coarse)
    diamond = coarse.points([[5.6, 5, 2], [6, 4.6, 2], [6.4, 5, 2], [6, 5.4, 2]])
    write_structures(export / "P1" / "roi.dcm", {"GTV": [diamond]}, series)
    output = run(export, "--keep-ids").output
    assert "note   patient P1 (line 2 of the clinical table): t1_mask: has 0.03 cm³, but its contours" in output


def test_out_below_a_file(export):
    with pytest.raises(CohortError, match="cannot be made"):
        run(export, out="clinical.csv/out")


def test_dry_run_makes_no_salt(export):
    run(export, "--dry-run", "--salt", str(export.parent / "salt"))
    assert not (export.parent / "salt").exists()


def test_a_number_in_the_headers_stays_a_number(export):
    for path in export.rglob("*.dcm"):
        rewrite(path, **({"RepetitionTime": "1500"} if "scans" in path.parts else {}))
    (export.parent / "clinical.csv").write_text("patient_id,os_days,os_event,dm_days,dm_event\n500,5,1,5,1\n")
    for path in (export / "P1").rglob("*.dcm"):
        rewrite(path, PatientID="500")
    run(export, "--salt", str(export.parent / "salt"))
    acquisition = pd.read_csv(export.parent / "out" / "acquisition.csv")
    assert acquisition["RepetitionTime"].tolist() == [1500]


def test_most_slices_chooses_among_matches(export):
    second_match(export)
    shutil.rmtree(export / "P1" / "more")
    large = Grid(size=(12, 10, 9))
    write_series(export / "P1" / "more", textured(large), large, tags={"SeriesDescription": "T1 post"})
    edit_map(export, 'description = "t1"', 'description = "t1"\nchoose = "most_slices"')
    with pytest.raises(CohortError, match="has no tumour outline on t1"):
        run(export)  # the outline is on the other series: it is not carried over to images that it was not drawn on


def test_tags_and_exclude_tell_series_apart(export):
    second_match(export)
    edit_map(export, 'description = "t1"', 'description = "t1"\nexclude = "late"')
    run(export, "--keep-ids")
    assert load_cohort(export.parent / "out").has_image("P1")
    shutil.rmtree(export.parent / "out")
    edit_map(export, 'exclude = "late"', 'tags = { EchoTime = "^12" }')
    for path in series_folder(export).iterdir():
        rewrite(path, EchoTime=12.5)
    run(export, "--keep-ids")
    cohort = load_cohort(export.parent / "out")
    assert (cohort.has_image("P1"), cohort.has_image("P2")) == (True, False)


def test_key_from_another_tag(export):
    for path in export.rglob("*.dcm"):
        rewrite(path, PatientID="x", ClinicalTrialSubjectID="STUDY-" + path.relative_to(export).parts[0])
    edit_map(
        export, "[[channels]]", '[patient]\ntag = "ClinicalTrialSubjectID"\npattern = "STUDY-(.+)"\n\n[[channels]]'
    )
    run(export, "--keep-ids")
    assert load_cohort(export.parent / "out").has_image("P2")


def test_nifti_masks_by_their_path(export):
    run(export, "--keep-ids")
    for patient in ("P1", "P2"):
        mask = export.parent / "out" / "images" / patient / "t1_mask.nii.gz"
        shutil.copy(mask, export / f"{patient}_seg.nii.gz")
        shutil.rmtree(export / patient / "assessors")
    edit_map(export, 'roi = "gtv"', "files = '(?P<patient>P\\d)_seg.nii.gz'")
    run(export, "--keep-ids", out="again")
    cohort = load_cohort(export.parent / "again")
    np.testing.assert_array_equal(read_volume(cohort.mask_path("P2")).array > 0, blob(Grid()))
    assert contour_volumes(cohort) == {}


def test_patients_without_images_and_images_without_a_row(export):
    (export.parent / "clinical.csv").write_text(
        "patient_id,os_days,os_event,dm_days,dm_event\nP1,5,1,5,1\nP9,6,1,6,1\n"
    )
    result = run(export, "--keep-ids")
    assert "patients of the export without a row in the clinical table, left out: 1" in result.output
    assert "patients of the clinical table who are not in the export: 1" in result.output
    assert load_cohort(export.parent / "out").patients == ("P1", "P9")


def test_burned_in_annotation_and_lossy_compression_are_reported(export):
    for path in series_folder(export).iterdir():
        rewrite(path, BurnedInAnnotation="YES", LossyImageCompression="01")
    output = run(export, "--keep-ids").output
    assert "burned-in annotations" in output
    assert "compressed with loss" in output
    acquisition = pd.read_csv(export.parent / "out" / "acquisition.csv", index_col="patient_id")
    assert acquisition.loc["P1", "BurnedInAnnotation"] == "YES"


def test_clinical_faults_are_named_by_line_and_column_without_what_the_cells_hold(export):
    table = export.parent / "clinical.csv"
    table.rename(export.parent / "c2.csv")
    (export.parent / "c2.csv").write_text(
        "patient_id,age,sex,os_days,os_event,dm_days,dm_event\n"
        "P1,Johanna,Mueller,Lindenweg,4711,,1\nP2,230,F,-77,1,5,1\n"
    )
    with pytest.raises(CohortError, match="faults in the clinical table: 7") as caught:
        run(export, "--clinical", str(export.parent / "c2.csv"))
    message = str(caught.value).removeprefix(str(export.parent))
    assert message.startswith("/c2.csv")
    assert "line 2, column age: is no number from 0 to 120 (years)" in message
    assert "line 2, column dm_days: is empty although its event is given" in message
    assert "line 3, column os_days: is no number of days" in message
    for word in ("Johanna", "Mueller", "Lindenweg", "4711", "230", "77", "P1", "line-", "clinical.csv", "cohort.toml"):
        assert word not in message


def test_a_missing_endpoint_names_the_map(export):
    table = export.parent / "clinical.csv"
    table.write_text("patient_id,dm_days,dm_event\nP1,5,1\n")
    with pytest.raises(CohortError, match=r"column os_days: is missing; add it, or change endpoints in .*MAP.toml"):
        run(export)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[masks]", "[mask]", "mask: unknown key; choose from name, site"),
        ('modality = "MR"', "", r"not valid\n  channel t1: modality: is missing; add it$"),
        ('modality = "MR"', 'modality = "MRI"', "channel t1: modality: 'MRI' is no choice; choose from 'MR', 'PT'"),
        ('description = "t1"', 'descripton = "t1"', "channel t1: descripton: unknown key; choose from name, modality"),
        ('site = "north"', 'site = "no rth"', "site: 'no rth' is no name; use letters"),
        ('description = "t1"', 'description = "t1("', "no regular expression"),
        ('description = "t1"', 'tags = { EchoTim = "1" }', "no DICOM keyword"),
        ('roi = "gtv"', 'channel = "t2"', "is not a channel; choose from t1"),
        ('roi = "gtv"', 'files = "seg"', "has no group"),
        ('name = "t1"', 'name = "t1_mask"', "a channel cannot be called mask"),
        ('site = "north"', 'site = "no rth"', "site"),
    ],
)
def test_wrong_map(export, old, new, message):
    edit_map(export, old, new)
    with pytest.raises(CohortError, match=message):
        run(export)


def test_folder_without_dicom(export):
    shutil.rmtree(export)
    export.mkdir()
    with pytest.raises(CohortError, match="holds no DICOM file in 0 files"):
        run(export)


SAMPLE_MAP = """
name = "sample"
site = "mcgill"
time_zero = "diagnosis"

[[channels]]
name = "t1"
modality = "MR"

[[channels]]
name = "pet"
modality = "PT"

[masks]
roi = "GTV_Mass"
"""


@pytest.mark.real_data
def test_real_sample_gives_the_published_images_and_masks(real_data, tmp_path):
    source = real_data / "sts_dicom_sample"
    export = tmp_path / "export"
    shutil.copytree(source, export)
    (tmp_path / "MAP.toml").write_text(SAMPLE_MAP)
    (tmp_path / "clinical.csv").write_text(
        "patient_id,os_days,os_event,dm_days,dm_event\nSTS_015,5,1,5,1\nSTS_024,6,1,6,1\n"
    )
    run(export, "--keep-ids")
    for patient in ("STS_015", "STS_024"):
        folder = tmp_path / "out" / "images" / patient
        for channel, part, tolerance in (("t1", "MR_T1", 0), ("pet", "PET", 3e-6)):
            volume = read_volume(folder / f"{channel}.nii.gz")
            published = read_volume(real_data / "sts_public" / patient / f"{channel}.nii.gz")
            np.testing.assert_allclose(volume.array, published.array, rtol=0, atol=tolerance)
            np.testing.assert_allclose(volume.geometry.origin, published.geometry.origin, atol=1e-3)
            mask = read_volume(folder / f"{channel}_mask.nii.gz")
            expected = read_volume(source / patient / part / "expected_mask.nii.gz")
            np.testing.assert_array_equal(mask.array > 0, expected.array > 0)


def test_table_without_identifiers(export):
    (export.parent / "clinical.csv").write_text("id,os_days\nP1,5\n")
    with pytest.raises(CohortError, match="has no column patient_id"):
        run(export)


def test_table_whose_lines_all_end_in_a_comma(export):
    path = export.parent / "clinical.csv"
    path.write_text(path.read_text().replace("\n", ",\n"))
    output = run(export, "--keep-ids").output
    assert load_cohort(export.parent / "out").clinical["age"].tolist() == [50, 60]
    assert "columns that are not" not in output


def test_table_with_a_column_twice(export):
    path = export.parent / "clinical.csv"
    path.write_text(path.read_text().replace("dm_event", "dm_days"))
    with pytest.raises(CohortError, match="has a column twice"):
        run(export)


NOTHING = {
    "description": (lambda export: edit_map(export, '"t1"\n\n[masks', '"t7"\n\n[masks'), "2 MR there"),
    "modality": (lambda export: edit_map(export, '"MR"', '"PT"'), "channels.t1: its modality PT matches 0"),
    "pattern": (
        lambda export: edit_map(export, "[[channels]]", '[patient]\npattern = "^X(.+)"\n\n[[channels]]'),
        "patient.pattern finds a number in PatientID of 0 of 4 series",
    ),
    "table": (
        lambda export: [rewrite(path, PatientID="other") for path in export.rglob("*.dcm")],
        "no patient_id of the clinical table is a patient of the export",
    ),
}


@pytest.mark.parametrize("rule", NOTHING)
def test_an_import_that_takes_nothing_names_the_rule(export, rule):
    spoil, message = NOTHING[rule]
    spoil(export)
    with pytest.raises(CohortError, match=message):
        run(export)
    assert not (export.parent / "out").exists()
    result = run(export, "--dry-run")
    assert result.exit_code == 1
    assert "fault  no " in result.output
    run(export, "--leave-out-faulty")
    assert len(load_cohort(export.parent / "out").patients) == 2


def test_dry_run_finds_a_missing_slice_and_says_what_it_does_not_read(export):
    sorted(series_folder(export).iterdir())[2].unlink()
    result = run(export, "--dry-run")
    assert result.exit_code == 1
    assert "channel t1: lacks 1 slice" in result.output
    assert "Pixels, contours" in result.output


def test_dry_run_says_which_part_of_a_rule_failed(export):
    write_series(export / "P1" / "loc", textured(Grid()), Grid(), tags={"SeriesDescription": "localiser"})
    output = " ".join(run(export, "--dry-run").output.split())
    assert "no rule matches: not t1 by its description" in output
    assert "matches by modality and description" in output


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("out", ["--salt", "out/s.salt"], "the salt must lie outside"),
        ("export/out", [], "must lie outside the export"),
        ("MAP.toml", [], "is a file; name a new folder"),
    ],
)
def test_places_that_cannot_be(export, out, options, message, monkeypatch):
    monkeypatch.chdir(export.parent)
    before = sorted(export.parent.rglob("*"))
    with pytest.raises(CohortError, match=message):
        run(export, *options, out=out)
    assert sorted(export.parent.rglob("*")) == before


def test_out_that_is_there_is_refused_before_the_export_is_read(export):
    (export.parent / "out").mkdir()
    (export.parent / "out" / "mine").touch()
    shutil.rmtree(export)
    with pytest.raises(CohortError, match="already there and not empty"):
        run(export)


def test_a_file_as_source(export):
    with pytest.raises(CohortError, match="is a file; name the folder"):
        run(export.parent / "MAP.toml")


def test_a_copied_outline_is_told_from_a_second_set(export):
    path = export / "P1" / "assessors" / "roi.dcm"
    shutil.copy(path, path.with_name("copy.dcm"))
    with pytest.raises(CohortError, match=r"RTSTRUCT 'contours'\) is there 2 times, the same in every byte"):
        run(export)
    rewrite(path, StudyDate="20200101")
    with pytest.raises(CohortError, match="holds 2 different sets of outlines"):
        run(export)


def test_the_file_of_a_damaged_slice_is_named_to_who_asks(export):
    break_slice(export)
    path = sorted(series_folder(export).iterdir())[3].relative_to(export)
    for options, named in ((("--leave-out-faulty",), False), (("--leave-out-faulty", "--show-sources"), True)):
        output = run(export, *options, out=f"out{named}").output
        assert (f"file   {path}: channel t1: slice" in output) == named
        assert str(path) not in output or named
        assert "ValueError" not in output
