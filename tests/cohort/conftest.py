"""A small valid cohort folder that a test can spoil in one place."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

SHAPE = (8, 12, 12)
SPACING = (1.0, 1.0, 3.0)


def write_nifti(path: Path, voxels: NDArray[np.generic], *, spacing=SPACING, origin=(0.0, 0.0, 0.0)) -> None:
    """Write an array (z, y, x)."""
    image = SimpleITK.GetImageFromArray(voxels, isVector=False)
    if voxels.ndim == 3:
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


def tumour_mask() -> NDArray[np.uint8]:
    """A box of 4 x 6 x 6 voxels away from the border."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[2:6, 3:9, 3:9] = 1
    return mask


@dataclass(frozen=True)
class CohortFolder:
    """The folder and the few edits that tests make in it."""

    root: Path

    def rows(self) -> list[list[str]]:
        with (self.root / "clinical.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    def write_rows(self, rows: list[list[str]]) -> None:
        with (self.root / "clinical.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)

    def set_cell(self, patient: str, column: str, value: str) -> None:
        rows = self.rows()
        next(row for row in rows if row[0] == patient)[rows[0].index(column)] = value
        self.write_rows(rows)

    def set_column(self, column: str, value: str) -> None:
        for row in self.rows()[1:]:
            self.set_cell(row[0], column, value)

    def drop_column(self, column: str) -> None:
        rows = self.rows()
        position = rows[0].index(column)
        self.write_rows([row[:position] + row[position + 1 :] for row in rows])

    def image(self, patient: str, name: str) -> Path:
        return self.root / "images" / patient / f"{name}.nii.gz"

    def write_image(self, patient: str, name: str, voxels: NDArray[np.generic], **geometry) -> None:
        write_nifti(self.image(patient, name), voxels, **geometry)

    def volume(self) -> NDArray[np.float32]:
        return np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., CohortFolder]:
    """A function that writes a valid cohort of n patients, P01 on, with tiny images on one grid."""

    def make(patients: int = 12, *, channels: tuple[str, ...] = ("t1", "t2"), mask_name: str = "t1_mask"):
        folder = CohortFolder(tmp_path / "cohort")
        folder.root.mkdir()
        listed = ", ".join(f'"{channel}"' for channel in channels)
        (folder.root / "cohort.toml").write_text(
            f'schema_version = 1\nname = "test"\nsite = "north"\nchannels = [{listed}]\n'
            'endpoints = ["os", "dm"]\ntime_zero = "surgery"\n',
            encoding="utf-8",
        )
        header = "patient_id age sex histology size_cm grade location volume_cm3 depth neoadjuvant_chemo"
        header += " metastasis_at_presentation radiotherapy os_days os_event dm_days dm_event"
        rows = [header.split()]
        rng = np.random.default_rng(0)
        for number in range(1, patients + 1):
            patient = f"P{number:02d}"
            rows.append(
                f"{patient} {40 + number} {'FM'[number % 2]} myxofibrosarcoma 8.5 high axial 120 deep 0 0 none "
                f"{900 + number} {number % 2} {300 + number} {number % 3 % 2}".split()
            )
            for channel in channels:
                folder.write_image(patient, channel, rng.normal(size=SHAPE).astype(np.float32))
            if channels:
                folder.write_image(patient, mask_name, tumour_mask())
        folder.write_rows(rows)
        return folder

    return make


@pytest.fixture
def mask() -> NDArray[np.uint8]:
    """A valid tumour mask for the images of `make_cohort`."""
    return tumour_mask()


@pytest.fixture
def real_data() -> Path:
    """The folder of the real data sets beside the checkout."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data are not beside the checkout (../shared/data)")
    return folder
