from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from scipy.ndimage import distance_transform_edt
from sksurv.metrics import concordance_index_censored

from stsmm_core.cohort.cohort import CLINICAL_FILE, MANIFEST_FILE
from stsmm_core.cohort.dictionary import ENDPOINTS, PAPER_VARIABLES, PATIENT_ID, endpoint_columns
from stsmm_core.cohort.reading import load_cohort, parse_cohort
from stsmm_core.cohort.synthetic import ORACLE_FILE, site_sizes, write_synthetic_cohorts
from stsmm_core.cohort.synthetic_images import Scanner, Tumour, write_patient_images
from stsmm_core.cohort.synthetic_patients import MISSING_CELLS, SimulatedSite, simulate_site
from stsmm_core.errors import CohortError

SITES, PATIENTS, SEED = 3, 48, 11


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("synthetic") / "cohorts"
    return write_synthetic_cohorts(out, sites=SITES, patients=PATIENTS, seed=SEED)


@pytest.fixture(scope="module")
def many() -> list[SimulatedSite]:
    return [simulate_site(site=site, patients=1500, seed=SEED) for site in (1, 2, 3)]


def harrell(simulated: SimulatedSite, risk: pd.DataFrame, endpoint: str) -> float:
    time, event = endpoint_columns(endpoint)
    applies = simulated.clinical[time].notna()
    table = simulated.clinical.loc[applies, [time, event]].astype(int)
    return concordance_index_censored(table[event] == 1, table[time], risk.loc[applies, endpoint])[0]


def voxels(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


# The cohort folders


def test_clinical_only_sites_have_the_same_patients(written: list[Path], tmp_path: Path) -> None:
    roots = write_synthetic_cohorts(tmp_path / "out", sites=SITES, patients=PATIENTS, seed=SEED, images=False)
    measured = ["size_cm", "volume_cm3"]  # with images: off the mask
    for root, imaged in zip(roots, written, strict=True):
        cohort = load_cohort(root)
        assert cohort.manifest.channels == ()
        assert not list(root.rglob("*.nii.gz"))
        table, other = (pd.read_csv(folder / CLINICAL_FILE) for folder in (root, imaged))
        pd.testing.assert_frame_equal(table.drop(columns=measured), other.drop(columns=measured))
        pd.testing.assert_frame_equal(pd.read_csv(root / ORACLE_FILE), pd.read_csv(imaged / ORACLE_FILE))


def test_cohorts_are_legal(written: list[Path]) -> None:
    assert [root.name for root in written] == ["site_1", "site_2", "site_3"]
    for root in written:
        _, findings = parse_cohort(root)
        assert [str(finding) for finding in findings if finding.severity == "fault"] == []
        cohort = load_cohort(root)
        assert cohort.manifest.channels == ("t1", "t2")
        assert cohort.manifest.endpoints == ("os", "dm")
        assert cohort.manifest.time_zero == "surgery"
        assert cohort.extra_columns == ()
        assert set(pd.read_csv(root / CLINICAL_FILE)) >= set(PAPER_VARIABLES)


def test_patients_are_spread_unevenly_and_named_once(written: list[Path]) -> None:
    patients = [load_cohort(root).patients for root in written]
    assert sum(map(len, patients)) == PATIENTS
    assert len(patients[0]) > len(patients[1]) > len(patients[2]) >= 3
    assert len({name for site in patients for name in site}) == PATIENTS


def test_oracle_has_every_patient_and_the_true_risk(written: list[Path]) -> None:
    for site, root in enumerate(written, start=1):
        oracle = pd.read_csv(root / ORACLE_FILE, index_col=PATIENT_ID)
        assert list(oracle) == ["os", "dm"]
        assert tuple(oracle.index) == load_cohort(root).patients
        truth = simulate_site(site=site, patients=len(oracle), seed=SEED).oracle
        np.testing.assert_allclose(oracle.to_numpy(), truth.to_numpy(), atol=1e-6)


def test_sheet_holds_what_the_mask_measures(written: list[Path]) -> None:
    compared = 0
    for root in written:
        cohort = load_cohort(root)
        for patient in filter(cohort.has_image, cohort.patients):
            mask = SimpleITK.ReadImage(str(cohort.mask_path(patient)))
            shape = SimpleITK.LabelShapeStatisticsImageFilter()
            shape.ComputeFeretDiameterOn()
            shape.Execute(mask)
            for column, measured in (
                ("size_cm", shape.GetFeretDiameter(1) / 10),
                ("volume_cm3", shape.GetPhysicalSize(1) / 1000),
            ):
                given = cohort.clinical.at[patient, column]
                if not np.isnan(given):
                    assert given == pytest.approx(measured, abs=0.051)
                    compared += 1
    assert compared > PATIENTS


def test_some_patients_have_no_image_but_then_a_size() -> None:
    simulated = simulate_site(site=1, patients=2000, seed=SEED)
    without = ~simulated.hidden["has_image"]
    assert 0.01 < without.mean() < 0.06
    assert [tumour is None for tumour in simulated.tumours()] == without.tolist()
    assert not simulated.missing.loc[without, ["size_cm", "volume_cm3"]].to_numpy().any()


def test_same_seed_gives_the_same_bytes_and_voxels(written: list[Path], tmp_path: Path) -> None:
    again = write_synthetic_cohorts(tmp_path / "again", sites=SITES, patients=PATIENTS, seed=SEED)
    for first, second in zip(written, again, strict=True):
        for name in (CLINICAL_FILE, ORACLE_FILE, MANIFEST_FILE):
            assert (first / name).read_bytes() == (second / name).read_bytes()
        images = sorted(path.relative_to(first) for path in first.rglob("*.nii.gz"))
        assert images == sorted(path.relative_to(second) for path in second.rglob("*.nii.gz"))
        for image in images:
            np.testing.assert_array_equal(voxels(first / image), voxels(second / image))


def test_another_seed_gives_other_patients() -> None:
    first, second = (simulate_site(site=1, patients=30, seed=seed) for seed in (0, 1))
    assert not first.clinical["os_days"].equals(second.clinical["os_days"])
    assert not first.hidden["core"].equals(second.hidden["core"])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 40), st.integers(1, 30), st.integers(0, 30))
