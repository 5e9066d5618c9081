"""The command, run on the small export of conftest.py."""

from typer.testing import CliRunner

from stsmm_core.cohort.cli import app


def run(export, *options, out="out"):
    root = export.parent
    arguments = ["import", "dicom", str(export), str(root / out), "--clinical", str(root / "clinical.csv")]
    result = CliRunner().invoke(app, [*arguments, "--map", str(root / "MAP.toml"), *options], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def edit_map(export, old, new):
    path = export.parent / "MAP.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def series_folder(export, patient="P1"):
    return export / patient / "scans" / "7" / "DICOM"
