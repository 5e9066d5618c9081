import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from simulated import simulate
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from stsmm_core.comparators.design import fit_design
from stsmm_core.comparators.fitting import all_zero_strength, elastic_net_path, fit, ridge_path
from stsmm_core.comparators.models import NotEnoughEvents
from stsmm_core.comparators.specification import COMPARATORS
from stsmm_core.comparators.strength import choose_strength, inner_folds
from stsmm_core.config import Comparators
from stsmm_core.survival.concordance import concordance, count_pairs

CONFIG = Comparators(trees=30)
PATIENTS = simulate()
TRAIN, DEVELOPMENT, TEST = np.arange(70), np.arange(90), np.arange(90, 120)
ESTIMATORS = ("cox", "ridge", "elastic_net", "forest")


def fitted(key, patients=PATIENTS, config=CONFIG, seed=0):
    """The comparator of a fold, and the inputs of everybody."""
    design = fit_design(COMPARATORS[key], patients.clinical, patients.encoding(TRAIN), patients.radiomics, train=TRAIN)
    inputs = design.inputs(patients.clinical, patients.radiomics)
    model = fit(
        COMPARATORS[key].estimator,
        inputs.iloc[DEVELOPMENT],
        time=patients.time[DEVELOPMENT],
        event=patients.event[DEVELOPMENT],
        config=config,
        seed=seed,
    )
    return model, inputs


def planted(patients=150, inputs=12, *, seed=0, signal=1.0):
    """Standardised inputs, of which the first two matter."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(patients, inputs))
    values = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    events = rng.exponential(1000 * np.exp(-signal * (values[:, 0] - values[:, 1])))
    censored = rng.uniform(100, 4000, size=patients)
    time = np.ceil(np.minimum(events, censored) / 30)  # months: ties
    return values, time, (events <= censored).astype(float)


@pytest.mark.parametrize("key", COMPARATORS)
def test_a_model_of_a_fold(key):
    model, inputs = fitted(key)
    risk = model.risk(inputs)
    times = np.array([0.0, 365.25, 2000.0, 1e9])
    survival = model.survival(inputs, times)
    assert np.isfinite(risk).all()
    assert survival.shape == (120, 4)
    assert (survival[:, 0] == 1).all()
    assert ((survival >= 0) & (survival <= 1)).all()
    # Of two patients, the one at the higher risk survives less.
    assert np.corrcoef(risk, survival[:, 2])[0, 1] < -0.5
    counts = count_pairs(
        risk[TEST], time=PATIENTS.time[TEST], event=PATIENTS.event[TEST], replicates=0, rng=np.random.default_rng(0)
    )
    assert concordance(counts).value > 0.5, "risks are upside down, or nothing was learned"


@pytest.mark.parametrize("key", COMPARATORS)
def test_patients_to_be_tested_do_not_move_a_model(key):
    clinical, radiomics = PATIENTS.clinical.copy(), PATIENTS.radiomics.copy()
    clinical.iloc[TEST, clinical.columns.get_loc("volume_cm3")] = 29999.0
    clinical.iloc[TEST, clinical.columns.get_loc("histology")] = np.nan
    radiomics.iloc[TEST] = 1e9
    time, event = PATIENTS.time.copy(), PATIENTS.event.copy()
    time[TEST], event[TEST] = 1.0, 1.0
    before, inputs = fitted(key)
    after, _ = fitted(key, type(PATIENTS)(clinical, radiomics, time, event))
    np.testing.assert_array_equal(after.risk(inputs), before.risk(inputs))
    np.testing.assert_array_equal(after.survival(inputs, [500, 1500]), before.survival(inputs, [500, 1500]))
    assert getattr(after, "strength", None) == getattr(before, "strength", None)


@pytest.mark.parametrize("key", ["clinical_ridge", "radiomics_clinical_elastic_net", "radiomics_rsf"])
def test_the_same_seed_gives_the_same_model(key):
    (first, inputs), (second, _) = fitted(key, seed=5), fitted(key, seed=5)
    np.testing.assert_array_equal(first.risk(inputs), second.risk(inputs))


def test_another_seed_grows_another_forest():
    (first, inputs), (second, _) = fitted("clinical_rsf", seed=1), fitted("clinical_rsf", seed=2)
    assert not np.array_equal(first.risk(inputs), second.risk(inputs))


def lifelines_fit(values, time, event, **settings):
    table = pd.DataFrame(values, columns=[f"x{k}" for k in range(values.shape[1])]).assign(time=time, event=event)
    return CoxPHFitter(**settings).fit(table, "time", "event"), table


@pytest.mark.parametrize("strength", [0.0, 0.01, 0.3])
def test_ridge_against_lifelines(strength):
    values, time, event = planted()
    reference, _ = lifelines_fit(values, time, event, penalizer=strength, l1_ratio=0.0)
    (coefficients,) = ridge_path(values, time=time, event=event, strengths=np.array([strength]))
    np.testing.assert_allclose(coefficients, reference.params_, rtol=1e-5, atol=1e-6)


def test_cox_against_lifelines():
    """The small penalty moves estimates by less than a tenth of their standard errors; curves agree with it."""
    values, time, event = planted()
    features = pd.DataFrame(values, columns=[f"x{k}" for k in range(12)])
    model = fit("cox", features, time=time, event=event, config=CONFIG, seed=0)
    free, _ = lifelines_fit(values, time, event)
    assert (np.abs(model.coefficients - free.params_) < 0.1 * free.standard_errors_).all()
    same, table = lifelines_fit(values, time, event, penalizer=CONFIG.cox_penalty / len(values))
    np.testing.assert_allclose(model.coefficients, same.params_, rtol=1e-5, atol=1e-6)
    times = np.array([1.0, 3.0, 20.0, 60.0, 1e6])  # lifelines extrapolates before the first
    np.testing.assert_allclose(
        model.survival(features, times), same.predict_survival_function(table, times).T, rtol=1e-4, atol=1e-6
    )


def slopes(values, time, event, coefficients):
    """Derivative of Breslow's log likelihood / n, patient by patient."""
    weights, total = np.exp(values @ coefficients), np.zeros(values.shape[1])
    for row in np.flatnonzero(event > 0):
        at_risk = time >= time[row]
        total += values[row] - np.average(values[at_risk], axis=0, weights=weights[at_risk])
    return total / len(time)


