"""Figures from what sites tell, against the same figures of all rows in one place."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stsmm_core.config import Data, Evaluation, Experiment
from stsmm_core.survival.baseline import breslow
from stsmm_core.survival.calibration import observed_to_expected
from stsmm_core.survival.discrimination import auc, case_and_control_weights, harrell_c
from stsmm_core.survival.estimates import draw_patients, samples_of
from stsmm_core.survival.evaluation import evaluate, label
from stsmm_core.survival.federated_evaluation import figures_at, groups_at, pooled_c
from stsmm_core.survival.leaving import count_leaving, survival_at, survival_bounds
from stsmm_core.survival.predictions import Predictions
from stsmm_core.survival.site_records import FoldRecords, SiteRecords
from stsmm_core.survival.site_sums import GROUP_EDGES, predictions_of, site_factors
from stsmm_core.survival.time_grid import group_ends
from stsmm_core.training.certificate import exchange as through_layouts

HORIZONS_YEARS = (1.0, 2.0)
HORIZONS = [years * 365.25 for years in HORIZONS_YEARS]
HEADS, ENDPOINTS, REPLICATES = 2, 2, 40
SIZES = (40, 55, 35, 30, 48, 36)
"""Test patients; a seventh site has one."""


def one_site(rng, *, tested, developed, folds=1, shift=0.0, event_rate=1.0, ties=True, replicates=REPLICATES):
    patients = tested + developed
    truth = rng.normal(size=patients) + shift
    happens = rng.exponential(700 * np.exp(-truth)[:, None], size=(patients, ENDPOINTS))
    lost = rng.uniform(100, 2500, size=(patients, ENDPOINTS))
    time = np.minimum(happens, lost)
    time = np.ceil(time / 20) * 20 if ties else time
    event = (happens <= lost) * event_rate
    time[rng.random(time.shape) < 0.03] = np.nan
    event = np.where(np.isfinite(time), event, np.nan)
    parts = []
    for fold in range(folds):
        outputs = truth[:, None] + 0.7 * rng.normal(size=(HEADS, patients, ENDPOINTS)) + fold
        outputs = np.round(outputs, 1) if ties else outputs
        outputs[:, rng.random(patients) < 0.06] = np.nan  # no modality at all
        outputs[1, rng.random(patients) < 0.2] = np.nan
        test = np.arange(tested) if folds == 1 else np.array_split(np.arange(patients), folds)[fold]
        development = np.setdiff1d(np.arange(patients), test)
        trained = np.arange(len(development)) < 0.8 * len(development)
        parts.append(FoldRecords(development, trained, outputs[:, development], test, outputs[:, test]))
    records = SiteRecords(time, event, tuple(parts), np.zeros((ENDPOINTS, 0, 0)), salt=0)
    samples = np.stack([draw_patients(len(records.tested), replicates, rng) for _ in range(ENDPOINTS)])
    return SiteRecords(time, event, tuple(parts), samples, salt=tested)


def consortium(seed=0, *, sizes=SIZES, **options):
    """Sites that differ, one of them without an event and one with a single test patient."""
    rng = np.random.default_rng(seed)
    sites = [
        one_site(rng, tested=size, developed=2 * size, shift=0.3 * number - 0.7, event_rate=number != 2, **options)
        for number, size in enumerate(sizes)
    ]
    return [*sites, one_site(rng, tested=1, developed=0, **options)]


def exchange(sites, *, minimum):
    """What crosses, through the messages' layouts: scale, development sums and tests of all sites."""
    heads = len(sites[0].folds[0].test_output)
    evaluation = Evaluation(
        scheme="split" if len(sites[0].folds) == 1 else "cv",
        folds=max(len(sites[0].folds), 2),
        horizons_years=HORIZONS_YEARS,
    ).model_copy(update={"bootstrap_replicates": sites[0].samples.shape[1]})
    experiment = Experiment(data=Data(modalities=("image", "clinical")[: heads - 1] or ("clinical",)))
    experiment = experiment.model_copy(update={"evaluation": evaluation})
    records = {str(number): site for number, site in enumerate(sites)}
    test = through_layouts(records, experiment, minimum=minimum)
    return test.scale, test.development, list(test.sites.values())


