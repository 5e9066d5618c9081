"""Channels that the settings name, against those of a cohort."""

import pytest

from stsmm_core.config import BiasCorrection, Imaging, Registration
from stsmm_core.errors import ConfigError
from stsmm_core.imaging.channels import channel_notes


@pytest.mark.parametrize(
    ("channels", "noted"),
    [
        (("t1", "t2"), []),
        (("t1", "pet"), []),
        (("t1", "ct", "suv", "pet1"), []),
        ((), []),
        (("T1", "T2fs"), ["T1", "T2fs"]),
        (("t1_post", "pet", "stir", "mr"), ["t1_post", "stir", "mr"]),
    ],
)
def test_uncorrected_channels_that_look_like_mri_are_noted(channels, noted):
    notes = channel_notes(channels, Imaging())
    assert [note.split()[1] for note in notes] == noted
    assert all("imaging.bias_correction.channels names t1, t2" in note for note in notes)


def test_nothing_is_noted_where_nothing_is_to_be_corrected():
    assert channel_notes(("T1",), Imaging(steps=("resampling",))) == []


def test_settings_that_correct_no_channel():
    (note,) = channel_notes(("t1",), Imaging(bias_correction=BiasCorrection(channels=())))
    assert note.endswith("names none")


def test_registration_of_an_unknown_channel_is_refused():
    config = Imaging(registration=Registration(channels=("t2", "T2")))
    with pytest.raises(ConfigError, match="names T2, but the cohort's channels are t1, t2; write them as in"):
        channel_notes(("t1", "t2"), config)
    assert channel_notes((), config) == []
    assert channel_notes(("t1",), Imaging(steps=("resampling",), registration=config.registration)) == []
