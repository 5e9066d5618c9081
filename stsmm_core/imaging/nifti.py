"""What a NIfTI file says and ITK does not pass on: missing voxels, NaN and infinity, and where the volume lies.

The header is described at https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h (ITK does not read NIfTI-2).
"""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from stsmm_core.errors import CohortError

SINGLE_FILE = "1"
"""Header and voxels in one file."""
FLOATS = {"16": "f4", "64": "f8"}
HEADER_BYTES = 348
PIXDIM, UNIT, CODES, RIGID, AFFINE = 76, 123, 252, 256, 280
"""Places in the header; ITK passes on six digits of these numbers, too few for a quaternion, and not pixdim[0]."""
HALF_TURN = 1e-7
"""Below this, the square of a quaternion's first part is rounding (as in the NIfTI library)."""
UNITS_MM = {1: 1000.0, 3: 0.001}
"""Metres and micrometres; any other code stands for millimetres, as ITK takes it."""
SPACE_UNIT = 0b111
"""The bits of xyzt_units that are not about time."""
GZIP_MAGIC = b"\x1f\x8b"


def nifti_content(path: Path, image: sitk.Image) -> bytes | None:
    """The bytes of a NIfTI file, decompressed; None for another format.

    Raises:
        CohortError: when voxels are missing, which ITK fills up without a word; without the file's name.
    """
    if not image.HasMetaDataKey("nifti_type") or image.GetMetaData("nifti_type") != SINGLE_FILE:
        return None
    content = path.read_bytes()
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise CohortError("is cut short or damaged within its compression; copy it again from its source") from None
    _, end = _voxel_bytes(image)
    if len(content) < end:
        raise CohortError(f"is cut short ({len(content)} of {end} bytes, by its header); copy it again from its source")
    return content


def stored_reals(content: bytes, image: sitk.Image) -> NDArray[np.floating]:
    """The voxels as a NIfTI file holds them; none where it holds whole numbers."""
    code = FLOATS.get(image.GetMetaData("datatype"))
    start, end = _voxel_bytes(image)
    return np.zeros(0) if code is None else np.frombuffer(content[start:end], dtype=_byte_order(content) + code)


def place_faults(content: bytes, image: sitk.Image) -> list[str]:
    """What keeps a NIfTI file from saying where its volume lies.

    It may give a rigid transform (qform) and an affine one (sform), each in use when its code is not 0. Programs, ITK
    among them, differ in which they take, so both must say the same; with neither, ITK makes a place up.
    """
    order = _byte_order(content)
    rigid_code, affine_code = struct.unpack_from(order + "2h", content, CODES)
    transforms = []
    if affine_code > 0:
        transforms.append(np.array(struct.unpack_from(order + "12f", content, AFFINE)).reshape(3, 4))
    if rigid_code > 0:
        pixdim = struct.unpack_from(order + "4f", content, PIXDIM)
        transforms.append(_rigid_transform(pixdim, struct.unpack_from(order + "6f", content, RIGID)))
    if not transforms:
        return ["does not say where the volume lies (sform_code and qform_code are 0); export it with its position"]
    to_mm = UNITS_MM.get(content[UNIT] & SPACE_UNIT, 1.0)
    # NIfTI points right and anterior (RAS), ITK left and posterior (LPS).
    to_lps = to_mm * np.array([-1.0, -1.0, 1.0])
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(image.GetSize()) - 1)
    placed = [np.array([image.TransformIndexToPhysicalPoint(corner) for corner in corners.tolist()])]
    placed += [(corners @ affine[:, :3].T + affine[:, 3]) * to_lps for affine in transforms]
    apart = float(np.ptp(placed, axis=0).max())
    if apart <= max(image.GetSpacing()) / 2:
        return []
    return [
        f"its two transforms (sform and qform) place the corners up to {apart:.1f} mm apart, so where the "
        "volume lies is not certain; export it again, or resample it onto an orthogonal grid"
    ]


def _voxel_bytes(image: sitk.Image) -> tuple[int, int]:
    """Where the voxels of a NIfTI file begin and end."""
    start = int(float(image.GetMetaData("vox_offset")))
    return start, start + image.GetNumberOfPixels() * int(image.GetMetaData("bitpix")) // 8


def _byte_order(content: bytes) -> Literal["<", ">"]:
    """Of a NIfTI file: it begins with the length of its header."""
    return "<" if int.from_bytes(content[:4], "little") == HEADER_BYTES else ">"


def _rigid_transform(pixdim: Sequence[float], rigid: Sequence[float]) -> NDArray[np.float64]:
    """A qform, shape (3, 4), in the file's units: from a quaternion without its first part, and an offset."""
    turn, offset = np.array(rigid[:3]), rigid[3:]
    first = 1 - (turn**2).sum()
    parts = [math.sqrt(first) if first > HALF_TURN else 0.0, *turn]
    # pixdim[0] is below 0 where the third axis is reversed.
    spacing = np.array(pixdim[1:]) * (1, 1, -1 if pixdim[0] < 0 else 1)
    return np.column_stack([Rotation.from_quat(parts, scalar_first=True).as_matrix() * spacing, offset])
