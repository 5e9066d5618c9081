"""Nothing that is written or printed names a patient, and texts are cleaned of no more than that."""

import gzip
import re
import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest
from dicom_export import Grid, rewrite, textured, write_series
from dicom_running import edit_map, run, series_folder
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from stsmm_core.cohort.dicom.pseudonyms import cleaned, identifiers, identifiers_of
from stsmm_core.errors import CohortError

PLANTED = {
    "PatientName": "Mustermann^Erika",
    "PatientBirthDate": "19571224",
    "PatientID": "H4711-0815",
    "AccessionNumber": "ACC998877",
    "OtherPatientIDs": "INSUR5566",
    "ReferringPhysicianName": "Hausarzt^Hans",
    "InstitutionName": "Spital Hintertupfing",
    "PatientAddress": "Lindenweg 99",
    "StudyDescription": "Mustermann study",
    "SeriesDescription": "T1 post Mustermann 19571224",
    "ProtocolName": "t1 ERIKA special",
    "StationName": "STATION77",
    "ImageComments": "call Erika Mustermann",
    "StudyDate": "20190203",
    "OperatorsName": "Technikerin^Tina",
    "ManufacturerModelName": "Scanner of Hausarzt and Technikerin",
    "ScanningSequence": "ERIKA",
    "ImageType": ["DERIVED", "SECONDARY", "MUSTERMANN"],  # notes are made of these two
    "SpacingBetweenSlices": "1.5",
}