def test_a_patient_does_not_depend_on_how_many_there_are(seed: int, site: int, fewer: int, extra: int) -> None:
    small = simulate_site(site=site, patients=fewer, seed=seed)
    large = simulate_site(site=site, patients=fewer + extra, seed=seed)
    assert small.scanner == large.scanner
    for name in ("clinical", "hidden", "missing", "clinical_risk", "image_risk"):
        pd.testing.assert_frame_equal(getattr(small, name), getattr(large, name).iloc[:fewer])


@given(st.integers(1, 60), st.integers(0, 2000))
def test_site_sizes_add_up(sites: int, beyond: int) -> None:
    sizes = site_sizes(sites=sites, patients=3 * sites + beyond)
    assert len(sizes) == sites
    assert sum(sizes) == 3 * sites + beyond
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= 3


# The truth behind them


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_strength_of_the_truth(many: list[SimulatedSite], endpoint: str) -> None:
    oracle, clinical, image = (
        np.mean([harrell(simulated, getattr(simulated, part), endpoint) for simulated in many])
        for part in ("oracle", "clinical_risk", "image_risk")
    )
    assert 0.75 < oracle < 0.82
    assert 0.65 < clinical < 0.70
    assert 0.67 < image < 0.72
    assert oracle > max(clinical, image) + 0.05


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_censoring(many: list[SimulatedSite], endpoint: str) -> None:
    events = pd.concat([simulated.clinical[endpoint_columns(endpoint)[1]] for simulated in many])
    assert 0.5 < 1 - events.astype(float).mean() < 0.7


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_censoring_of_a_small_cohort(seed: int, endpoint: str) -> None:
    sizes = site_sizes(sites=4, patients=300)
    sites = [simulate_site(site=site, patients=size, seed=seed) for site, size in enumerate(sizes, start=1)]
    events = pd.concat([simulated.clinical[endpoint_columns(endpoint)[1]] for simulated in sites])
    assert 0.5 < 1 - events.astype(float).mean() < 0.7


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_survival_follows_the_stated_hazard(many: list[SimulatedSite], endpoint: str) -> None:
    time, event = endpoint_columns(endpoint)
    table = pd.concat(
        [
            simulated.clinical[[time, event]].assign(
                clinical=simulated.clinical_risk[endpoint], image=simulated.image_risk[endpoint], site=site
            )
            for site, simulated in enumerate(many)
        ]
    )
    fitted = CoxPHFitter().fit(table.dropna().astype(float), time, event, strata=["site"])
    # A stratified Cox regression finds the log relative hazard again: coefficients of 1, within four standard errors.
    assert (fitted.standard_errors_ < 0.05).all()
    assert ((fitted.params_ - 1).abs() < 4 * fitted.standard_errors_).all()


def test_death_ends_the_watch_for_metastasis(many: list[SimulatedSite]) -> None:
    for simulated in many:
        table = simulated.clinical
        metastatic = table["metastasis_at_presentation"] == "1"
        assert 0.03 < metastatic.mean() < 0.08
        assert table.loc[metastatic, ["dm_days", "dm_event"]].isna().to_numpy().all()
        at_risk = table[~metastatic]
        assert (at_risk["dm_days"] <= at_risk["os_days"]).all()
        free = at_risk[at_risk["dm_event"] == 0]
        assert (free["dm_days"] == free["os_days"]).all()
        assert (free["os_event"] == 1).any()