def union(sites, scale, development, endpoint, *, own=False) -> tuple[Predictions, np.ndarray]:
    """The rows of all sites as one set of predictions, with the samples that their sites drew."""
    parts, samples, offset = [], [], 0
    for site in sites:
        factors = site_factors(site, scale, development) if own else None
        part = predictions_of(site, scale, development, endpoint, horizons=HORIZONS, factors=factors)
        parts.append(Predictions(**{**vars(part), "patient": part.patient + offset}))
        offset += len(site.tested)
        samples.append(site.samples[endpoint])
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0]) if name != "times"
    }
    return Predictions(**columns, times=parts[0].times), np.concatenate(samples, axis=1)


def of_head(sites, head):
    """The same sites with another head in the first place."""
    return [
        SiteRecords(
            site.time,
            site.event,
            tuple(
                FoldRecords(
                    fold.development,
                    fold.trained,
                    fold.development_output[[head, head]],
                    fold.test,
                    fold.test_output[[head, head]],
                )
                for fold in site.folds
            ),
            site.samples,
            site.salt,
        )
        for site in sites
    ]


def assert_same(estimate, other):
    assert estimate.n == other.n
    assert estimate.events == other.events
    for name in ("value", "sd", "low", "high"):
        ours, theirs = getattr(estimate, name), getattr(other, name)
        assert (ours is None) == (theirs is None), (estimate, other)
        if ours is not None:
            assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("endpoint", range(ENDPOINTS))
def test_federated_equals_pooled(folds, endpoint):
    sites = consortium(folds=folds)
    scale, development, tests = exchange(sites, minimum=1)
    predictions, multiplicities = union(sites, scale, development, endpoint)
    pooled = evaluate(predictions, horizons_years=HORIZONS_YEARS, multiplicities=multiplicities)

    ours = pooled_c(tests, scale, development, head=0, endpoint=endpoint)
    assert ours.bounds is None
    assert_same(ours.estimate, pooled["harrell_c"])
    assert ours.estimate.low is not None
    for place, years in enumerate(HORIZONS_YEARS):
        figures = figures_at(tests, scale, development, endpoint=endpoint, place=place, horizon=HORIZONS[place])
        for name in ("auc", "brier", "brier_null", "ipa", "oe"):
            assert figures[name].bounds is None
            assert_same(figures[name].estimate, pooled[f"{name}_{label(years)}"])
            assert figures[name].estimate.low is not None
    predictions, multiplicities = union(sites, scale, development, endpoint, own=True)
    pooled = evaluate(predictions, horizons_years=HORIZONS_YEARS, multiplicities=multiplicities)
    for name in ("brier", "ipa", "oe"):
        assert_same(figures[f"{name}_site"].estimate, pooled[f"{name}_{label(HORIZONS_YEARS[-1])}"])


def test_every_head_has_its_pooled_c():
    sites = consortium()
    scale, development, tests = exchange(sites, minimum=1)
    swapped = of_head(sites, 1)
    predictions, multiplicities = union(swapped, *exchange(swapped, minimum=1)[:2], 0)
    pooled = evaluate(predictions, horizons_years=HORIZONS_YEARS, multiplicities=multiplicities)["harrell_c"]
    assert_same(pooled_c(tests, scale, development, head=1, endpoint=0).estimate, pooled)


def test_the_baseline_is_that_of_the_union_of_rows():
    sites = consortium(folds=2)
    scale, development, _ = exchange(sites, minimum=1)
    for number in range(2):
        rows = []
        for site in sites:
            fold = site.folds[number]
            risk = np.nan_to_num(fold.development_output[0] - scale.mean[number, 0])[:, 0]
            time, event = site.time[fold.development, 0], site.event[fold.development, 0]
            rows.append(np.stack([risk, time, event])[:, np.isfinite(time)])
        risk, time, event = np.concatenate(rows, axis=1)
        expected, ours = breslow(risk, time=time, event=event), development[number][0].baseline()
        np.testing.assert_array_equal(ours.times, expected.times)
        np.testing.assert_allclose(ours.log_cumulative_hazard, expected.log_cumulative_hazard, atol=1e-12)