@pytest.mark.parametrize("spoiled", [False, True], ids=["good", "with a fault"])
def test_nothing_that_is_written_or_printed_names_a_patient(export, spoiled, capfd):
    root = export.parent
    folder = export / "Mustermann_Erika"
    (export / "P1").rename(folder)
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        file = pydicom.dcmread(path)
        for keyword, value in PLANTED.items():
            setattr(file, keyword, value)
        block = file.private_block(0x0011, "ACME", create=True)
        block.add_new(0x10, "LO", "Mustermann private 4711")
        file.save_as(path.with_name(f"Mustermann_{number}.dcm"))
        path.unlink()
    table = (root / "clinical.csv").read_text().replace("P1,", "H4711-0815,").splitlines()
    table = [f"{line},{extra}" for line, extra in zip(table, ("surname", "Mustermann", "Doe"), strict=True)]
    (root / "clinical.csv").write_text("\n".join(table))
    if spoiled:
        next(path for path in folder.rglob("*.dcm") if pydicom.dcmread(path).get("InstanceNumber") == 3).unlink()
    printed = run(export, "--dry-run").output
    try:
        printed += run(export, "--leave-out-faulty", "--salt", str(root / "salt")).output
        if spoiled:
            run(export, out="again")
    except CohortError as error:
        assert spoiled
        printed += str(error)
    printed += "".join(capfd.readouterr())  # what libraries print past Python, too
    written = b"".join(
        str(path.relative_to(root)).encode()
        + (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        for path in (root / "out").rglob("*")
        if path.is_file()
    )
    assert len(written) > 1000
    assert ("lacks 1 slice" in printed) == spoiled
    assert ("SpacingBetweenSlices" in printed) != spoiled
    assert "are DERIVED" in printed
    planted = ["mustermann", "erika", "4711", "19571224", "998877", "5566", "hausarzt", "hintertupfing", "lindenweg"]
    planted += ["technikerin"]
    planted += ["station77", "20190203", "acme"]
    for word in planted:
        assert word not in printed.lower(), word
        assert word.encode() not in written.lower(), word


def test_acquisition_keeps_the_terms_of_the_standard_and_no_other_word(export):
    for path in series_folder(export).iterdir():
        rewrite(
            path,
            PatientID="P1",
            PatientName="Meyer-Landrut^Lena",
            PatientBirthDate="19500304",
            OperatorsName="Kowalski",
            Manufacturer="SIEMENS Meyer, Kowalski",
            ManufacturerModelName="Skyra of 4.3.1950",
            ScanningSequence=["P1", "SE"],
            SequenceVariant="MUELLER",
            MRAcquisitionType="3D",
            RepetitionTime="1500.0",
            EchoTime="19500304",
            FlipAngle="-5",
            BurnedInAnnotation="LENA",
        )
    run(export, "--keep-ids")
    kept = pd.read_csv(export.parent / "out" / "acquisition.csv", dtype=str, keep_default_na=False).iloc[0]
    expected = {
        "Manufacturer": "SIEMENS ***, ***",
        "ManufacturerModelName": "Skyra of ***",
        "Modality": "MR",
        "ScanningSequence": "SE",
        "SequenceVariant": "",
        "MRAcquisitionType": "3D",
        "RepetitionTime": "1500",
        "EchoTime": "",
        "FlipAngle": "",
        "SliceThickness": "3",
        "BurnedInAnnotation": "",
    }
    assert {name: kept[name] for name in expected} == expected


DATES = ["19500304", "04031950", "500304", "040350", "04.03.1950", "4.3.1950", "04.03.50", "4.3.50"]
DATES += ["3/4/1950", "03/04/50", "1950-3-4", "50-03-04", "4_3_1950", "4. 3. 1950"]


@pytest.mark.parametrize(
    ("keyword", "value", "text", "expected"),
    [
        ("PatientName", "Meyer-Landrut^Lena", "T1 meyer LANDRUT", "T1 *** ***"),
        ("PatientName", "O'Neill^Jo.Ann", "t1_neill_ann", "t1_***_***"),
        ("PatientName", "Smith2^A", "smith", "***"),
        ("OtherPatientNames", "Schmidt^Eva", "Schmidt", "***"),
        ("PatientBirthName", "Kraus", "Kraus", "***"),
        ("OperatorsName", "Kowalski^T", "seen by Kowalski", "seen by ***"),
        ("PerformingPhysicianName", ["Roth^U", "Weber^K"], "Weber/Roth", "***/***"),
        ("RequestingPhysician", "Lang", "Lang", "***"),
        ("PatientTelephoneNumbers", "030 1234567", "call 1234567", "call ***"),
        ("PatientTelephoneNumbers", "030 1234567", "slice 30 of 130", "slice 30 of 130"),
        ("PatientAddress", "Lindenweg 99", "Lindenweg", "***"),
        ("PatientID", "H4711-0815", "4711", "***"),
        ("OtherPatientIDsSequence", "H4711-0815", "H4711-0815", "***"),
        *(("PatientBirthDate", "19500304", f"T1 {date} x", "T1 *** x") for date in DATES),
        ("PatientBirthDate", "19501124", "T1 24.11.50 1.1.50", "T1 *** 1.1.50"),
    ],
)
def test_what_is_blanked(keyword, value, text, expected):
    header = Dataset()
    if keyword.endswith("Sequence"):
        item = Dataset()
        item.PatientID, value = value, [item]
    setattr(header, keyword, value)
    assert cleaned(text, identifiers(header)) == expected


def test_names_of_two_letters_are_blanked_where_they_stand_alone(export, capfd):
    root = export.parent
    for path in (export / "P1").rglob("*.dcm"):
        tags = {"SeriesDescription": "T1_NG_post Li, Singular limb"} if "scans" in path.parts else {}
        rewrite(path, PatientName="Ng^Li", ManufacturerModelName="Scanner of NG", **tags)
    printed = run(export, "--dry-run").output
    assert "T1_***_post ***, Singular limb" in printed
    printed += run(export, "--salt", str(root / "salt")).output
    acquisition = pd.read_csv(root / "out" / "acquisition.csv")
    assert "Scanner of ***" in acquisition["ManufacturerModelName"].tolist()
    write_series(export / "P1" / "more", textured(Grid()), Grid(), tags={"SeriesDescription": "T1 Li late"})
    with pytest.raises(CohortError, match=r"2 series match channel t1: .*T1 \*\*\* late', 6 slices") as caught:
        run(export, out="again")
    printed += str(caught.value) + "".join(capfd.readouterr())
    assert not re.search(r"(?<![a-z])(ng|li)(?![a-z])", printed, re.IGNORECASE)


def test_what_the_image_library_prints_names_no_patient(export, capfd):
    run(export, "--keep-ids")
    for patient in ("P1", "P2"):
        written = export.parent / "out" / "images" / patient / "t1_mask.nii.gz"
        content = bytearray(gzip.decompress(written.read_bytes()))
        content[284:288] = np.float32(0.3).tobytes()  # a skewed sform, at which ITK warns with the file's path
        (export / f"Mustermann_{patient}_seg.nii").write_bytes(content)
        shutil.rmtree(export / patient / "assessors")
    edit_map(export, 'roi = "gtv"', "files = 'Mustermann_(?P<patient>P\\d)_seg.nii'")
    with pytest.raises(CohortError, match="t1_mask: the NIfTI mask: its two transforms") as refused:
        run(export, out="again")
    assert "mustermann" not in (str(refused.value) + "".join(capfd.readouterr())).lower()


def test_a_short_number_does_not_blank_the_messages(export):
    for path in (export / "P1").rglob("*.dcm"):
        rewrite(path, PatientID="1")
    table = export.parent / "clinical.csv"
    table.write_text(table.read_text().replace("P1,", "1,"))
    sorted(series_folder(export).iterdir())[2].unlink()
    with pytest.raises(CohortError, match="channel t1: lacks 1 slice"):
        run(export)


def test_the_key_within_the_number_is_blanked_too(export):
    edit_map(export, "[[channels]]", '[patient]\npattern = "^H(.+)$"\n\n[[channels]]')
    for path in (export / "P1").rglob("*.dcm"):
        rewrite(path, PatientID="H4711815", SeriesDescription="T1 post 4711815 24.12.1957", PatientBirthDate="19571224")
    table = export.parent / "clinical.csv"
    table.write_text(table.read_text().replace("P1,", "4711815,"))
    output = run(export, "--dry-run").output
    assert "T1 post *** ***" in output
    assert "4711815" not in output
    assert "1957" not in output


word = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("T1 Ng post", "T1 *** post"),
        ("t1_NG_li", "t1_***_***"),
        ("ng", "***"),
        ("Ng^Li", "***"),
        ("Singular limb, long TR, Ngo", "Singular limb, long TR, Ngo"),
        ("slice 3 of 6", "slice 3 of 6"),
        ("T1 A post", "T1 A post"),
        ("preANNApost", "pre***post"),
        ("seen in hintertupfing", "seen in ***"),
    ],
)
def test_two_letters_are_blanked_alone_and_longer_ones_anywhere(text, expected):
    header = Dataset()
    header.PatientName, header.OtherPatientIDs, header.ReferringPhysicianName = "Ng^Li", "A", "Anna"
    header.InstitutionName = "Spital of Hintertupfing"
    assert cleaned(text, identifiers(header)) == expected