def test_latent_features_are_independent_of_the_sheet(many: list[SimulatedSite]) -> None:
    latents = pd.concat([simulated.hidden[["heterogeneity", "core"]] for simulated in many])
    variables = pd.concat([simulated.clinical[list(PAPER_VARIABLES)] for simulated in many])
    coded = pd.get_dummies(variables, dtype=float)
    correlation = np.corrcoef(latents.to_numpy().T, coded.to_numpy().T)[:2, 2:]
    # Five standard errors of a correlation of 0 among 4500 patients.
    assert np.abs(correlation).max() < 5 / np.sqrt(len(latents))
    assert abs(latents["heterogeneity"].corr(latents["core"])) < 5 / np.sqrt(len(latents))


def test_case_mix_differs_by_site() -> None:
    sites = [simulate_site(site=site, patients=800, seed=SEED) for site in range(1, 7)]
    age = [simulated.clinical["age"].mean() for simulated in sites]
    high = [(simulated.clinical["grade"] == "high").mean() for simulated in sites]
    axial = [(simulated.clinical["location"] == "axial").mean() for simulated in sites]
    # A standard error is 0.5 years and below 0.02.
    assert np.ptp(age) > 3
    assert np.ptp(high) > 0.08
    assert np.ptp(axial) > 0.06
    assert len({simulated.scanner for simulated in sites}) == 6


def test_shift_sets_how_far_sites_differ() -> None:
    def spread(shift: float) -> tuple[float, float, float, float]:
        sites = [simulate_site(site=site, patients=800, seed=SEED, shift=shift) for site in range(1, 7)]
        return (
            float(np.ptp([simulated.clinical["age"].mean() for simulated in sites])),
            float(np.ptp([(simulated.clinical["grade"] == "high").mean() for simulated in sites])),
            float(np.ptp([simulated.clinical["os_days"].mean() for simulated in sites])),
            float(np.ptp([simulated.scanner.noise[0] for simulated in sites])),
        )

    alike, usual, far = spread(0.0), spread(1.0), spread(3.0)
    assert alike[0] < 3  # what chance leaves of 800 patients
    assert (np.array(far) > 1.5 * np.array(usual)).all()
    assert alike[3] == 0


def test_few_cells_are_missing(many: list[SimulatedSite]) -> None:
    missing = pd.concat([simulated.missing for simulated in many]).mean()
    lost = missing[missing > 0]
    assert set(lost.index) == {"grade", "depth", "radiotherapy", "size_cm", "volume_cm3"}
    assert lost.between(0.6 * MISSING_CELLS, 1.4 * MISSING_CELLS).all()


# The images


def test_channels_have_their_own_grids_in_one_space(written: list[Path]) -> None:
    cohort = load_cohort(written[0])
    for patient in filter(cohort.has_image, cohort.patients):
        t1, t2 = (SimpleITK.ReadImage(str(cohort.channel_path(patient, name))) for name in ("t1", "t2"))
        mask = SimpleITK.ReadImage(str(cohort.mask_path(patient)))
        assert mask.GetSize() == t1.GetSize()
        assert mask.GetSpacing() == t1.GetSpacing()
        assert mask.GetOrigin() == t1.GetOrigin()
        assert t1.GetSpacing()[2] == pytest.approx(2 * t1.GetSpacing()[0], rel=0.01)
        assert t2.GetSpacing()[0] > 1.1 * t1.GetSpacing()[0]
        assert t2.GetOrigin() != t1.GetOrigin()
        last = [size - 1 for size in t1.GetSize()]
        for corner in (t1.TransformIndexToPhysicalPoint([0, 0, 0]), t1.TransformIndexToPhysicalPoint(last)):
            index = t2.TransformPhysicalPointToContinuousIndex(corner)
            assert all(0 <= at <= size - 1 for at, size in zip(index, t2.GetSize(), strict=True))


