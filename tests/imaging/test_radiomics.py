import builtins
import logging
import sys

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from plain_imaging import imaging, named

from stsmm_core.config import Radiomics
from stsmm_core.errors import CohortError, RunError
from stsmm_core.imaging import radiomics as module
from stsmm_core.imaging.batch import Job
from stsmm_core.imaging.radiomics import (
    cached_features,
    extract,
    patient_features,
    radiomics_table,
    reproducible_features,
)

IMAGING = imaging(margin_mm=3)
CONFIG = Radiomics(bin_count=8)

# The digital phantom of IBSI 1 (reference manual, arXiv 1612.07003, section 5.1): 2 mm voxels, 0 is outside the region.
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)

# Consensus values, three significant digits as published; textures in 3D, those over directions averaged.
IBSI = {
    "shape": {
        "MeshVolume": 556,
        "VoxelVolume": 592,
        "SurfaceArea": 388,
        "SurfaceVolumeRatio": 0.698,
        "Sphericity": 0.843,
        "Maximum3DDiameter": 13.1,
        "Elongation": 0.816,
        "Flatness": 0.749,
    },
    "firstorder": {
        "Mean": 2.15,
        "Variance": 3.05,
        "Skewness": 1.08,
        "Median": 1,
        "Minimum": 1,
        "10Percentile": 1,
        "90Percentile": 4,
        "Maximum": 6,
        "InterquartileRange": 3,
        "Range": 5,
        "MeanAbsoluteDeviation": 1.55,
        "RobustMeanAbsoluteDeviation": 1.11,
        "Energy": 567,
        "RootMeanSquared": 2.77,
        "Entropy": 1.27,
        "Uniformity": 0.512,
    },
    "glcm": {
        "MaximumProbability": 0.503,
        "JointAverage": 2.14,
        "SumSquares": 3.1,
        "JointEntropy": 2.4,
        "DifferenceAverage": 1.43,
        "DifferenceVariance": 3.06,
        "DifferenceEntropy": 1.56,
        "SumAverage": 4.29,
        "SumEntropy": 1.92,
        "JointEnergy": 0.303,
        "Contrast": 5.32,
        "Id": 0.677,
        "Idn": 0.851,
        "Idm": 0.618,
        "Idmn": 0.898,
        "InverseVariance": 0.0604,
        "Correlation": 0.157,
        "Autocorrelation": 5.06,
        "ClusterTendency": 7.07,
        "ClusterShade": 16.6,
        "ClusterProminence": 145,
        "Imc1": -0.157,
        "Imc2": 0.52,
    },
    "glrlm": {
        "ShortRunEmphasis": 0.705,
        "LongRunEmphasis": 3.06,
        "LowGrayLevelRunEmphasis": 0.603,
        "HighGrayLevelRunEmphasis": 9.7,
        "GrayLevelNonUniformity": 21.8,
        "RunLengthNonUniformity": 26.9,
        "RunPercentage": 0.68,
        "GrayLevelVariance": 3.46,
        "RunVariance": 0.574,
        "RunEntropy": 2.43,
    },
    "glszm": {
        "SmallAreaEmphasis": 0.255,
        "LargeAreaEmphasis": 550,
        "HighGrayLevelZoneEmphasis": 15.6,
        "GrayLevelNonUniformity": 1.4,
        "SizeZoneNonUniformity": 1,
        "ZonePercentage": 0.0676,
        "ZoneVariance": 331,
        "ZoneEntropy": 2.32,
    },
    "gldm": {
        "SmallDependenceEmphasis": 0.045,
        "LargeDependenceEmphasis": 109,
        "GrayLevelNonUniformity": 37.9,
        "DependenceNonUniformity": 4.86,
        "DependenceVariance": 22.1,
        "DependenceEntropy": 4.4,
    },
    "ngtdm": {"Coarseness": 0.0296, "Contrast": 0.584, "Busyness": 6.54, "Complexity": 13.5, "Strength": 0.763},
}


@pytest.fixture(scope="module")
def phantom_features():
    image = sitk.GetImageFromArray(np.pad(PHANTOM, 1).astype(float))
    mask = sitk.GetImageFromArray((np.pad(PHANTOM, 1) > 0).astype(np.uint8))
    for each in (image, mask):
        each.SetSpacing((2.0, 2.0, 2.0))
    return extract(image, mask, binWidth=1)


@pytest.mark.parametrize(("family", "feature"), [(family, key) for family, values in IBSI.items() for key in values])
def test_ibsi_digital_phantom(phantom_features, family, feature):
    published = IBSI[family][feature]
    # Half a unit of the third digit, and a hair for values that lie on its border.
    assert phantom_features[f"original_{family}_{feature}"] == pytest.approx(published, rel=0.0051)


def test_where_the_library_differs_from_ibsi(phantom_features):
    assert phantom_features["original_firstorder_Kurtosis"] - 3 == pytest.approx(-0.355, rel=0.005)
    # Principal axes from the covariance over n voxels; IBSI has n - 1 (74 voxels here).
    sample = np.sqrt(74 / 73)
    for feature, published in (("MajorAxisLength", 11.4), ("MinorAxisLength", 9.31), ("LeastAxisLength", 8.54)):
        assert phantom_features[f"original_shape_{feature}"] * sample == pytest.approx(published, rel=0.001)


