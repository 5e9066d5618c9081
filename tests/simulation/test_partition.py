"""Dividing one cohort into virtual centres."""

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tables import table_cohort

from simulation.assignment import ASSIGNMENT_FILE, mix_by_centre, print_mix, write_assignment
from simulation.partition import (
    ByColumn,
    BySize,
    Dirichlet,
    Equal,
    ScannerShift,
    choose_partition,
    deal_labels,
    describe_partition,
    long_tail,
)
from simulation.sheet import MISSING
from simulation.simulate import virtual_centres, virtual_inputs
from stsmm_core.config import Experiment
from stsmm_core.errors import CohortError, ConfigError, RunError
from stsmm_core.run_folder import open_run

PARTITIONS = (
    Equal(4),
    BySize(4),
    ByColumn("location"),
    Dirichlet(4),
    Dirichlet(3, by="location", alpha=1.0, at_least=5),
    ScannerShift(4),
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return table_cohort(tmp_path_factory.mktemp("tables"), 90, hospital=["A 1", "B", "b2"] * 30)


def patients_of(centres):
    return [patient for centre in centres for patient in centre.patients]


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda each: type(each).__name__)
def test_every_patient_goes_to_one_centre(cohort, partition):
    centres = partition.divide(cohort, seed=1)
    assert sorted(patients_of(centres)) == list(cohort.patients)
    assert len({centre.manifest.site for centre in centres}) == len(centres)
    again = partition.divide(cohort, seed=1)
    assert [centre.patients for centre in again] == [centre.patients for centre in centres]
    if not isinstance(partition, ByColumn):
        other = partition.divide(cohort, seed=2)
        assert [centre.patients for centre in other] != [centre.patients for centre in centres]


def test_equal_centres_differ_by_one_patient_at_most(cohort):
    assert [len(centre.patients) for centre in Equal(4).divide(cohort, seed=0)] == [23, 23, 22, 22]


def test_scanners_divide_as_equal_does(cohort):
    equal = Equal(3).divide(cohort, seed=7)
    assert [each.patients for each in ScannerShift(3).divide(cohort, seed=7)] == [each.patients for each in equal]


@pytest.mark.parametrize("partition", [Equal(91), BySize(4, at_least=23), Dirichlet(10, at_least=10)])
def test_too_few_patients_are_said_with_the_remedy(cohort, partition):
    with pytest.raises(CohortError, match=r"90 patients, too few for .* lower --centres"):
        partition.divide(cohort, seed=0)


def test_long_tail_is_a_power_law():
    assert list(long_tail(1100, 3, exponent=1.0, at_least=1)) == [600, 300, 200]
    assert list(long_tail(90, 3, exponent=0.0, at_least=1)) == [30, 30, 30]
    assert list(long_tail(100, 4, exponent=3.0, at_least=10)) == [70, 10, 10, 10]  # 27 / 35 of 80 would be 62 + 8


@settings(deadline=None)
@given(
    patients=st.integers(1, 400),
    centres=st.integers(1, 12),
    exponent=st.floats(0, 10),
    at_least=st.integers(1, 30),
)
def test_long_tail_sizes_sum_and_keep_the_minimum(patients, centres, exponent, at_least):
    if centres * at_least > patients:
        with pytest.raises(ValueError, match="need more than"):
            long_tail(patients, centres, exponent=exponent, at_least=at_least)
        return
    sizes = long_tail(patients, centres, exponent=exponent, at_least=at_least)
    assert len(sizes) == centres
    assert sizes.sum() == patients
    assert sizes.min() >= at_least
    assert (np.diff(sizes) <= 0).all()
    free = sizes > at_least + 1  # of those well above the minimum the ratios are those of the law, but for rounding
    ideal = np.arange(1, centres + 1, dtype=float)[free] ** -exponent
    if free.sum() > 1:
        assert np.abs(sizes[free] - sizes[free].sum() * ideal / ideal.sum()).max() <= 2


