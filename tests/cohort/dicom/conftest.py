"""A small export that a test can spoil in one place."""

from pathlib import Path

import pytest
from dicom_export import MAP, Grid, blob, outline, textured, write_series, write_structures


@pytest.fixture
def export(tmp_path) -> Path:
    """An export of two patients, each with one series and one structure set, a map and a clinical table beside it."""
    root = tmp_path / "export"
    for patient in ("P1", "P2"):
        grid = Grid()
        series = write_series(root / patient / "scans" / "7" / "DICOM", textured(grid), grid, patient=patient)
        contours = {"GTV": outline(blob(grid), grid)}
        write_structures(root / patient / "assessors" / "roi.dcm", contours, series, patient=patient)
    (tmp_path / "MAP.toml").write_text(MAP)
    (tmp_path / "clinical.csv").write_text(
        "patient_id,age,os_days,os_event,dm_days,dm_event\nP1,50,100,1,80,1\nP2,60,200,0,200,0\n"
    )
    return root