@pytest.mark.parametrize("size_mm", [30.0, 85.0, 250.0])
@pytest.mark.parametrize("seed", range(8))
def test_the_tumour_lies_wholly_within_the_image(size_mm: float, seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    tumour = Tumour(size_mm=size_mm, middle_axis=0.95, short_axis=0.7, heterogeneity=2.5, core=-2.5)
    measures = write_patient_images(tmp_path / "p", tumour, Scanner.draw(rng), rng)
    mask = voxels(tmp_path / "p" / "t1_mask.nii.gz") > 0
    assert mask.sum() > 400
    assert mask[1:-1, 1:-1, 1:-1].sum() == mask.sum()
    assert measures.size_cm == pytest.approx(size_mm / 10, rel=0.25)
    assert measures.volume_cm3 == pytest.approx(np.pi / 6 * (size_mm / 10) ** 3 * 0.95 * 0.7, rel=0.35)
    assert voxels(tmp_path / "p" / "t1.nii.gz").min() >= 1


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Latents of patients of five scanners beside simple statistics of their z-scored voxels."""
    rows = []
    for site in range(1, 6):
        simulated = simulate_site(site=site, patients=14, seed=SEED)
        for row, tumour in enumerate(simulated.tumours()):
            if tumour is not None:
                folder = tmp_path_factory.mktemp("images") / "p"
                rng = np.random.default_rng([site, row])
                write_patient_images(folder, tumour, simulated.scanner, rng)
                rows.append({"heterogeneity": tumour.heterogeneity, "core": tumour.core, **statistics(folder)})
    return pd.DataFrame(rows)


def statistics(folder: Path) -> dict[str, float]:
    reference = SimpleITK.ReadImage(str(folder / "t1_mask.nii.gz"))
    mask = SimpleITK.GetArrayFromImage(reference) > 0
    where = np.argwhere(mask)
    box = tuple(slice(low, high + 1) for low, high in zip(where.min(axis=0), where.max(axis=0), strict=True))
    depth = distance_transform_edt(mask, sampling=reference.GetSpacing()[::-1])
    depth /= depth.max()
    scores = {}
    for channel in ("t1", "t2"):
        image = SimpleITK.Resample(SimpleITK.ReadImage(str(folder / f"{channel}.nii.gz")), reference)
        values = SimpleITK.GetArrayFromImage(image).astype(float)
        scores[channel] = (values - values[box].mean()) / values[box].std()
    rim = (depth > 0.15) & (depth < 0.45)
    # The core is bright in t2 and dark in t1: the difference shows it and cancels the texture.
    difference = scores["t2"] - scores["t1"]
    midway = (difference[depth > 0.85].mean() + difference[mask & (depth < 0.2)].mean()) / 2
    return {
        "rim_sd_t1": scores["t1"][rim].std(),
        "rim_sd_t2": scores["t2"][rim].std(),
        "core_contrast": difference[depth > 0.85].mean() - difference[rim].mean(),
        "core_share": (difference[mask] > midway).mean(),
    }


def test_heterogeneity_shows_in_the_images(seen: pd.DataFrame) -> None:
    assert seen["rim_sd_t1"].corr(seen["heterogeneity"]) > 0.8
    assert seen["rim_sd_t2"].corr(seen["heterogeneity"]) > 0.8


def test_necrotic_core_shows_in_the_images(seen: pd.DataFrame) -> None:
    assert seen["core_share"].corr(seen["core"]) > 0.9
    assert (seen["core_contrast"] > 1).all()


def test_the_two_latents_show_apart(seen: pd.DataFrame) -> None:
    assert abs(seen["core_share"].corr(seen["heterogeneity"])) < 0.3


# Refusals


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"sites": 0, "patients": 10, "seed": 0}, "0 sites: ask for at least 1"),
        ({"sites": 4, "patients": 11, "seed": 0}, "11 patients are too few for 4 sites; ask for at least 12"),
        ({"sites": 1, "patients": 3, "seed": -1}, "seed -1 is negative"),
        ({"sites": 1, "patients": 3, "seed": 0, "shift": -1.0}, "shift -1 is not between 0"),
        ({"sites": 1, "patients": 3, "seed": 0, "shift": np.nan}, "shift nan is not between 0"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path: Path, numbers: dict[str, int], message: str) -> None:
    with pytest.raises(CohortError, match=message):
        write_synthetic_cohorts(tmp_path / "out", **numbers)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CohortError, match="is not empty"):
        write_synthetic_cohorts(tmp_path, sites=1, patients=3, seed=0)
    with pytest.raises(CohortError, match=r"mine\.txt is a file"):
        write_synthetic_cohorts(tmp_path / "mine.txt", sites=1, patients=3, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert write_synthetic_cohorts(out, sites=1, patients=3, seed=0) == [out / "site_1"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(load_cohort(out / "site_1").patients) == 3


def test_a_break_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def break_at_the_third(*args: object) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise KeyboardInterrupt
        return write_patient_images(*args)

    monkeypatch.setattr("stsmm_core.cohort.synthetic.write_patient_images", break_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic_cohorts(tmp_path / "out", sites=2, patients=20, seed=0)
    assert written == 3
    assert list(tmp_path.iterdir()) == []