@given(word, word, st.lists(st.sampled_from(["T1", "_", " ", "post", "(", ",", "^"]), max_size=6))
def test_no_part_of_a_name_is_left_as_a_word(family, given_name, around):
    header = Dataset()
    header.PatientName = f"{family}^{given_name}"
    text = " ".join([*around, family, *around, given_name])
    left = re.split(r"[\W_]+", cleaned(text, identifiers_of("x", [header])).lower())
    assert not {part.lower() for part in (family, given_name) if len(part) > 1} & set(left)


def test_identifiers_of_every_patient_are_blanked_in_every_description(export):
    """One of the table, one of the headers, and a stranger's whom the table does not know."""
    for path in (export / "P2").rglob("*.dcm"):
        rewrite(path, PatientID="H4712-0816", PatientName="Schmidt^Art")
    stranger = write_series(export / "stranger", textured(Grid()), Grid(), patient="X998877")
    rewrite(stranger.paths[0], PatientName="Kowalski^Eva")
    table = export.parent / "clinical.csv"
    table.write_text(table.read_text().replace("P2,", "H4712-0816,") + "T5511,70,1,1,1,1\n")
    for path in series_folder(export).iterdir():
        rewrite(path, SeriesDescription="T1 arterial Schmidt Art H4712-0816 X998877 T5511")
    write_series(export / "P1" / "more", textured(Grid()), Grid(), tags={"SeriesDescription": "T1 post schmidt"})
    output = run(export, "--dry-run").output
    assert "T1 arterial *** *** *** *** ***" in output
    assert "T1 post ***', 6 slices" in output
    assert "schmidt" not in output.lower()


odd = st.sampled_from("ai\u0131\u0130Is\u017fk\u212a\u00df")  # letters whose cases are more than two


@given(st.text(odd, max_size=6), st.text(odd, min_size=3, max_size=4))
def test_the_short_cut_of_blanking_misses_nothing(around, secret):
    value = around + secret.swapcase() + around + secret + around
    assert cleaned(value, {secret}) == re.sub(re.escape(secret), "***", value, flags=re.IGNORECASE)


def test_acquisition_is_in_the_order_of_the_keys(export):
    """Not in that of the hospital's table, which would tell who is who."""
    table = export.parent / "clinical.csv"
    header, first, second = table.read_text().splitlines()
    for out, lines in (("one", (header, first, second)), ("two", (header, second, first))):
        table.write_text("\n".join(lines))
        run(export, "--salt", str(export.parent / "salt"), out=out)
    one, two = ((export.parent / out / "acquisition.csv").read_text() for out in ("one", "two"))
    assert one == two
