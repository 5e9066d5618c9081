"""Checking a cohort's images: every voxel and every grid, each fault with its file and patient."""

import gzip
import struct

import numpy as np
import pytest
import SimpleITK

from stsmm_core.cohort.check import check_cohort
from stsmm_core.errors import CohortError
from stsmm_core.imaging.volume import read_volume


def faults(folder):
    return [finding for finding in check_cohort(folder.root) if finding.severity == "fault"]


def notes(folder):
    return [str(finding) for finding in check_cohort(folder.root) if finding.severity == "note"]


def only_fault(folder, file):
    """The one fault, which must be in this file of P02."""
    found = faults(folder)
    assert len(found) == 1, [str(fault) for fault in found]
    assert (found[0].file, found[0].patient) == (f"images/P02/{file}", "P02")
    return found[0].message


def test_valid_cohort_has_nothing_to_say(make_cohort):
    assert check_cohort(make_cohort(12).root) == []


def test_mask_of_0_and_255_is_accepted(make_cohort, mask):
    folder = make_cohort(10)
    folder.write_image("P02", "t1_mask", mask * np.uint8(255))
    assert check_cohort(folder.root) == []


def test_mask_called_mask_belongs_to_the_first_channel(make_cohort, mask):
    folder = make_cohort(10, mask_name="mask")
    assert check_cohort(folder.root) == []
    folder.write_image("P02", "mask", mask, origin=(0, 0, 30))
    assert "is not on the grid of t1.nii.gz" in only_fault(folder, "mask.nii.gz")


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ({"spacing": (1.0, 1.0, 3.5)}, "spacing (mm) (1, 1, 3.5) instead of (1, 1, 3)"),
        ({"origin": (0.0, 2.0, 0.0)}, "origin (mm) (0, 2, 0) instead of (0, 0, 0)"),
    ],
)
def test_mask_on_another_grid(make_cohort, mask, geometry, words):
    folder = make_cohort(3)
    folder.write_image("P02", "t1_mask", mask, **geometry)
    assert words in only_fault(folder, "t1_mask.nii.gz")


def test_mask_of_another_size_and_spacing_gets_one_message_with_both(make_cohort, mask):
    folder = make_cohort(3)
    folder.write_image("P02", "t1_mask", mask[:6], spacing=(1.0, 1.0, 4.0))
    message = only_fault(folder, "t1_mask.nii.gz")
    assert "size (12, 12, 6) instead of (12, 12, 8)" in message
    assert "spacing" in message


def test_header_rounding_is_not_another_grid(make_cohort, mask):
    folder = make_cohort(10)
    folder.write_image("P02", "t1_mask", mask, spacing=(1.0, 1.0, 3.00003), origin=(0, 0, 3e-5))
    assert check_cohort(folder.root) == []


def test_each_channel_may_have_its_own_grid_and_mask(make_cohort, mask):
    folder = make_cohort(10)
    coarse = {"spacing": (2.0, 2.0, 3.0), "origin": (5.0, 0.0, 0.0)}
    folder.write_image("P02", "t2", folder.volume()[:, ::2, ::2], **coarse)
    folder.write_image("P02", "t2_mask", mask[:, ::2, ::2], **coarse)
    assert check_cohort(folder.root) == []
    folder.write_image("P02", "t2_mask", mask)
    assert "is not on the grid of t2.nii.gz" in only_fault(folder, "t2_mask.nii.gz")


def test_empty_mask(make_cohort, mask):
    folder = make_cohort(3)
    folder.write_image("P02", "t1_mask", mask * 0)
    assert "is empty: no voxel is marked as tumour" in only_fault(folder, "t1_mask.nii.gz")


def test_mask_with_two_labels(make_cohort, mask):
    folder = make_cohort(3)
    mask[3, 4, 4] = 2
    folder.write_image("P02", "t1_mask", mask)
    assert "has 3 different values (0, 1, 2)" in only_fault(folder, "t1_mask.nii.gz")


def test_mask_with_a_negative_label(make_cohort, mask):
    folder = make_cohort(3)
    folder.write_image("P02", "t1_mask", -mask.astype(np.int16))
    assert "(-1, 0); write 0 outside and 1 inside" in only_fault(folder, "t1_mask.nii.gz")


