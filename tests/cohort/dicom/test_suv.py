"""SUV by body weight against its closed form."""

import numpy as np
import pytest
from dicom_export import Grid, rewrite, textured, write_series
from pydicom.dataset import Dataset

from stsmm_core.cohort.dicom.scan import scan_export
from stsmm_core.cohort.dicom.series import read_series
from stsmm_core.cohort.dicom.suv import first_acquisition, suv_per_unit
from stsmm_core.errors import CohortError

HALF_LIFE = 6586.2


def pet(**changes) -> Dataset:
    """An hour between injection and scan, 350 MBq, 70 kg."""
    header, injection = Dataset(), Dataset()
    header.Units, header.DecayCorrection, header.PatientWeight = "BQML", "START", 70.0
    header.SeriesDate = header.AcquisitionDate = "20200131"
    header.SeriesTime = header.AcquisitionTime = "130000.5"
    injection.RadionuclideTotalDose, injection.RadionuclideHalfLife = 350e6, HALF_LIFE
    injection.RadiopharmaceuticalStartTime = "120000"
    header.RadiopharmaceuticalInformationSequence = [injection]
    for keyword, value in changes.items():
        setattr(injection if keyword.startswith("Radi") else header, keyword, value)
    return header


def test_decay_to_the_start_of_the_scan():
    assert suv_per_unit(pet()) == pytest.approx(70e3 / (350e6 * 0.5 ** (3600 / HALF_LIFE)), rel=1e-3)


def test_image_corrected_to_the_injection_needs_no_decay():
    assert suv_per_unit(pet(DecayCorrection="ADMIN")) == pytest.approx(70e3 / 350e6)


def test_injection_before_midnight_has_its_own_date():
    header = pet(SeriesTime="003000", AcquisitionTime="003000")
    header.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = "20200130233000.00"
    assert suv_per_unit(header) == pytest.approx(70e3 / (350e6 * 0.5 ** (3600 / HALF_LIFE)))


def test_values_in_suv_already_are_left_alone():
    assert suv_per_unit(pet(Units="GML", SUVType="BW")) == 1
    with pytest.raises(CohortError, match="SUV by LBM"):
        suv_per_unit(pet(Units="GML", SUVType="LBM"))


def test_the_series_begins_with_its_first_slice():
    beds = [pet(AcquisitionTime=time) for time in ("132000", "130100", "131000", "")]
    began = first_acquisition(beds)
    assert suv_per_unit(beds[0], began) == suv_per_unit(beds[1], began) == suv_per_unit(pet())
    with pytest.raises(CohortError, match="SeriesTime is 20 min before its first AcquisitionTime"):
        suv_per_unit(beds[0], first_acquisition([beds[0]]))
    with pytest.raises(CohortError, match="derived series"):
        suv_per_unit(beds[0], first_acquisition([*beds, pet(AcquisitionTime="125900")]))
    assert first_acquisition([Dataset()]) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Units": "CNTS"}, "units 'CNTS'"),
        ({"PatientWeight": None}, "without PatientWeight"),
        ({"PatientWeight": 0}, "without PatientWeight above 0"),
        ({"RadionuclideTotalDose": None}, "without RadionuclideTotalDose"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection 'NONE'"),
        ({"SeriesTime": ""}, "without the times"),
        ({"SeriesTime": "140000"}, "derived series"),
        ({"SeriesTime": "122000"}, "SeriesTime is 40 min before its first AcquisitionTime"),
        ({"RadiopharmaceuticalStartTime": "133000"}, "injected after"),
        ({"RadiopharmaceuticalStartDateTime": "20200117120000"}, "half-lives before the series"),
        ({"RadiopharmaceuticalStartDateTime": "20190131120000"}, "half-lives before the series"),
        ({"RadiopharmaceuticalStartDateTime": "20200131110000.00+0000"}, "different time zones"),
        ({"RadionuclideTotalDose": 350}, "RadionuclideTotalDose 350, which cannot be in Bq"),
        ({"PatientWeight": 70000}, "PatientWeight 70000, which cannot be in kg"),
        ({"RadionuclideHalfLife": 109.8}, "half-life is not in seconds"),
        ({"CorrectedImage": ["NORM", "DTIM"]}, "without attenuation correction"),
    ],
)
def test_header_that_does_not_tell(changes, message):
    with pytest.raises(CohortError, match=message):
        suv_per_unit(pet(**changes))


def test_a_pet_series_comes_in_suv(tmp_path):
    grid, header = Grid(), pet()
    tags = {element.keyword: element.value for element in header} | {"RescaleSlope": 2.0, "RescaleIntercept": 0.0}
    write_series(tmp_path, textured(grid), grid, modality="PT", tags=tags)
    (series,) = scan_export(tmp_path, ()).series
    np.testing.assert_allclose(read_series(series)[0].array, textured(grid) * 2 * suv_per_unit(header), rtol=1e-6)


def test_beds_of_a_series_are_scanned_one_after_another(tmp_path):
    grid, header = Grid(), pet()
    tags = {element.keyword: element.value for element in header}
    written = write_series(tmp_path, textured(grid), grid, modality="PT", tags=tags)
    for index, path in enumerate(written.paths):
        rewrite(path, AcquisitionTime=f"13{10 * (index // 2):02d}01")  # the last bed 20 min after the first
    (series,) = scan_export(tmp_path, ()).series
    np.testing.assert_allclose(read_series(series)[0].array, textured(grid) * suv_per_unit(header), rtol=1e-6)
    for path in written.paths[:2]:
        rewrite(path, AcquisitionTime="131001")
    (series,) = scan_export(tmp_path, ()).series
    with pytest.raises(CohortError, match="SeriesTime is 10 min before"):
        read_series(series)
