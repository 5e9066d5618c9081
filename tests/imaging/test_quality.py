"""Each flag is raised by the fault that it is for, and by no faultless image."""

from dataclasses import replace

import numpy as np
import pytest
from plain_imaging import imaging

from stsmm_core.config import Registration
from stsmm_core.imaging.flag_kinds import FLAG_KINDS, KINDS_AS_READ
from stsmm_core.imaging.preprocess import prepare_patient, read_images
from stsmm_core.imaging.quality import count_flags, flags, measure, median_spacings
from stsmm_core.imaging.volume import read_volume

CONFIG = imaging(shape=(24, 24, 24), margin_mm=3)
NAN = float("nan")


@pytest.fixture
def write(tmp_path, phantoms, noise):
    """Write a patient, each part changed by the test; returns what was measured."""
    grid = phantoms.grid((40, 40, 16), (1.0, 1.0, 3.0))

    def written(*, mask=None, t1=None, t2_grid=grid, config=CONFIG):
        t1 = t1 or (lambda points: 100 + noise(points))
        mask = mask or phantoms.box((16, 14, 24))
        paths = {
            "t1": grid.write(tmp_path / "t1.nii.gz", t1),
            "t2": t2_grid.write(tmp_path / "t2.nii.gz", lambda points: 50 + noise(points)),
        }
        outline = grid.write(tmp_path / "mask.nii.gz", mask)
        return measure(read_images(paths, outline), prepare_patient(paths, outline, config)), read_volume(outline)

    return written


def found(quality, *, sheet=NAN, contour=NAN, spacing=None):
    return flags(quality, sheet_cm3=sheet, contour_cm3=contour, median_spacing=spacing or median_spacings([quality]))


def say(quality, **arguments):
    return [flag.message for flag in found(quality, **arguments)]


def test_a_faultless_patient(write):
    quality, mask = write()
    assert say(quality, sheet=quality.volume_cm3 * 1.1) == []
    assert quality.volume_cm3 == pytest.approx(mask.array.sum() * 3 / 1000)
    assert (quality.parts, quality.largest_part, quality.at_border) == (1, 1.0, False)


def test_several_parts(write, phantoms):
    parts = (phantoms.box((16, 14, 24)), phantoms.box((4, 4, 6), centre=(14, 14, 0)))
    quality, _ = write(mask=lambda points: sum(part(points) for part in parts))
    assert quality.parts == 2
    assert any("is in 2 parts" in message for message in say(quality))


def test_a_stray_voxel_is_a_part(write, phantoms):
    parts = (phantoms.box((16, 14, 24)), phantoms.box((2.1, 2.1, 6), centre=(14, 14, 0)))
    quality, _ = write(mask=lambda points: sum(part(points) for part in parts))
    assert quality.largest_part > 0.99
    assert [flag.kind for flag in found(quality)] == ["parts"]


def test_volume_against_the_sheet(write):
    quality, _ = write()
    assert any("but the clinical table says" in message for message in say(quality, sheet=quality.volume_cm3 * 2))
    assert any("but the clinical table says" in message for message in say(quality, sheet=quality.volume_cm3 / 2))


def test_volume_against_the_contours(write):
    quality, _ = write()
    assert say(quality, contour=quality.volume_cm3 * 1.1) == []
    assert any("but its contours enclose" in message for message in say(quality, contour=quality.volume_cm3 * 1.3))


def test_border(write, phantoms):
    quality, _ = write(mask=phantoms.box((60, 14, 24)))
    assert quality.at_border
    assert "border" in [flag.kind for flag in found(quality)]


def test_patients_are_counted_once_a_kind(write):
    quality, _ = write()
    several = found(replace(quality, at_border=True), sheet=quality.volume_cm3 * 2, contour=quality.volume_cm3 / 2)
    counts = count_flags([several, [], found(quality, sheet=quality.volume_cm3 * 2)])
    assert counts == dict.fromkeys(FLAG_KINDS, 0) | {"border": 1, "volume": 2}


def test_kinds_as_read_do_not_depend_on_the_settings(write, phantoms):
    """They cross the wire, and who asks chooses the settings: neighbouring ones would tell patients apart."""
    tumour, short = phantoms.box((30, 12, 24)), phantoms.grid((40, 40, 4), (1.0, 1.0, 3.0), centre=(0, 0, 6))
    coarse = CONFIG.model_copy(update={"shape": (8, 8, 8), "margin_mm": 6.0})
    kinds = [
        {flag.kind for flag in found(write(mask=tumour, t2_grid=short, config=config)[0], sheet=100.0)}
        for config in (CONFIG, coarse)
    ]
    assert "grid" in kinds[1] - kinds[0]
    assert "coverage" in kinds[0]
    assert kinds[0] & set(KINDS_AS_READ) == kinds[1] & set(KINDS_AS_READ) == {"volume"}


def test_channel_that_shows_part_of_the_tumour(write, phantoms):
    quality, _ = write(t2_grid=phantoms.grid((40, 40, 4), (1.0, 1.0, 3.0), centre=(0, 0, 6)))
    assert 0.3 < quality.channels["t2"].covered < 0.7
    assert any(message.startswith("t2: shows") for message in say(quality))


def test_saturation(write, noise):
    quality, _ = write(t1=lambda points: np.minimum(noise(points), np.median(noise(points))))
    assert any("t1: is at its largest value" in message for message in say(quality))


def test_spacing_of_the_others(write):
    quality, _ = write()
    usual = {"t1": np.array([1.0, 1.0, 1.0]), "t2": np.array([1.0, 1.0, 3.0])}
    assert [message[:2] for message in say(quality, spacing=usual)] == ["t1"]


def test_registration_that_lost_its_way(write):
    config = CONFIG.model_copy(
        update={
            "steps": ("registration", "resampling", "zscore", "masking"),
            "registration": Registration(channels=("t2",)),
        }
    )
    quality, _ = write(config=config)
    assert quality.channels["t2"].information_gain is not None
    lost = replace(quality.channels["t2"], shift_mm=80.0, information_gain=-0.1, covered=1.0)
    said = say(replace(quality, channels={**quality.channels, "t2": lost}))
    assert [message.split(":")[1] for message in said] == [
        " lies worse after registration than before",
        f" was moved by 80 mm and {lost.turn_degrees:.0f}° by registration",
    ]