@pytest.mark.parametrize("l1_ratio", [0.1, 0.5, 1.0])
def test_elastic_net_is_at_its_optimum(l1_ratio):
    """Conditions of Karush, Kuhn and Tucker, with the slope from the definition."""
    values, time, event = planted()
    strongest = all_zero_strength(values, time=time, event=event, l1_ratio=l1_ratio)
    strengths = np.geomspace(strongest, 0.01 * strongest, 10)
    path = elastic_net_path(values, time=time, event=event, strengths=strengths, l1_ratio=l1_ratio)
    assert not path[0].any()
    assert path[1].any(), "the strongest is not the least that leaves nothing"
    for strength, coefficients in zip(strengths, path, strict=True):
        slope = slopes(values, time, event, coefficients)
        inside = np.abs(slope) <= strength * l1_ratio + 1e-3 * strongest
        at = np.isclose(
            slope,
            strength * (l1_ratio * np.sign(coefficients) + (1 - l1_ratio) * coefficients),
            atol=1e-3 * strongest,
        )
        assert np.where(coefficients == 0, inside, at).all()


def test_a_path_that_runs_away_ends_where_it_held():
    """Sixteen patients and fifteen inputs of a large scale, a seed with which the library gives up."""
    values, time, event = 8.0 * np.random.default_rng(44).normal(size=(16, 15)), np.arange(1.0, 17.0), np.ones(16)
    strongest = all_zero_strength(values, time=time, event=event, l1_ratio=0.5)
    strengths = np.geomspace(strongest, 1e-3 * strongest, 10)
    with pytest.raises(ArithmeticError):
        CoxnetSurvivalAnalysis(alphas=strengths, l1_ratio=0.5).fit(values, Surv.from_arrays(event > 0, time))
    path = elastic_net_path(values, time=time, event=event, strengths=strengths, l1_ratio=0.5)
    assert path.shape == (10, 15)
    assert np.isfinite(path).all()
    assert path[1:].any(axis=1).all()
    np.testing.assert_array_equal(path[-1], path[-2])


def test_a_planted_signal_is_found_among_noise():
    values, time, event = planted(200, 100)
    features = pd.DataFrame(values, columns=[f"x{k}" for k in range(100)])
    model = fit("elastic_net", features, time=time, event=event, config=CONFIG, seed=0)
    largest = model.coefficients.abs().nlargest(2).index
    assert set(largest) == {"x0", "x1"}
    assert model.coefficients["x0"] > 0 > model.coefficients["x1"]
    strongest = all_zero_strength(values, time=time, event=event, l1_ratio=CONFIG.l1_ratio)
    assert 0.01 * strongest < model.strength < strongest


def test_the_strength_with_the_best_c_index_is_chosen():
    """A path whose coefficients are known: only the third orders patients rightly."""
    values, time, event = planted(80, 2, signal=3.0)
    path = np.array([[0.0, 0.0], [-1.0, 1.0], [1.0, -1.0], [0.0, 1.0]])
    chosen = choose_strength(
        lambda *_, **__: path, np.array([4.0, 3.0, 2.0, 1.0]), values, time=time, event=event, folds=5, seed=0
    )
    assert chosen == 2


def test_of_equal_strengths_the_strongest():
    values, time, event = planted(80, 2)
    path = np.array([[0.5, -0.5], [1.0, -1.0], [2.0, -2.0]])
    arguments = {"time": time, "event": event, "folds": 5, "seed": 0}
    assert choose_strength(lambda *_, **__: path, np.array([3.0, 2.0, 1.0]), values, **arguments) == 0


