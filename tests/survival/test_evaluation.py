"""All figures at once: values where the data give them, reasons where they do not."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_predictions import follow, simulate

from stsmm_core.cohort.dictionary import DAYS_PER_YEAR
from stsmm_core.survival import calibration
from stsmm_core.survival.baseline import breslow
from stsmm_core.survival.estimates import draw_patients, estimate, samples_of
from stsmm_core.survival.evaluation import curves, evaluate, harrell_c
from stsmm_core.survival.predictions import concatenate, predict_fold

YEARS = (2, 5, 10)
GRID = np.unique(np.concatenate([np.arange(1, 41) * 91.3125, np.array(YEARS) * DAYS_PER_YEAR]))
PER_HORIZON = ("auc", "brier", "brier_null", "ipa", "oe", "slope", "ici", "e50", "e90")
KEYS = {"harrell_c", "uno_c", "ibs", "ibs_null"} | {f"{name}_{years}" for name in PER_HORIZON for years in YEARS}


def cohort(seed=0, *, patients=200, strata=1, censoring=(400.0, 3200.0)):
    """Followed for up to about nine years, so that ten years are out of reach."""
    rng = np.random.default_rng(seed)
    known, risk = rng.normal(size=300), rng.normal(size=patients)
    development = follow(known, rng, scale=2500.0, censoring=(400.0, 3200.0))
    time, event = follow(risk, rng, scale=2500.0, censoring=censoring)
    baseline = breslow(known, time=development[0], event=development[1])
    return predict_fold(
        patients=np.arange(patients),
        stratum=np.arange(patients) * strata // max(patients, 1),
        development_time=development[0],
        development_event=development[1],
        time=time,
        event=event,
        risk=risk,
        survival=baseline.survival(risk, GRID),
        times=GRID,
    )


def figures_of(predictions, *, replicates=60):
    patients = int(predictions.patient.max(initial=-1)) + 1
    multiplicities = draw_patients(patients, replicates, np.random.default_rng(3))
    return evaluate(predictions, horizons_years=YEARS, multiplicities=multiplicities)


def test_every_figure_has_an_interval_or_a_reason():
    figures = figures_of(cohort())
    assert set(figures) == KEYS
    for name, figure in figures.items():
        if name.endswith("_10"):
            assert figure.value is None
            assert figure.reason == "beyond the follow-up of the development patients"
        else:
            assert figure.low <= figure.value <= figure.high or name.startswith(("ici", "e50", "e90")), name
            assert figure.sd > 0
            assert figure.reason is None
            assert figure.n == 200
    assert figures["auc_2"].events < figures["auc_5"].events < figures["harrell_c"].events
    assert figures["ipa_5"].value == pytest.approx(1 - figures["brier_5"].value / figures["brier_null_5"].value)
    json.dumps({name: asdict(figure) for name, figure in figures.items()}, allow_nan=False)


def test_calibration_uses_every_sample(monkeypatch):
    seen = {}

    def counting(name, score):
        def counted(predictions, samples, **options):
            seen[name] = len(samples)
            return score(predictions, samples, **options)

        return counted

    for name in ("calibration_slope", "calibration_errors"):
        monkeypatch.setattr(calibration, name, counting(name, getattr(calibration, name)))
    figures_of(cohort(), replicates=600)
    assert seen == {"calibration_slope": 601, "calibration_errors": 601}


@pytest.mark.parametrize(
    ("change", "figure", "reason"),
    [
        (lambda p: replace(p, event=np.zeros(len(p))), "harrell_c", "no event"),
        (lambda p: replace(p, event=np.zeros(len(p))), "auc_2", "fewer than 5 events by then"),
        (lambda p: replace(p, event=np.zeros(len(p))), "ibs", "no horizon is reached"),
        (lambda p: p[p.time < 2 * DAYS_PER_YEAR], "brier_2", "fewer than 5 test patients were followed so long"),
        (lambda p: p[_with_events(p, 9)], "slope_5", "fewer than 10 events by then"),
        (lambda p: p[_with_events(p, 15)], "ici_5", "fewer than 20 events by then"),
        (lambda p: replace(p, censoring_at=p.censoring_at * 0.1), "auc_5", "at most 10 % of the development patients"),
        (
            lambda p: replace(p, absolute_risk=np.full(p.absolute_risk.shape, 0.3)),
            "slope_2",
            "predictions are the same",
        ),
        (lambda p: replace(p, absolute_risk=np.full(p.absolute_risk.shape, 0.3)), "ici_2", "too few different"),
        (lambda p: replace(p, times=p.times + 1), "auc_2", "no predictions at this time"),
        (lambda p: p[:1], "harrell_c", "no "),
        (lambda p: p[:0], "harrell_c", "no event"),
    ],
)
def test_reasons(change, figure, reason):
    found = figures_of(change(cohort()))[figure]
    assert (found.value, found.sd, found.low, found.high) == (None, None, None, None)
    assert reason in found.reason


def _with_events(predictions, count):
    events = np.flatnonzero((predictions.event > 0) & (predictions.time <= 5 * DAYS_PER_YEAR))
    return np.sort(np.concatenate([events[:count], np.flatnonzero(predictions.event == 0)]))


@pytest.mark.parametrize("events", [1, 4, 5])
def test_a_few_events_give_a_reason_instead_of_a_c_index(events):
    predictions = cohort()
    first = np.flatnonzero(predictions.event > 0)[:events]
    figures = figures_of(replace(predictions, event=np.isin(np.arange(200), first).astype(float)))
    for figure in (figures["harrell_c"], figures["uno_c"]):
        assert figure.events == events
        assert (figure.value is None, figure.reason) == (
            (False, None) if events == 5 else (True, "fewer than 5 events")
        )


def test_patients_all_in_order_have_no_interval():
    found = estimate(np.ones(50), n=5, events=1)
    assert (found.value, found.low, found.reason) == (1, None, "the same in every bootstrap sample")
    mostly_undefined = np.concatenate([[0.6], np.full(60, np.nan), np.linspace(0, 1, 40)])
    found = estimate(mostly_undefined, n=5, events=1)
    assert (found.low, found.reason) == (None, "too few events for an interval")


def test_a_patient_in_two_repeats_counts_once_and_is_drawn_with_both_rows():
    once = cohort()
    twice = concatenate([once, replace(once, stratum=once.stratum + 1)])
    first, second = figures_of(once), figures_of(twice)
    for name in KEYS:
        if first[name].value is None:
            assert second[name].value is None
        elif not name.startswith(("e50", "e90")):  # quantiles of doubled rows are interpolated elsewhere
            for field in ("value", "sd", "low", "high", "n", "events"):
                expected = pytest.approx(getattr(first[name], field), rel=1e-4)
                assert getattr(second[name], field) == expected, (name, field)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 2, 5, 30, 80]),
    st.sampled_from([0.0, 1e-4, 1.0, 1e4]),
    st.sampled_from([1.0, 400.0, 10_000.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(1, 4),
)
def test_never_an_exception_and_never_a_figure_that_is_not_a_number(seed, patients, scale, day, happening, strata):
    """Few patients, no event, ties up to one time for all, constant and enormous risks."""
    predictions = cohort(seed, patients=patients, strata=strata)
    rng = np.random.default_rng(seed)
    risk = predictions.risk * scale
    known = rng.normal(size=50)
    time, event = follow(known, rng, scale=2500.0)
    predictions = replace(
        predictions,
        risk=risk,
        time=np.ceil(predictions.time / day) * day,
        event=(rng.random(patients) < happening).astype(float),
        absolute_risk=1 - breslow(known, time=time, event=event).survival(risk, GRID),
    )
    figures = figures_of(predictions, replicates=20)
    assert set(figures) == KEYS
    for figure in figures.values():
        assert (figure.value is None) <= (figure.reason is not None)
        json.dumps(asdict(figure), allow_nan=False)
    order = rng.permutation(patients)
    for name, figure in figures_of(predictions[order], replicates=20).items():
        if figures[name].value is None:
            assert figure.value is None
        else:
            assert figure.value == pytest.approx(figures[name].value, rel=1e-5, abs=1e-8)
    json.dumps(curves(predictions, horizons_years=YEARS), allow_nan=False)


def test_censoring_after_the_horizon_does_not_matter():
    predictions = cohort()
    later = replace(predictions, time=np.where(predictions.time > 1900, predictions.time + 500, predictions.time))
    before, after = figures_of(predictions), figures_of(later)
    for name in PER_HORIZON:
        assert after[f"{name}_5"].value == pytest.approx(before[f"{name}_5"].value, rel=1e-9)


def test_curves_of_the_horizons_that_are_reached():
    drawn = curves(cohort(), horizons_years=YEARS)
    assert set(drawn) == {"2", "5"}
    for curve in drawn.values():
        assert set(curve) == {"roc", "calibration", "decision"}
        assert len(curve["roc"]["fpr"]) == len(curve["roc"]["tpr"]) > 0
        assert len(curve["calibration"]["predicted"]) == len(curve["calibration"]["observed"]) > 0
        assert len(curve["calibration"]["groups"]["observed"]) == 5
        assert len(curve["decision"]["threshold"]) == len(curve["decision"]["none"])
    json.dumps(drawn, allow_nan=False)


def test_harrell_of_a_subgroup_sees_the_same_draws():
    predictions = simulate()
    multiplicities = draw_patients(120, 40, np.random.default_rng(0))
    subgroup = predictions[predictions.patient % 2 == 0]
    found = harrell_c(subgroup, samples_of(subgroup, multiplicities))
    assert (found.n, found.events) == (60, int(subgroup.event.sum()))
    assert found.low < found.value < found.high