sizes = st.lists(st.integers(1, 25), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), sizes=sizes, minimum=st.integers(2, 6), ties=st.booleans(), folds=st.integers(1, 2))
def test_the_bounds_hold_the_figure_of_the_rows(seed, sizes, minimum, ties, folds):
    sites = consortium(seed, sizes=sizes, ties=ties, folds=folds, replicates=3)
    scale, development, tests = exchange(sites, minimum=minimum)
    predictions, _ = union(sites, scale, development, 0)
    everyone = np.ones((1, len(predictions)))
    ours, exact = pooled_c(tests, scale, development, head=0, endpoint=0), harrell_c(predictions, everyone)[0]
    if ours.estimate.value is not None:
        low, high = ours.bounds or (ours.estimate.value, ours.estimate.value)
        assert low - 1e-9 <= exact <= high + 1e-9
    for place, horizon in enumerate(HORIZONS):
        figures = figures_at(tests, scale, development, endpoint=0, place=place, horizon=horizon)
        if figures["auc"].estimate.value is None:
            continue
        for name, value in (
            ("auc", auc(predictions, everyone, horizon=horizon)[0]),
            ("oe", observed_to_expected(predictions, everyone, horizon=horizon)[0]),
        ):
            low, high = figures[name].bounds or (figures[name].estimate.value,) * 2
            everybody_told = sum(site.ranks[0][0].patients for site in tests) == len(np.unique(predictions.patient))
            if everybody_told or name == "auc":
                assert low - 1e-9 <= value <= high + 1e-9, name


@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(5, 20), min_size=1, max_size=3),
    minimum=st.integers(2, 5),
    at=st.sampled_from([90.0, 200.0, 365.25, 720.0]),
)
def test_the_bounds_of_a_curve_hold_it(seed, sizes, minimum, at):
    rng = np.random.default_rng(seed)
    rows = [(rng.integers(1, 900, size).astype(float), (rng.random(size) < 0.5).astype(float)) for size in sizes]

    def told(smallest):
        return [
            count_leaving(time=time, event=event, samples=np.ones((1, len(time))), minimum=smallest)
            for time, event in rows
        ]

    exact = survival_at(told(1), at)[0]
    low, high = survival_bounds(told(minimum), at)
    if np.isfinite(exact):
        assert low - 1e-12 <= exact <= high + 1e-12


def test_a_minimum_of_five_is_near_and_says_how_far_it_may_be():
    sites = consortium(3)
    scale, development, tests = exchange(sites, minimum=5)
    predictions, _ = union(sites, scale, development, 0)
    everyone = np.ones((1, len(predictions)))
    ours, exact = pooled_c(tests, scale, development, head=0, endpoint=0), harrell_c(predictions, everyone)[0]
    assert ours.bounds is not None
    assert abs(ours.estimate.value - exact) < 0.02
    figures = figures_at(tests, scale, development, endpoint=0, place=1, horizon=HORIZONS[1])
    assert abs(figures["auc"].estimate.value - auc(predictions, everyone, horizon=HORIZONS[1])[0]) < 0.02
    assert abs(figures["oe"].estimate.value - observed_to_expected(predictions, everyone, horizon=HORIZONS[1])[0]) < 0.1
    for site in tests:
        for cells in site.ranks[0][0].cells:
            for edge in (cells.risk_low, cells.time_low):
                patients = np.bincount(np.unique(edge, return_inverse=True)[1], cells.first[0] + cells.second[0])
                assert (patients >= 5).all()


def repeated(sites, repeats):
    """The same sites, cross-validated again with other outputs: each patient has a row a repeat."""
    rng = np.random.default_rng(0)
    again = []
    for site in sites:
        folds = [
            replace(fold, test_output=fold.test_output + 0.1 * rng.normal(size=fold.test_output.shape))
            for _ in range(repeats)
            for fold in site.folds
        ]
        again.append(replace(site, folds=tuple(folds)))
    return again


