"""Gradient blending on numbers worked out by hand, and its promises under any input.

The worked example, three heads (fusion, image, clinical) at two checkpoints:

                     fusion   image   clinical
    train     before   1.00    1.00    1.00
              after    0.50    0.90    0.40
    validation before  1.20    1.10    1.30
              after    0.80    1.05    1.40
    O = val - train    0.20 -> 0.30    0.10 -> 0.15    0.30 -> 1.00
    dO                 0.10    0.05    0.70
    dG                 0.40    0.05   -0.10      (the clinical head only overfits)
    dG / dO^2          40      20      < 0
    optimum            2/3     1/3     0
"""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from stsmm_core.config import Blending
from stsmm_core.training.blending import BlendingState, Interval, bounded, start_blending

TRAIN = ((1.0, 1.0, 1.0), (0.5, 0.9, 0.4))
VALIDATION = ((1.2, 1.1, 1.3), (0.8, 1.05, 1.4))
EXAMPLE = Interval.from_changes(np.subtract(TRAIN[1], TRAIN[0]), np.subtract(VALIDATION[1], VALIDATION[0]))
UNIFORM = BlendingState((1 / 3, 1 / 3, 1 / 3))
METHODS = ("robust", "simplex", "softmax", "uniform", "none")


def interval(gain, overfit, gain_se=0.0, overfit_se=0.0):
    arrays = [np.array(values, dtype=float) for values in (gain, overfit)]
    errors = [np.broadcast_to(np.asarray(values, dtype=float), arrays[0].shape) for values in (gain_se, overfit_se)]
    return Interval(*arrays, *errors)


def bare(**changes):
    """Robust blending with every safeguard off: the optimum itself."""
    return Blending(**({"z": 0, "tau": 0, "shrink": 0, "floor": 0, "ceiling": 1, "smoothing": 0} | changes))


def test_interval_of_the_worked_example():
    np.testing.assert_allclose(EXAMPLE.generalisation, [0.4, 0.05, -0.1])
    np.testing.assert_allclose(EXAMPLE.overfitting, [0.1, 0.05, 0.7])
    assert not EXAMPLE.generalisation_se.any()
    assert not EXAMPLE.overfitting_se.any()


def test_interval_from_changes_is_the_same_and_adds_variances():
    made = Interval.from_changes(
        np.array([-0.5, -0.1, -0.6]), np.array([-0.4, -0.05, 0.1]), np.array([9.0, 0, 4]), np.array([16.0, 1, 0])
    )
    np.testing.assert_allclose(made.generalisation, EXAMPLE.generalisation)
    np.testing.assert_allclose(made.overfitting, EXAMPLE.overfitting)
    np.testing.assert_allclose(made.generalisation_se, [4, 1, 0])
    np.testing.assert_allclose(made.overfitting_se, [5, 1, 2])


@pytest.mark.parametrize("config", [Blending(method="simplex", eps=1e-12), bare()])
def test_weights_are_in_proportion_to_gain_over_squared_overfitting(config):
    state = UNIFORM.after(EXAMPLE, config)
    np.testing.assert_allclose(state.weights, [2 / 3, 1 / 3, 0], atol=1e-9)
    assert state.updates == 1


def test_eps_of_simplex():
    # 0.4 / (0.01 + 0.01) = 20, 0.05 / (0.0025 + 0.01) = 4
    state = UNIFORM.after(EXAMPLE, Blending(method="simplex", eps=0.01))
    np.testing.assert_allclose(state.weights, [20 / 24, 4 / 24, 0])


def test_softmax_is_of_the_raw_scores_and_may_feed_a_head_that_overfits():
    # 0.4 / 0.02 = 20, 0.05 / 0.0125 = 4, -0.1 / 0.5 = -0.2
    odds = [math.exp(score) for score in (20, 4, -0.2)]
    state = UNIFORM.after(EXAMPLE, Blending(method="softmax", eps=0.01))
    np.testing.assert_allclose(state.weights, np.array(odds) / sum(odds), rtol=1e-12)
    assert state.weights[2] > 0


def test_softmax_of_huge_scores_is_one_hot_not_nan():
    state = UNIFORM.after(interval([1.0, 0.5, -1], [0, 0, 0]), Blending(method="softmax", eps=1e-6))
    assert state.weights == (1, 0, 0)


