"""The public collection from a local mirror of its git repository."""

import subprocess
from pathlib import Path

import pytest
from dicom_export import Grid, blob, outline, textured, write_series, write_structures

from stsmm_core.cohort.check import check_cohort
from stsmm_core.cohort.fetching import FOLDER, fetch_sts_public
from stsmm_core.cohort.reading import load_cohort
from stsmm_core.errors import CohortError


@pytest.fixture
def mirror(tmp_path):
    """A git repository laid out as the collection's, with two patients, and its commit."""
    root = tmp_path / "mirror"
    grid = Grid()
    for patient in ("STS_001", "STS_002"):
        for part, modality, tags in (("MR_T1", "MR", {}), ("PET", "PT", {"Units": "GML"})):
            folder = root / FOLDER / patient / part
            series = write_series(
                folder / "image", textured(grid), grid, patient=patient, modality=modality, tags=tags, frame="1.2.3"
            )
            write_structures(
                folder / "mask" / "rt.dcm", {f"GTV_Mass_{part}": outline(blob(grid), grid)}, series, patient=patient
            )
    (root / "large.bin").write_bytes(b"0" * 1000)

    def git(*arguments):
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        done = subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "data")
    return root, git("rev-parse", "HEAD")


def test_cohort_of_the_mirror(mirror, tmp_path):
    root, commit = mirror
    fetch_sts_public(tmp_path / "out", clinical=None, repository=str(root), commit=commit)
    assert not [finding for finding in check_cohort(tmp_path / "out") if finding.severity == "fault"]
    cohort = load_cohort(tmp_path / "out")
    assert cohort.patients == ("STS_001", "STS_002")
    assert cohort.manifest.channels == ("t1", "pet")
    assert all(cohort.has_image(patient) for patient in cohort.patients)
    assert commit in (tmp_path / "out" / "SOURCE.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mirror", "out"]


def test_outcomes_of_a_table(mirror, tmp_path):
    root, commit = mirror
    table = tmp_path / "clinical.csv"
    table.write_text("patient_id,os_days,os_event,dm_days,dm_event\nSTS_002,10,1,5,1\n")
    fetch_sts_public(tmp_path / "out", clinical=table, repository=str(root), commit=commit)
    cohort = load_cohort(tmp_path / "out")
    assert cohort.patients == ("STS_002",)
    assert cohort.outcomes(("os",)).events() == [1]


def test_nothing_there(tmp_path):
    with pytest.raises(CohortError, match=r"no such folder or repository; name a mirror by --from"):
        fetch_sts_public(tmp_path / "out", clinical=None, repository=str(tmp_path / "nowhere"), commit="0" * 40)
    assert list(tmp_path.iterdir()) == []


def test_a_slice_cut_short(mirror, tmp_path):
    root, _ = mirror
    path = sorted((root / FOLDER / "STS_002" / "PET" / "image").iterdir())[0]
    path.write_bytes(path.read_bytes()[:200])
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "commit", "--quiet", "--all", "--message", "cut"], cwd=root, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout
    with pytest.raises(CohortError, match=r"patient STS_002 .* 1 DICOM file.s. in its folders cannot be read"):
        fetch_sts_public(tmp_path / "out", clinical=None, repository=str(root), commit=commit.strip())
    assert not (tmp_path / "out").exists()


def test_nothing_is_fetched_for_a_folder_that_is_there(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(CohortError, match="already there and not empty"):
        fetch_sts_public(tmp_path / "out", clinical=None, repository=str(tmp_path / "nowhere"), commit="0" * 40)


def test_no_cohort_without_its_licence(mirror, tmp_path, monkeypatch):
    root, commit = mirror

    write_text = Path.write_text

    def full(path, *arguments, **options):
        if path.name == "SOURCE.md":
            raise OSError("no space left")
        return write_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        fetch_sts_public(tmp_path / "out", clinical=None, repository=str(root), commit=commit)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mirror"]