@pytest.fixture
def patient(tmp_path, phantoms, noise):
    """Two channels on grids of their own, and a mask on the first."""
    folder = tmp_path / "images" / "STS_004"
    first = phantoms.grid((24, 24, 12), (1.0, 1.0, 2.0))
    channels = [
        first.write(folder / "t1.nii.gz", noise),
        phantoms.grid((16, 16, 16), (2.0, 1.5, 1.5)).write(folder / "pet.nii.gz", phantoms.ramp((1, 2, 3), 100)),
    ]
    return named(channels), first.write(folder / "t1_mask.nii.gz", phantoms.box((12, 12, 16)))


def test_every_channel_has_its_features(patient):
    features = patient_features(*patient, IMAGING, CONFIG)
    families = [name.split("_", 1)[1] for name in features if name.startswith("t1_")]
    assert 95 <= len(families) <= 115
    assert list(features) == [f"{channel}_{family}" for channel in ("t1", "pet") for family in families]
    assert features["t1_original_shape_VoxelVolume"] == pytest.approx(12 * 12 * 16, rel=0.15)
    assert features["pet_original_shape_VoxelVolume"] == pytest.approx(12 * 12 * 16, rel=0.25)


def test_units_of_an_mri_do_not_count_and_those_of_a_pet_do(patient):
    channels, mask = patient
    before = patient_features(channels, mask, IMAGING, CONFIG)
    for path in channels.values():
        sitk.WriteImage(sitk.ReadImage(str(path)) * 7.0 + 50.0, str(path))
    after = patient_features(channels, mask, IMAGING, CONFIG)
    mri = [name for name in before if name.startswith("t1_")]
    np.testing.assert_allclose([after[name] for name in mri], [before[name] for name in mri], rtol=1e-3, atol=1e-4)
    assert after["pet_original_firstorder_Mean"] == pytest.approx(
        7 * before["pet_original_firstorder_Mean"] + 50, rel=1e-4
    )


def test_a_place_in_the_scanner_does_not_count(tmp_path, phantoms):
    """The same anatomy scanned on a turned and shifted grid."""
    turned = phantoms.rotation((1, 2, 3), 30)
    values: list[dict[str, float]] = []
    for name, direction, centre in (
        ("straight", (1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, 0)),
        ("turned", turned, (9, 8, 7)),
    ):
        grid = phantoms.grid((20, 20, 20), (2.0, 2.0, 2.0), centre, direction)
        axes = np.reshape(direction, (3, 3))

        def at_home(field, axes=axes, centre=centre):
            return lambda points: field((points - np.array(centre)) @ axes)

        folder = tmp_path / name
        channel = grid.write(folder / "t1.nii.gz", at_home(phantoms.blob((2, 1, -3), 9)))
        mask = grid.write(folder / "mask.nii.gz", at_home(phantoms.box((20, 16, 24))))
        values.append(patient_features({"t1": channel}, mask, IMAGING, CONFIG))
    before, after = values
    # Bins and distances flip where rounding puts a voxel on their border.
    np.testing.assert_allclose(list(after.values()), list(before.values()), rtol=2e-2, atol=1e-4)


def test_a_tumour_too_small(patient, phantoms):
    channels, mask = patient
    phantoms.grid((24, 24, 12), (1.0, 1.0, 2.0)).write(mask, phantoms.box((3, 3, 5)))
    with pytest.raises(CohortError, match=r"t1_mask\.nii\.gz: the tumour is too small .* radiomics of t1 .*min_voxels"):
        patient_features(channels, mask, IMAGING, CONFIG)


def test_a_tumour_in_one_slice(patient, phantoms):
    channels, mask = patient
    phantoms.grid((24, 24, 12), (1.0, 1.0, 2.0)).write(mask, phantoms.box((20, 20, 3)))
    with pytest.raises(CohortError, match="too small or too flat"):
        patient_features(channels, mask, IMAGING, Radiomics(min_voxels=1, spacing_mm=4.0))


def test_a_channel_elsewhere(patient, phantoms):
    channels, mask = patient
    phantoms.grid((16, 16, 16), (2.0, 1.5, 1.5), (500, 0, 0)).write(channels["pet"], phantoms.ramp((1, 2, 3)))
    with pytest.raises(CohortError, match=r"pet\.nii\.gz: does not show the tumour of .*t1_mask"):
        patient_features(channels, mask, IMAGING, CONFIG)


def test_a_constant_mri(patient, phantoms):
    channels, mask = patient
    phantoms.grid((24, 24, 12), (1.0, 1.0, 2.0)).write(channels["t1"], phantoms.ramp((0, 0, 0), 4))
    with pytest.raises(CohortError, match=r"t1\.nii\.gz: has the same value \(4\)"):
        patient_features(channels, mask, IMAGING, CONFIG)