def test_a_column_makes_a_centre_a_value(cohort):
    centres = ByColumn("hospital").divide(cohort, seed=0)
    assert [(centre.manifest.site, len(centre.patients)) for centre in centres] == [("A_1", 30), ("B", 30), ("b2", 30)]
    located = ByColumn("location").divide(cohort, seed=0)
    assert {centre.manifest.site for centre in located} == {MISSING, "axial", "lower_extremity", "upper_extremity"}
    (missing,) = [centre for centre in located if centre.manifest.site == MISSING]
    assert missing.clinical["location"].isna().all()


def test_a_column_of_acquisition_csv_divides_by_the_first_channel(tmp_path):
    cohort = table_cohort(tmp_path, 12)
    manifest = cohort.manifest.model_copy(update={"channels": ("t1", "t2")})
    cohort = dataclasses.replace(cohort, manifest=manifest)
    rows = [
        {"patient_id": patient, "channel": channel, "manufacturer": maker if channel == "t1" else "other"}
        for patient, maker in zip(cohort.patients[:-2], ["X", "Y"] * 5, strict=True)
        for channel in ("t2", "t1")
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "acquisition.csv", index=False)
    centres = ByColumn("manufacturer").divide(cohort, seed=0)
    assert {centre.manifest.site: len(centre.patients) for centre in centres} == {"X": 5, "Y": 5, "missing": 2}


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("colour", r"no column 'colour'; choose from age, location"),
        ("patient_id", "no column 'patient_id'"),
        ("sex", "'F' for all 90 patients"),
        ("age", "fewer than 3 patients a value"),
    ],
)
def test_a_column_that_does_not_divide_is_refused(cohort, column, said):
    with pytest.raises(CohortError, match=said):
        ByColumn(column).divide(cohort, seed=0)


def test_values_that_would_name_one_centre_are_refused(tmp_path):
    cohort = table_cohort(tmp_path, 6, hospital=["St A"] * 3 + ["St. A"] * 3)
    with pytest.raises(CohortError, match=r"'St A' and 'St\. A' of hospital would name the same centre"):
        ByColumn("hospital").divide(cohort, seed=0)


@settings(max_examples=40, deadline=None)
@given(alpha=st.floats(1e-3, 1e6), centres=st.integers(1, 6), at_least=st.integers(1, 12), seed=st.integers(0, 99))
def test_dirichlet_gives_each_its_minimum_or_says_that_it_cannot(cohort, alpha, centres, at_least, seed):
    partition = Dirichlet(centres, by="location", alpha=alpha, at_least=at_least)
    try:
        parts = partition.divide(cohort, seed=seed)
    except CohortError as error:
        assert "raise --alpha" in str(error)  # noqa: PT017
        assert alpha < 1 or centres * at_least > 60
        return
    assert sorted(patients_of(parts)) == list(cohort.patients)
    assert min(len(part.patients) for part in parts) >= at_least


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0, 1000.0])
def test_dirichlet_skew_has_the_variance_of_the_distribution(alpha):
    """The share p of a label that falls to a centre: E p = 1/K, Var p = (1/K)(1 - 1/K)/(K alpha + 1)."""
    centres, patients, draws = 4, 2000, 400
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], patients)
    shares = []
    for _ in range(draws):
        owner = deal_labels(labels, centres, alpha=alpha, rng=rng)
        shares += [np.bincount(owner[labels == label], minlength=centres) / patients for label in ("a", "b")]
    expected = (1 / centres) * (1 - 1 / centres) / (centres * alpha + 1)
    sampling = (1 / centres) * (1 - 1 / centres) / patients * (1 - 1 / (centres * alpha + 1))
    assert np.var(shares) == pytest.approx(expected + sampling, rel=0.15)