def test_robust_takes_standard_errors_and_tau_off():
    # z = 1/2, tau = 0.1. Gains 0.4 - 0.2/2 = 0.3, 0.05 - 0.05/2 = 0.025, none.
    # Denominators 0.01 + 0.04 + 0.01 = 0.06, 0.0025 + 0.01 + 0.01 = 0.0225. Ratios 5 and 10/9: 9/11 and 2/11.
    observed = interval([0.4, 0.05, -0.1], [0.1, 0.05, 0.7], [0.2, 0.05, 0.1], [0.2, 0.1, 0.1])
    state = UNIFORM.after(observed, bare(z=0.5, tau=0.1))
    np.testing.assert_allclose(state.weights, [9 / 11, 2 / 11, 0], atol=1e-9)


def test_robust_does_not_believe_a_gain_within_its_error():
    observed = interval([0.4, 0.3, 0.1], [0.1, 0.1, 0.1], [0.1, 0.7, 0.1])
    np.testing.assert_allclose(UNIFORM.after(observed, bare(z=0.5)).weights[1], 0, atol=1e-9)
    assert UNIFORM.after(observed, bare(z=0.4)).weights[1] > 0


def test_robust_shrinks_to_uniform():
    # 0.7 * (2/3, 1/3, 0) + 0.3 / 3
    state = UNIFORM.after(EXAMPLE, bare(shrink=0.3))
    np.testing.assert_allclose(state.weights, [17 / 30, 1 / 3, 0.1], atol=1e-9)


def test_robust_bounds():
    # (2/3, 1/3, 0) with floor 0.2: the nearest is (2/3 - 0.1, 1/3 - 0.1, 0.2).
    state = UNIFORM.after(EXAMPLE, bare(floor=0.2))
    np.testing.assert_allclose(state.weights, [2 / 3 - 0.1, 1 / 3 - 0.1, 0.2], atol=1e-9)
    # With ceiling 0.5 the excess of 1/6 is shared by the other two.
    state = UNIFORM.after(EXAMPLE, bare(ceiling=0.5))
    np.testing.assert_allclose(state.weights, [0.5, 1 / 3 + 1 / 12, 1 / 12], atol=1e-9)


def test_robust_smooths_over_intervals():
    before = BlendingState((0.2, 0.2, 0.6), updates=3)
    state = before.after(EXAMPLE, bare(smoothing=0.25))
    np.testing.assert_allclose(state.weights, [0.05 + 0.5, 0.05 + 0.25, 0.15], atol=1e-9)
    assert state.updates == 4


def test_the_other_methods_have_no_memory():
    before = BlendingState((0.2, 0.2, 0.6))
    for method in ("simplex", "softmax"):
        config = Blending(method=method, smoothing=0.9)
        assert before.after(EXAMPLE, config).weights == UNIFORM.after(EXAMPLE, config).weights


@pytest.mark.parametrize("method", ["robust", "simplex"])
def test_where_every_head_overfits_the_old_weights_stay(method):
    before = BlendingState((0.2, 0.3, 0.5), updates=2)
    assert before.after(interval([-0.1, 0, -1e-9], [0.1, 0.2, 0.3]), Blending(method=method)) == before


def test_where_no_gain_exceeds_its_error_the_old_weights_stay():
    before = BlendingState((0.2, 0.3, 0.5))
    assert before.after(interval([0.1, 0.1, 0.1], [0.1, 0.1, 0.1], 1.0), Blending(z=0.5)) == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["generalisation", "overfitting"])
def test_what_is_not_a_number_changes_nothing(method, value, field):
    fields = {"generalisation": [0.1, value, 0.3], "overfitting": [0.1, 0.1, 0.1]}
    if field == "overfitting":
        fields = {"generalisation": [0.1, 0.2, 0.3], "overfitting": [0.1, value, 0.1]}
    before = BlendingState((0.2, 0.3, 0.5))
    assert before.after(interval(fields["generalisation"], fields["overfitting"]), Blending(method=method)) == before


@pytest.mark.parametrize("errors", [{"gain_se": math.nan}, {"overfit_se": math.nan}])
def test_an_unknown_standard_error_changes_nothing(errors):
    before = BlendingState((0.2, 0.3, 0.5))
    assert before.after(interval([0.1, 0.2, 0.3], [0.1, 0.1, 0.1], **errors), Blending()) == before


@pytest.mark.parametrize("method", ["robust", "simplex", "softmax"])
def test_no_overfitting_at_all(method):
    state = UNIFORM.after(interval([9.0, 9, 0], [0, 0, 0]), bare(method=method))
    np.testing.assert_allclose(state.weights, [0.5, 0.5, 0], atol=1e-9)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_sign_of_overfitting_does_not_matter(sign):
    observed = interval([0.4, 0.05, -0.1], sign * EXAMPLE.overfitting)
    np.testing.assert_allclose(UNIFORM.after(observed, bare()).weights, [2 / 3, 1 / 3, 0], atol=1e-9)