def swapped(content: bytes) -> bytes:
    """A NIfTI-1 file of 32-bit floats in the other byte order: every header field by its width, then the voxels."""
    fields = "<i10s18sihsB8h3f4h8f3fhBB4f2i80s24s2h6f4f4f4f16s4s"
    header = struct.unpack(fields, content[:348])
    voxels = np.frombuffer(content, "<f4", offset=352).astype(">f4")
    return struct.pack(">" + fields[1:], *header) + content[348:352] + voxels.tobytes()


@pytest.mark.parametrize("big_endian", [False, True])
def test_nan_and_infinite_voxels_are_counted(make_cohort, big_endian):
    """SimpleITK reads them as 0."""
    folder = make_cohort(3)
    voxels = folder.volume()
    voxels[0, 0, :5] = np.nan
    voxels[1, 1, :2] = [np.inf, -np.inf]
    folder.write_image("P02", "t2", voxels)
    if big_endian:
        path = folder.image("P02", "t2")
        path.write_bytes(gzip.compress(swapped(gzip.decompress(path.read_bytes()))))
    found = faults(folder)
    assert {fault.file for fault in found} == {"images/P02/t2.nii.gz"}
    assert [fault.message.split(";")[0] for fault in found] == ["7 of 1152 voxels are NaN or infinite"]


def test_nan_in_a_mask(make_cohort, mask):
    folder = make_cohort(3)
    voxels = mask.astype(np.float64)
    voxels[0, 0, 0] = np.nan
    folder.write_image("P02", "t1_mask", voxels)
    assert "1 of 1152 voxels are NaN" in only_fault(folder, "t1_mask.nii.gz")


def test_constant_inside_the_mask(make_cohort, mask):
    folder = make_cohort(3)
    voxels = folder.volume()
    voxels[mask == 1] = 7
    folder.write_image("P02", "t2", voxels)
    assert "is 7 inside the mask" in only_fault(folder, "t2.nii.gz")


def test_constant_channel_on_a_grid_without_mask(make_cohort):
    folder = make_cohort(3)
    folder.write_image("P02", "t2", np.zeros((5, 6, 6), np.float32))
    assert "is 0 everywhere" in only_fault(folder, "t2.nii.gz")


def test_file_that_is_no_nifti(make_cohort):
    folder = make_cohort(3)
    folder.image("P02", "t1").write_text("not an image")
    message = only_fault(folder, "t1.nii.gz")
    assert message.startswith("cannot be read as an image (")
    assert "export it again" in message


def test_file_cut_short_in_transfer(make_cohort):
    """SimpleITK reads such a file and fills in zeros."""
    folder = make_cohort(3)
    path = folder.image("P02", "t1")
    path.write_bytes(path.read_bytes()[:-1000])
    assert SimpleITK.ReadImage(str(path)).GetSize() == (12, 12, 8)
    assert "cut short" in only_fault(folder, "t1.nii.gz")


