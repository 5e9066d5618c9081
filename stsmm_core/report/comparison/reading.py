"""Reading the folder of a finished comparison."""

import base64
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from stsmm_core.cohort.dictionary import ENDPOINTS
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.report.comparison.record import ComparisonRecord, Estimate, Explanations, Model, PictureRecord
from stsmm_core.report.history import read_history
from stsmm_core.report.run_files import broken, read_record, read_run_experiment, read_versions
from stsmm_core.run_folder import (
    BLENDED,
    COMPARISON_FILE,
    CONFIG_FILE,
    HISTORY_FILE,
    NETWORKS_FOLDER,
    VERSIONS_FILE,
)

_PICTURE_FOLDERS = ("figures", "private")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One image of the run, ready for the page."""

    endpoint: str
    right: bool
    caption: str
    uri: str


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        history: of the blended network, as `read_history` gives it; None without that network.
    """

    experiment: Experiment
    versions: dict[str, str]
    record: ComparisonRecord
    history: pd.DataFrame | None
    pictures: tuple[Picture, ...]

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Endpoints in the order of the data dictionary."""
        return tuple(endpoint for endpoint in ENDPOINTS if endpoint in self.record.results[self.first.key])

    @property
    def first(self) -> Model:
        """The model that the others are compared with."""
        return self.record.models[0]

    @property
    def explanations(self) -> Explanations:
        """What the model looked at; empty where the run did not ask."""
        return self.record.explanations or Explanations()

    @property
    def patients(self) -> int:
        """Patients in all sets together."""
        return next(column.patients for column in self.record.cohort_by if column.column == "all")

    def label(self, key: str) -> str:
        """A model's name by its key."""
        return next(model.label for model in self.record.models if model.key == key)

    def horizons(self, endpoint: str) -> tuple[float, ...]:
        """Horizons in years at which some model has a figure for the endpoint."""
        return tuple(
            years
            for years in self.record.horizons_years
            if any(figure.value is not None for figure in self._at_horizon(endpoint, years))
        )

    def without_figures(self, endpoint: str) -> dict[float, str]:
        """Horizons that were asked for and at which no model has a figure, each with the reason.

        A horizon of which no model gives a reason is left out: then no model was tested, and that is said elsewhere.
        """
        reached = self.horizons(endpoint)
        reasons = {
            years: next((figure.reason for figure in self._at_horizon(endpoint, years) if figure.reason), None)
            for years in self.record.horizons_years
            if years not in reached
        }
        return {years: reason for years, reason in reasons.items() if reason is not None}

    def _at_horizon(self, endpoint: str, years: float) -> list[Estimate]:
        return [
            figure
            for results in self.record.results.values()
            for name, figure in results[endpoint].items()
            if name.endswith(f"_{years:g}")
        ]


def read_comparison(run: Path) -> Comparison:
    """Read and check what a finished comparison left in its folder.

    Raises:
        RunError: naming the file that is missing or broken, what is wrong with it and what to do.
    """
    if not run.is_dir():
        raise RunError(f"{run}: no such run folder; give the folder that the comparison wrote")
    experiment = read_run_experiment(run / CONFIG_FILE)
    versions = read_versions(run / VERSIONS_FILE)
    record = read_record(run / COMPARISON_FILE, ComparisonRecord)
    history = None
    if any(model.key == BLENDED for model in record.models):
        history = read_history(run / NETWORKS_FOLDER / BLENDED / HISTORY_FILE, experiment.heads)
    listed = () if record.explanations is None else record.explanations.figures
    pictures = tuple(_read_picture(run, picture) for picture in listed)
    return Comparison(experiment, versions, record, history, pictures)


def _read_picture(run: Path, picture: PictureRecord) -> Picture:
    parts = PurePosixPath(picture.file).parts
    if not parts or parts[0] not in _PICTURE_FOLDERS or ".." in parts:
        folders = " or ".join(f"{folder}/" for folder in _PICTURE_FOLDERS)
        raise broken(run / COMPARISON_FILE, f"picture '{picture.file}' must lie in {folders} of the run")
    path = run / picture.file
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise broken(path, f"missing, though {COMPARISON_FILE} lists it") from None
    if not content.startswith(_PNG):
        raise broken(path, "not a PNG image")
    uri = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return Picture(picture.endpoint, picture.right, picture.caption, uri)
