"""What headers say of a series is passed on to the person who imports it, and refuses nothing."""

import pytest
from dicom_export import Grid, rewrite, textured, write_series
from dicom_running import edit_map, run, series_folder
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from stsmm_core.cohort.dicom.oddities import series_notes
from stsmm_core.cohort.dicom.scan import Instance, Series
from stsmm_core.cohort.reading import load_cohort

T2 = """
[[channels]]
name = "t2"
modality = "MR"
description = "t2"

[masks]"""


@pytest.mark.parametrize(("study", "said"), [(generate_uid(entropy_srcs=["study"]), True), (None, False), ("", False)])
def test_channels_from_two_studies(export, study, said):
    edit_map(export, "[masks]", T2)
    for patient in ("P1", "P2"):
        tags = {"SeriesDescription": "T2 fs"}
        if study is not None and patient == "P1":
            tags["StudyInstanceUID"] = study
        write_series(export / patient / "t2", textured(Grid()), Grid(), patient=patient, tags=tags)
    for output in (run(export, "--keep-ids", "--dry-run").output, run(export, "--keep-ids").output):
        note = "note   patient P1 (line 2 of the clinical table): its channels come from 2 studies"
        assert (note in output) == said
        assert output.count("its channels come from") == said
    assert load_cohort(export.parent / "out").has_image("P1")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, True),
        ({"ImageType": ["ORIGINAL", "SECONDARY"]}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.1"}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M_SE", "SECONDARY"]}, False),
        ({"ImageType": "ORIGINAL"}, False),
        ({"ImageType": None}, False),
    ],
    ids=str,
)
def test_derived_series_and_screenshots_are_counted_by_channel_and_imported(export, tags, said):
    for patient in ("P1", "P2"):
        for path in series_folder(export, patient).iterdir():
            rewrite(path, **tags)
    output = run(export, "--keep-ids").output
    assert ("channel t1: the series of 2 patients are DERIVED or SECONDARY images by their header" in output) == said
    assert output.count("are DERIVED") == said
    assert load_cohort(export.parent / "out").has_image("P1")


@pytest.mark.parametrize(
    ("header_mm", "times"),
    [("1.5", 2), ("1.48", 2), ("1.0", 3), ("1.6", 0), ("3.0", 0), ("6.0", 0), ("0", 0), ("-1.5", 0), ("1.5\\1.5", 0)],
)
def test_slices_a_multiple_of_their_spacing_apart(export, header_mm, times):
    for path in series_folder(export).iterdir():
        rewrite(path, SpacingBetweenSlices=header_mm)
    output = run(export, "--keep-ids").output
    note = f"patient P1 (line 2 of the clinical table): channel t1 has slices 3.00 mm apart, {times} times the"
    assert (note in output) == bool(times)
    assert output.count("times the") == bool(times)
    assert load_cohort(export.parent / "out").has_image("P1")


@given(st.text(max_size=12), st.floats(0.1, 50))
def test_a_header_of_any_kind_neither_stops_the_import_nor_is_quoted(value, slices_apart_mm):
    header = Dataset()
    header.add_new("SpacingBetweenSlices", "LO", value)
    header.add_new("BurnedInAnnotation", "LO", value)
    series = Series("1", (Instance("", header),))
    for note in series_notes(series, slices_apart_mm=slices_apart_mm):
        assert float(value) > 0
        assert note.startswith("has slices")
