"""The cohort folder in memory: manifest, clinical table, outcomes and where each volume lies."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tomli_w
from numpy.typing import NDArray

from stsmm_core.cohort.dictionary import endpoint_columns
from stsmm_core.cohort.manifest import Manifest

MANIFEST_FILE = "cohort.toml"
CLINICAL_FILE = "clinical.csv"
IMAGES_FOLDER = "images"
ORACLE_FILE = "oracle.csv"
"""The true log relative hazards of a synthetic cohort. Nothing but a comparison with the truth may read it:
`load_cohort` opens the three above only, so training never sees it."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check has to say: a fault must be mended, a note states what will happen."""

    severity: Literal["fault", "note"]
    file: str
    message: str
    patient: str | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = [self.file]
        if self.patient is not None:
            place.append(f"patient {self.patient}")
        if self.column is not None:
            place.append(f"column {self.column}")
        return f"{', '.join(place)}: {self.message}"


@dataclass(frozen=True)
class Outcomes:
    """Observed times and events.

    Attributes:
        time: days from time zero, shape (patients, endpoints); NaN where the endpoint does not apply.
        event: 1.0 event, 0.0 censored, same shape; NaN where time is.
    """

    time: NDArray[np.float64]
    event: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.intp]) -> "Outcomes":
        return Outcomes(self.time[rows], self.event[rows])

    def events(self) -> NDArray[np.int64]:
        """Number of events an endpoint."""
        return np.nansum(self.event, axis=0).astype(np.int64)


@dataclass(frozen=True)
class Cohort:
    """A cohort folder that has passed the checks of its tables.

    Attributes:
        clinical: one row a patient, index patient_id (sorted), one column a dictionary variable: floats for
            numbers, strings for categories, NaN where missing.
        endpoints: times and events by endpoint, columns `<endpoint>_days` and `<endpoint>_event`, same index.
        extra_columns: columns of clinical.csv that are no dictionary variable; reported, never used.
    """

    root: Path
    manifest: Manifest
    clinical: pd.DataFrame
    endpoints: pd.DataFrame
    extra_columns: tuple[str, ...] = ()

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient identifiers, sorted."""
        return tuple(self.clinical.index)

    def channel_path(self, patient: str, channel: str) -> Path:
        """Where a volume of a patient lies (or would lie)."""
        return self.root / IMAGES_FOLDER / patient / f"{channel}.nii.gz"

    def channel_files(self, patient: str) -> dict[str, Path]:
        """The volumes that a patient has, by channel, in the order of the manifest."""
        paths = {channel: self.channel_path(patient, channel) for channel in self.manifest.channels}
        # A link to nowhere is a file that cannot be read, not a missing channel.
        return {channel: path for channel, path in paths.items() if os.path.lexists(path)}

    def first_channel(self, patient: str) -> str:
        """The channel that the mask and the tensor's axes follow: the first that the patient has.

        For a patient without images it is the cohort's first one.
        """
        return next(iter(self.channel_files(patient)), self.manifest.channels[0])

    def mask_path(self, patient: str) -> Path:
        """The tumour mask on the grid of the patient's first channel."""
        folder = self.root / IMAGES_FOLDER / patient
        named = folder / f"{self.first_channel(patient)}_mask.nii.gz"
        return named if named.exists() else folder / "mask.nii.gz"

    def has_image(self, patient: str) -> bool:
        """Whether the patient has the image modality at all: at least one channel."""
        return bool(self.channel_files(patient))

    def lacking_channel(self) -> dict[str, int]:
        """By channel, the number of patients with images who do not have it."""
        files = [self.channel_files(patient) for patient in self.patients]
        return {
            channel: sum(channel not in present for present in files if present) for channel in self.manifest.channels
        }

    def outcomes(self, endpoints: Sequence[str]) -> Outcomes:
        """Times and events of the given endpoints, NaN for an endpoint that the cohort does not record.

        A patient metastatic at presentation is not at risk of `dm` and gets NaN there.
        """
        times = np.full((len(self.clinical), len(endpoints)), np.nan)
        events = np.full_like(times, np.nan)
        for column, endpoint in enumerate(endpoints):
            if endpoint in self.manifest.endpoints:
                time, event = endpoint_columns(endpoint)
                times[:, column] = self.endpoints[time].to_numpy(dtype=float)
                events[:, column] = self.endpoints[event].to_numpy(dtype=float)
                if endpoint == "dm":
                    metastatic = (self.clinical["metastasis_at_presentation"] == "1").to_numpy()
                    times[metastatic, column] = np.nan
                    events[metastatic, column] = np.nan
        return Outcomes(times, events)

    def subset(self, patients: Sequence[str]) -> "Cohort":
        """The same cohort with fewer patients (a virtual centre)."""
        keep = sorted(patients)
        return replace(self, clinical=self.clinical.loc[keep], endpoints=self.endpoints.loc[keep])


def write_cohort_tables(root: Path, manifest: Manifest, clinical: pd.DataFrame) -> None:
    """Write cohort.toml and clinical.csv (`clinical` has patient_id as a column; missing cells become empty)."""
    root.mkdir(parents=True, exist_ok=True)
    (root / MANIFEST_FILE).write_text(tomli_w.dumps(manifest.model_dump(mode="json")), encoding="utf-8")
    clinical.to_csv(root / CLINICAL_FILE, index=False, encoding="utf-8", lineterminator="\n")