def test_repeats_of_a_patient_are_no_further_patients():
    """A minimum of five is of patients, however often each is tested."""
    sites = repeated(consortium(1, folds=2), repeats=3)
    scale, development, tests = exchange(sites, minimum=5)
    for site, test in zip(sites, tests, strict=True):
        predictions = predictions_of(site, scale, development, 0, horizons=HORIZONS)
        times = test.risks[0].leaving.times
        step = np.searchsorted(group_ends(times), predictions.time).clip(max=len(times) - 1)
        assert all(len(np.unique(predictions.patient[step == place])) >= 5 for place in range(len(times)))
        for sums in test.risks[0].horizons:
            assert ((sums.group_size[0] == 0) | (sums.group_size[0] >= 5 * 3)).all()


def test_one_patient_tested_five_times_is_not_told_of():
    sites = repeated(consortium(1), repeats=5)
    _, _, tests = exchange(sites, minimum=5)
    alone = tests[-1]
    assert len(alone.risks[0].leaving.times) == 0
    for sums in alone.risks[0].horizons:
        assert not any(getattr(sums, name).any() for name in ("size", "brier", "expected", "group_size", "comparable"))


def test_single_patients_cannot_be_solved_for_from_the_samples():
    """Many cells hold one patient; a sum over all, regressed on them, would give that patient's share."""
    sites = consortium(1, replicates=1000)
    scale, development, tests = exchange(sites, minimum=5)
    predictions = predictions_of(sites[0], scale, development, 0, horizons=HORIZONS)
    cells, total = tests[0].ranks[0][0].cells[0], tests[0].risks[0].horizons[1].expected
    columns = np.concatenate([cells.first, cells.second], axis=1)
    used = columns[0] > 0
    solved = np.full(len(used), np.nan)
    solved[used] = np.linalg.lstsq(columns[1:, used], total[1:], rcond=None)[0]
    solved, alone = solved.reshape(2, len(cells)), (columns[0] == 1).reshape(2, len(cells))
    found, true = [], []
    for kind, cell in np.argwhere(alone):
        inside = (predictions.risk > cells.risk_low[cell]) & (predictions.risk <= cells.risk_high[cell])
        inside &= (predictions.time > cells.time_low[cell]) & (predictions.time <= cells.time_high[cell])
        (row,) = np.flatnonzero(inside & (predictions.event == 1 - kind))
        found.append(solved[kind, cell])
        true.append(predictions.absolute_risk[row, 1])
    assert len(found) > 10
    assert np.corrcoef(found, true)[0, 1] < 0.7


def test_a_horizon_with_few_events_has_a_reason():
    sites = consortium(0, sizes=(6, 6, 6))
    scale, development, tests = exchange(sites, minimum=1)
    figures = figures_at(tests, scale, development, endpoint=0, place=0, horizon=HORIZONS[0])
    events = sum(test.risks[0].horizons[0].events for test in tests)
    assert events < 5
    assert {figure.estimate.reason for figure in figures.values()} == {"fewer than 5 events by then"}


def test_samples_are_those_of_the_pair_counts():
    """The federated samples are drawn as `estimates.samples_of` expects."""
    site = consortium(0)[0]
    scale, development, _ = exchange([site], minimum=1)
    predictions = predictions_of(site, scale, development, 0, horizons=HORIZONS)
    assert samples_of(predictions, site.samples[0]).shape == (REPLICATES + 1, len(predictions))


def test_groups_are_those_of_all_rows():
    sites = consortium(1)
    scale, development, tests = exchange(sites, minimum=1)
    predictions, _ = union(sites, scale, development, 0)
    group = np.searchsorted(GROUP_EDGES, predictions.risk / scale.sd[0, 0, 0])
    case, _ = case_and_control_weights(predictions, HORIZONS[1])
    told = groups_at(tests, endpoint=0, place=1)
    assert [each.n for each in told] == np.bincount(group, minlength=5).tolist()
    for number, each in enumerate(told):
        assert each.predicted == pytest.approx(predictions.absolute_risk[group == number, 1].mean(), abs=1e-12)
        assert each.observed.value == pytest.approx(case[group == number].mean(), abs=1e-12)


def test_a_site_shows_no_group_below_its_minimum():
    sites = consortium(1)
    _, _, tests = exchange(sites, minimum=5)
    for test in tests:
        for sums in test.risks[0].horizons:
            size = sums.group_size[0]
            assert ((size == 0) | (size >= 5)).all()
            assert size.sum() == sums.size[0]
            assert sums.group_expected[0].sum() == pytest.approx(sums.expected[0])