@pytest.mark.parametrize("method", ["uniform", "none"])
def test_the_controls_are_fixed(method):
    config = Blending(method=method)
    start = start_blending(config, 3)
    assert start.weights == ((1 / 3,) * 3 if method == "uniform" else (1, 0, 0))
    assert start.after(EXAMPLE, config) == start


@pytest.mark.parametrize("method", ["robust", "simplex", "softmax", "uniform"])
@pytest.mark.parametrize("heads", [2, 3, 4])
def test_uniform_at_first(method, heads):
    assert start_blending(Blending(method=method), heads) == BlendingState((1 / heads,) * heads, updates=0)


@st.composite
def intervals(draw, heads=3):
    """Intervals over forty orders of magnitude, exact zeros included."""
    number = st.one_of(
        st.just(0.0),
        st.floats(-10, 10),
        st.builds(lambda sign, power: sign * 10.0**power, st.sampled_from([-1, 1]), st.integers(-30, 10)),
    )
    values = draw(st.lists(number, min_size=4 * heads, max_size=4 * heads))
    gain, overfit, gain_se, overfit_se = np.reshape(values, (4, heads))
    return interval(gain, overfit, np.abs(gain_se), np.abs(overfit_se))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(intervals(), min_size=1, max_size=3),
    st.floats(0, 2),
    st.sampled_from([0.0, 1e-3, 0.01]),
    st.floats(0, 1),
    st.floats(0, 1 / 3),
    st.floats(1 / 3, 1),
    st.floats(0, 0.99),
)
def test_robust_weights_keep_their_bounds_and_sum_to_one(observed, z, tau, shrink, floor, ceiling, smoothing):
    config = Blending(z=z, tau=tau, shrink=shrink, floor=floor, ceiling=ceiling, smoothing=smoothing)
    state = start_blending(config, 3)
    for each in observed:
        state = state.after(each, config)
        assert sum(state.weights) == pytest.approx(1, abs=1e-9)
        assert min(state.weights) >= floor - 1e-9
        assert max(state.weights) <= ceiling + 1e-9


@settings(deadline=None, max_examples=200)
@given(intervals(), st.sampled_from(["simplex", "softmax"]))
def test_the_other_weights_sum_to_one_too(observed, method):
    state = UNIFORM.after(observed, Blending(method=method))
    assert sum(state.weights) == pytest.approx(1, abs=1e-9)
    assert min(state.weights) >= 0


@settings(deadline=None, max_examples=100)
@given(intervals(), st.permutations([0, 1, 2]))
def test_heads_are_treated_alike(observed, order):
    order = list(order)
    moved = Interval(*(getattr(observed, name)[order] for name in Interval.__dataclass_fields__))
    weights = np.array(UNIFORM.after(observed, Blending()).weights)
    np.testing.assert_allclose(UNIFORM.after(moved, Blending()).weights, weights[order], atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=5),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_bounded_is_the_euclidean_projection(values, low, high):
    heads = len(values)
    assume(sum(values) > 0.01)
    weights = np.array(values) / sum(values)
    floor, ceiling = low / heads, 1 / heads + high * (1 - 1 / heads)
    found = bounded(weights, floor, ceiling)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert floor <= found.min()
    assert found.max() <= ceiling
    solved = minimize(
        lambda candidate: ((candidate - weights) ** 2).sum(),
        np.full(heads, 1 / heads),
        jac=lambda candidate: 2 * (candidate - weights),
        bounds=[(floor, ceiling)] * heads,
        constraints={"type": "eq", "fun": lambda candidate: candidate.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    # No feasible point is nearer, and the solver's is no other one (the projection is unique).
    assert ((found - weights) ** 2).sum() <= ((solved.x - weights) ** 2).sum() + 1e-9
    np.testing.assert_allclose(found, solved.x, atol=1e-4)


def test_weights_inside_their_bounds_are_left_alone():
    np.testing.assert_allclose(bounded(np.array([0.2, 0.3, 0.5]), 0.1, 0.8), [0.2, 0.3, 0.5], atol=1e-15)


def test_bounds_that_leave_one_choice():
    np.testing.assert_allclose(bounded(np.array([0.9, 0.1, 0]), 1 / 3, 1 / 3), [1 / 3] * 3, atol=1e-12)