def test_a_smaller_alpha_makes_event_rates_differ_more(tmp_path):
    cohort = table_cohort(tmp_path, 400)

    def spread(alpha: float) -> float:
        rates = []
        for seed in range(10):
            rows = mix_by_centre(Dirichlet(4, alpha=alpha).divide(cohort, seed=seed), ("os", "dm"), None)
            rates.append(np.std([row["events"]["os"] / row["patients"] for row in rows]))
        return float(np.mean(rates))

    spreads = [spread(alpha) for alpha in (0.3, 3.0, 300.0)]
    assert spreads[0] > 2 * spreads[1] > 2 * spreads[2]


def test_patients_not_at_risk_of_metastasis_are_a_label_of_their_own(tmp_path):
    cohort = table_cohort(tmp_path, 60, metastasis_at_presentation=["1", "0", "0"] * 20)
    rows = mix_by_centre(
        centres := Dirichlet(2, by="dm", alpha=5.0).divide(cohort, seed=0), ("os", "dm"), Dirichlet(2, by="dm")
    )
    assert sum(row["mix"]["not at risk"] for row in rows) == 20
    assert [sum(row["mix"].values()) for row in rows] == [len(centre.patients) for centre in centres]


def test_the_assignment_names_every_patient(cohort, tmp_path):
    centres = Equal(3).divide(cohort, seed=0)
    write_assignment(centres, tmp_path)
    table = pd.read_csv(tmp_path / ASSIGNMENT_FILE)
    assert dict(zip(table["patient_id"], table["centre"], strict=True)) == {
        patient: centre.manifest.site for centre in centres for patient in centre.patients
    }
    assert len(table) == 90


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (None, {"by": "location"}, r"--by needs --partition; choose from equal, size"),
        ("circle", {}, "no such partition"),
        ("size", {}, "--partition size needs --centres"),
        ("column", {"centres": 3, "by": "sex"}, "--centres means nothing to --partition column; it takes --by"),
        ("column", {}, "needs --by"),
        ("equal", {"centres": 3, "at_least": 4}, "--at-least means nothing"),
        ("scanner", {"centres": 3, "alpha": 0.5}, "--alpha means nothing"),
    ],
)
def test_options_that_do_not_fit_are_refused(kind, options, said):
    with pytest.raises(ConfigError, match=said):
        choose_partition(kind, {"centres": None, "strength": None} | options)


def test_options_that_fit_make_the_partition():
    assert choose_partition(None, {"centres": None, "by": None}) is None
    assert choose_partition(None, {"centres": 4, "by": None}) == Equal(4)
    assert choose_partition("dirichlet", {"centres": 3, "alpha": 0.2}) == Dirichlet(3, alpha=0.2)
    assert describe_partition(BySize(5)) == {"kind": "size", "centres": 5, "exponent": 1.0, "at_least": 10}


def test_several_cohorts_are_not_divided(cohort):
    with pytest.raises(CohortError, match="divide one cohort, but 2 were given"):
        virtual_centres([cohort, cohort], Equal(2), seed=0)


def test_a_run_does_not_go_on_with_another_partition(cohort, tmp_path: Path):
    run = tmp_path / "run"
    for strength in (1.0, 1.0, 0.5):
        partition = ScannerShift(3, strength)  # the same patients in the same centres: only the images would differ
        inputs = virtual_inputs("federated", partition.divide(cohort, seed=0), partition)
        if strength == 1.0:
            with open_run(run, Experiment(), inputs):
                pass
        else:
            with pytest.raises(RunError, match="on other data"), open_run(run, Experiment(), inputs):
                pass


def test_the_printed_table_counts_every_patient_and_value(tmp_path):
    cohort = table_cohort(tmp_path, 30, ward=["[red]", "blue", "blue"] * 10)
    partition = Dirichlet(2, by="ward", alpha=10.0, at_least=5)
    centres = partition.divide(cohort, seed=0)
    console = Console(width=200, record=True, file=io.StringIO())
    print_mix(console, mix_by_centre(centres, ("os", "dm"), partition), partition)
    said = console.export_text()
    assert "Virtual centres, by ward" in said
    assert "[red]" in said
    for centre in centres:
        assert re.search(rf"centre_\d +│ {len(centre.patients)} ", said)