def test_made_once_for_the_same_content_and_settings(tmp_path, patient, monkeypatch):
    made = []
    monkeypatch.setattr(
        module, "patient_features", lambda *arguments: made.append(arguments) or patient_features(*arguments)
    )
    cache = tmp_path / "cache"
    first = cached_features(cache, *patient, IMAGING, CONFIG)
    assert cached_features(cache, *patient, IMAGING, CONFIG) == first == patient_features(*patient, IMAGING, CONFIG)
    cached_features(cache, *patient, IMAGING, CONFIG.model_copy(update={"min_icc": 0.1}))
    cached_features(cache, *patient, imaging(margin_mm=3, shape=(8, 8, 8)), CONFIG)
    assert len(made) == 1
    cached_features(cache, *patient, IMAGING, CONFIG.model_copy(update={"spacing_mm": 1.5}))
    cached_features(cache, *patient, imaging(margin_mm=4), CONFIG)
    monkeypatch.setattr(module, "RADIOMICS_VERSION", module.RADIOMICS_VERSION + 1)
    cached_features(cache, *patient, IMAGING, CONFIG)
    assert len(made) == 4
    for file in cache.iterdir():
        assert len(bytes.fromhex(file.stem)) == 32


def test_a_damaged_file_is_made_again(tmp_path, patient):
    cache = tmp_path / "cache"
    whole = cached_features(cache, *patient, IMAGING, CONFIG)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-40])
    assert cached_features(cache, *patient, IMAGING, CONFIG) == whole


def test_table_of_several_patients(tmp_path, patient, phantoms, noise):
    channels, mask = patient
    empty = phantoms.grid((24, 24, 12), (1.0, 1.0, 2.0)).write(tmp_path / "empty.nii.gz", phantoms.box((0, 0, 0)))
    jobs = [Job("second", channels, mask), Job("first", dict(channels), mask)]
    advanced: list[int] = []
    arguments = {"cache": tmp_path / "cache", "workers": 2, "advance": lambda: advanced.append(1)}
    table = radiomics_table(jobs, IMAGING, CONFIG, **arguments)
    assert list(table.index) == ["second", "first"]
    np.testing.assert_array_equal(table.loc["first"], list(patient_features(*patient, IMAGING, CONFIG).values()))
    with pytest.raises(CohortError, match=r"(?s)1 of 3 patients have no radiomics.*  bad: .*empty\.nii\.gz"):
        radiomics_table([*jobs, Job("bad", channels, empty)], IMAGING, CONFIG, **arguments)
    assert len(advanced) == 5


def test_quiet(patient, capfd, caplog):
    with caplog.at_level(logging.INFO):
        patient_features(*patient, IMAGING, CONFIG)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_without_the_extra(patient, monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **keywords):
        if name.partition(".")[0] == "radiomics":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **keywords)

    for loaded in [name for name in sys.modules if name.partition(".")[0] == "radiomics"]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(RunError, match=r"pip install '\.\[compare\]'"):
        patient_features(*patient, IMAGING, CONFIG)


def test_only_features_that_two_readers_agree_on():
    rng = np.random.default_rng(0)
    patients = [f"P{number}" for number in range(40)]
    truth = rng.normal(size=40)
    first = pd.DataFrame(
        {"good": truth, "noisy": rng.normal(size=40), "shifted": truth, "constant": 1.0, "unknown": np.nan}, patients
    )
    second = pd.DataFrame(
        {
            "shifted": truth + 3,  # correlates, but does not agree
            "noisy": rng.normal(size=40),
            "good": truth + rng.normal(scale=0.1, size=40),
            "constant": 1.0,
            "unknown": np.nan,
            "other": truth,
        },
        patients,
    )
    assert reproducible_features(first, second, 0.8) == ["good"]
    assert reproducible_features(first, second.sample(frac=1, random_state=1), 0.8) == ["good"]
    strangers = second.rename(index=lambda patient: f"other {patient}")
    assert reproducible_features(first, strangers, 0.0) == []


def test_a_patient_who_lacks_a_channel_does_not_count_for_its_features():
    rng = np.random.default_rng(0)
    first = pd.DataFrame(rng.normal(size=(40, 2)), columns=["t1_original_shape_a", "t2_original_shape_a"])
    second = first + rng.normal(scale=0.1, size=(40, 2))
    second.iloc[:30, 1] = rng.normal(size=30)  # the readers differ there
    assert reproducible_features(first, second, 0.8) == ["t1_original_shape_a"]
    second.iloc[:30, 1] = np.nan
    assert reproducible_features(first, second, 0.8) == list(first)
    assert reproducible_features(second, first, 0.8) == list(first)


def test_a_value_that_one_reader_lacks_does_not_cost_the_feature():
    rng = np.random.default_rng(0)
    first = pd.DataFrame({"t1_original_a": rng.normal(size=30), "t1_original_b": rng.normal(size=30)})
    second = first + 0.01 * rng.normal(size=(30, 2))
    second.loc[3, "t1_original_a"] = np.nan
    assert reproducible_features(first, second, 0.8) == list(first)
    assert reproducible_features(first, second.iloc[:1], 0.8) == []
    second.loc[3:20, "t1_original_a"] = np.nan
    assert reproducible_features(first, second, 0.8) == ["t1_original_b"]