def test_volume_with_fewer_voxels_than_its_header_says(make_cohort):
    folder = make_cohort(3)
    path = folder.image("P02", "t2")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[: len(content) // 2]))
    message = only_fault(folder, "t2.nii.gz")
    assert f"is cut short ({len(content) // 2} of {len(content)} bytes" in message


def test_flipped_bits_in_the_compressed_voxels(make_cohort):
    folder = make_cohort(3)
    path = folder.image("P02", "t2")
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(bytes(content))
    assert only_fault(folder, "t2.nii.gz")


@pytest.mark.parametrize("shape", [(2, 8, 12, 12), (12, 12), (1, 12, 12)])
def test_not_3d(make_cohort, shape):
    folder = make_cohort(3)
    folder.write_image("P02", "t2", np.ones(shape, np.float32))
    assert "is not 3D" in only_fault(folder, "t2.nii.gz")


def test_complex_voxels(make_cohort):
    folder = make_cohort(3)
    folder.write_image("P02", "t2", folder.volume().astype(np.complex64))
    assert "one real number a voxel" in only_fault(folder, "t2.nii.gz")


def test_mask_at_the_border_is_a_note(make_cohort, mask):
    folder = make_cohort(10)
    mask[0, 4, 4] = 1
    folder.write_image("P02", "t1_mask", mask)
    assert faults(folder) == []
    assert notes(folder) == [
        "images/P02/t1_mask.nii.gz, patient P02: touches the border of the image: the tumour may be cut off"
    ]


@pytest.mark.parametrize("column", ["size_cm", "volume_cm3"])
def test_value_to_be_computed_from_the_mask_is_a_note(make_cohort, column):
    folder = make_cohort(10)
    folder.set_cell("P02", column, "")
    assert notes(folder) == [
        f"clinical.csv, column {column}: empty for 1 of 10 patients with a mask: computed from the mask"
    ]


def test_misnamed_volumes_are_a_fault_not_a_missing_modality(make_cohort):
    folder = make_cohort(3)
    for name in ("t1", "t2"):
        folder.image("P02", name).rename(folder.image("P02", name.upper() + "_post"))
    found = faults(folder)
    assert [fault.file for fault in found] == ["images/P02"]
    assert "T1_post.nii.gz" in found[0].message
    assert "no t1.nii.gz or t2.nii.gz" in found[0].message


def test_other_files_beside_the_channels_are_a_note(make_cohort):
    folder = make_cohort(10)
    folder.write_image("P02", "ct", folder.volume())
    assert notes(folder) == [
        "images/P02/ct.nii.gz, patient P02: is no channel or mask of this cohort: not used",
    ]


def test_other_files_of_a_patient_who_lacks_a_channel_are_a_fault(make_cohort):
    folder = make_cohort(10)
    folder.image("P02", "t2").rename(folder.image("P02", "T2"))
    assert "the patient has no t2; rename it if it is that channel" in only_fault(folder, "T2.nii.gz")


def test_a_link_to_nowhere_is_no_missing_channel(make_cohort):
    folder = make_cohort(10)
    folder.image("P02", "t2").unlink()
    folder.image("P02", "t2").symlink_to(folder.root / "gone.nii.gz")
    only_fault(folder, "t2.nii.gz")


def test_the_mask_of_a_patient_who_lacks_the_first_channel(make_cohort, mask):
    """It lies on the grid of the channel that the patient has; one of the missing channel is left aside."""
    folder = make_cohort(10)
    folder.image("P02", "t1").unlink()
    coarse = {"spacing": (2.0, 2.0, 3.0)}
    folder.write_image("P02", "t2", folder.volume()[:, ::2, ::2], **coarse)
    folder.write_image("P02", "mask", mask)
    assert "is not on the grid of t2.nii.gz" in only_fault(folder, "mask.nii.gz")
    folder.write_image("P02", "mask", mask[:, ::2, ::2], **coarse)
    assert notes(folder) == [
        "images: 1 of 10 patients with images have no t1: the network sees 0 in its place",
        "images/P02/t1_mask.nii.gz, patient P02: is not used: the patient has no t1.nii.gz",
    ]
    assert faults(folder) == []


def test_cohort_of_three_patients_is_legal_and_noted(make_cohort):
    folder = make_cohort(3)
    assert [str(finding) for finding in check_cohort(folder.root)] == [
        "clinical.csv: only 3 patients: a test on them alone says little"
    ]


def test_cohort_without_images(make_cohort):
    assert check_cohort(make_cohort(10, channels=()).root) == []


def test_table_and_image_faults_come_together(make_cohort, mask):
    folder = make_cohort(4)
    folder.set_cell("P01", "grade", "III")
    folder.write_image("P02", "t1_mask", mask * 0)
    folder.image("P03", "t2").write_bytes(b"")
    folder.image("P04", "t1").unlink()
    assert {(fault.file, fault.patient) for fault in faults(folder)} == {
        ("clinical.csv", "P01"),
        ("images/P02/t1_mask.nii.gz", "P02"),
        ("images/P03/t2.nii.gz", "P03"),
        ("images/P04/t2_mask.nii.gz", "P04"),
    }


def test_images_that_could_not_be_checked_are_said(make_cohort):
    folder = make_cohort(3)
    (folder.root / "clinical.csv").unlink()
    assert notes(folder) == ["images: not checked yet: mend the faults above first"]


@pytest.mark.parametrize(("place", "value"), [(252, struct.pack("<2h", 0, 0)), (284, struct.pack("<f", 0.4))])
def test_the_check_finds_what_preprocessing_refuses(make_cohort, place, value):
    """No place at all, and a skewed sform beside the qform."""
    folder = make_cohort(3)
    path = folder.image("P02", "t2")
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[place : place + len(value)] = value
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(CohortError) as refused:
        read_volume(path)
    assert str(refused.value) == f"{path}: {only_fault(folder, 't2.nii.gz')}"