def fitted_to(values, **arguments):
    """The first input of the patients of each inner fit, in order."""
    seen: list[frozenset[float]] = []

    def path(rows, *, time, event, strengths):
        seen.append(frozenset(rows[:, 0].tolist()))
        return np.zeros((len(strengths), 2))

    choose_strength(path, np.array([1.0]), values, **arguments)
    return seen


def test_held_out_patients_are_not_in_the_fit():
    values, time, event = planted(60, 2)
    seen = fitted_to(values, time=time, event=event, folds=5, seed=3)
    held_out = [set(values[rows, 0].tolist()) for rows in inner_folds(event, 5, seed=3)]
    assert all(not fitted & tested for fitted, tested in zip(seen, held_out, strict=True))


def test_repeats_are_other_divisions_after_the_same_first_one():
    values, time, event = planted(60, 2)
    arguments = {"time": time, "event": event, "folds": 5, "seed": 3}
    seen = fitted_to(values, **arguments, repeats=3)
    assert seen[:5] == fitted_to(values, **arguments)
    assert len(set(seen)) == len(seen) == 15


@given(st.integers(5, 60), st.integers(0, 60), st.integers(2, 5), st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_inner_folds_share_events_evenly(patients, events, folds, seed):
    event = np.zeros(patients)
    event[: min(events, patients)] = 1.0
    parts = inner_folds(event, folds, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(patients))
    for kind in (0.0, 1.0):
        counts = [int((event[rows] == kind).sum()) for rows in parts]
        assert max(counts) - min(counts) <= 1
    for rows, again in zip(parts, inner_folds(event, folds, seed=seed), strict=True):
        np.testing.assert_array_equal(rows, again)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@given(
    patients=st.integers(12, 40),
    inputs=st.integers(1, 30),
    scale=st.sampled_from([1e-3, 1.0, 8.0]),
    tied=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=15, deadline=None)
def test_survival_is_a_survival_function(estimator, patients, inputs, scale, tied, seed):
    rng = np.random.default_rng(seed)
    values = np.column_stack([scale * rng.normal(size=(patients, inputs)), np.ones(patients)])
    features = pd.DataFrame(values, columns=[f"x{k}" for k in range(inputs + 1)])
    time = rng.integers(1, 4 if tied else 4000, size=patients).astype(float)
    event = np.ones(patients)
    event[6:] = rng.integers(0, 2, size=patients - 6)
    config = Comparators(trees=5, strengths=5)
    try:
        model = fit(estimator, features, time=time, event=event, config=config, seed=seed)
    except NotEnoughEvents:
        reject()  # all times tied within every inner fold
    times = np.sort(np.concatenate([[-1.0, 0.0, 1e12], time, time - 0.5]))
    survival = model.survival(features, times)
    assert np.isfinite(model.risk(features)).all()
    assert ((survival >= 0) & (survival <= 1)).all()
    assert (np.diff(survival, axis=1) <= 1e-12).all()
    assert (survival[:, times < time[event > 0].min()] == 1).all()
    last = model.survival(features, [time.max(), time.max() + 1, 1e12])
    assert (last == last[:, :1]).all(), "beyond the last observation nothing is known to change"
    backwards = model.survival(features, times[::-1])
    np.testing.assert_array_equal(backwards[:, ::-1], survival)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("events", [0, 4])
def test_too_few_events(estimator, events):
    values, time, _ = planted(40, 3)
    event = np.zeros(40)
    event[:events] = 1
    with pytest.raises(NotEnoughEvents, match=f"{events} events among 40 development patients; 5 are needed"):
        fit(estimator, pd.DataFrame(values), time=time, event=event, config=CONFIG, seed=0)


def test_a_cross_validation_needs_an_event_a_fold():
    values, time, _ = planted(40, 3)
    event = np.zeros(40)
    event[:6] = 1
    features, config = pd.DataFrame(values), Comparators(inner_folds=7)
    with pytest.raises(NotEnoughEvents, match="6 events among 40 development patients; 7 are needed"):
        fit("elastic_net", features, time=time, event=event, config=config, seed=0)
    assert np.isfinite(fit("cox", features, time=time, event=event, config=config, seed=0).risk(features)).all()


def test_a_level_without_events_does_not_run_away():
    """Separation: the maximum of the plain likelihood is at infinity."""
    values, time, event = planted(60, 2)
    rare = np.zeros(60)
    rare[np.flatnonzero(event == 0)[:3]] = 1
    features = pd.DataFrame(np.column_stack([values, rare]), columns=["a", "b", "rare"])
    model = fit("cox", features, time=time, event=event, config=CONFIG, seed=0)
    assert -10 < model.coefficients["rare"] < 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_events_on_one_day_rank_nobody(estimator):
    features = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=["a", "b", "c"])
    time, event = np.full(40, 100.0), np.ones(40)
    with pytest.raises(NotEnoughEvents, match="all 40 events among the development patients fall on one day"):
        fit(estimator, features, time=time, event=event, config=CONFIG, seed=0)
