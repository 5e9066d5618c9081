"""The Cox loss against oracles that share nothing with it: loops in plain Python, lifelines, scikit-survival."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from stsmm_core.survival.cox_loss import cox_loss, cox_loss_sum, resampled_cox_loss_sums

TIES = ("breslow", "efron")


def naive_loss_sum(risk, time, event, ties):
    """The definition, O(n²): at each event time the tied events against everybody still under observation."""
    total = 0.0
    for moment in sorted({t for t, e in zip(time, event, strict=True) if e}):
        dying = [r for r, t, e in zip(risk, time, event, strict=True) if t == moment and e]
        watched = [r for r, t in zip(risk, time, strict=True) if t >= moment]
        top = max(watched)
        everybody = math.fsum(math.exp(r - top) for r in watched)
        tied = math.fsum(math.exp(r - top) for r in dying)
        for rank, own in enumerate(dying):
            removed = rank / len(dying) * tied if ties == "efron" else 0.0
            total += top + math.log(everybody - removed) - own
    return total


def naive_gradient(risk, time, event, ties):
    """d loss / d risk: for each event, the patient's share of the hazard, minus 1 for the patients who have it."""
    gradient = [-float(e) for e in event]
    for moment in sorted({t for t, e in zip(time, event, strict=True) if e}):
        watched = [i for i, t in enumerate(time) if t >= moment]
        dying = [i for i in watched if time[i] == moment and event[i]]
        top = max(risk[i] for i in watched)
        hazard = {i: math.exp(risk[i] - top) for i in watched}
        for rank in range(len(dying)):
            share = rank / len(dying) if ties == "efron" else 0.0
            left = {i: hazard[i] * (1 - share if i in dying else 1) for i in watched}
            for i in watched:
                gradient[i] += left[i] / math.fsum(left.values())
    return gradient


def tensors(risk, time, event):
    return (
        torch.tensor(risk, dtype=torch.float64),
        torch.tensor(time, dtype=torch.float64),
        torch.tensor(event, dtype=torch.float64),
    )


def tied_cohort(seed, n=60, times=12):
    """Three covariates with a real effect, whole-number times with many ties, about 60 % events."""
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(n, 3))
    hazard = np.exp(covariates @ [0.8, -0.5, 0.0])
    time = np.minimum(np.ceil(rng.exponential(5 / hazard)), times)
    event = (rng.uniform(size=n) < 0.8) & (time < times)
    return covariates, time, event


@st.composite
def patients(draw, *, min_size=1, scale=500.0):
    """Risks over many orders of magnitude; few distinct times, so that ties of every kind occur."""
    n = draw(st.integers(min_size, 12))
    factor = draw(st.sampled_from([1e-3, 1.0, 30.0, scale]))
    risk = draw(st.lists(st.floats(-1, 1, width=32), min_size=n, max_size=n))
    time = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    event = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return [factor * value for value in risk], time, event


@pytest.mark.parametrize("ties", TIES)
@settings(deadline=None, max_examples=150)
@given(patients())
def test_equals_the_definition(ties, drawn):
    risk, time, event = drawn
    scores, days, happened = tensors(*drawn)
    scores.requires_grad_()
    loss = cox_loss_sum(scores, time=days, event=happened, ties=ties)
    loss.backward()
    # Efron's tied events can be nearly the whole risk set; what is left loses digits in both computations.
    assert loss.item() == pytest.approx(naive_loss_sum(risk, time, event, ties), rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(scores.grad.numpy(), naive_gradient(risk, time, event, ties), atol=1e-9)


@pytest.mark.parametrize("ties", TIES)
def test_a_worked_example(ties):
    # Times 1, 2, 2, 3; the two at 2 both die, and the one at 1. All risks 0, so hazards are counts:
    # at 1: 1/4. At 2: Breslow 1/3 * 1/3; Efron 1/3 * 1/(3 - 1/2*2) = 1/3 * 1/2.
    risk, time, event = tensors([0, 0, 0, 0], [1, 2, 2, 3], [1, 1, 1, 0])
    expected = math.log(4 * 3 * (3 if ties == "breslow" else 2))
    assert cox_loss_sum(risk, time=time, event=event, ties=ties).item() == pytest.approx(expected, rel=1e-14)
    assert cox_loss(risk, time=time, event=event, ties=ties).item() == pytest.approx(expected / 3, rel=1e-14)


def test_breslow_is_the_default_and_differs_from_efron_at_ties():
    risk, time, event = tensors([0.3, -1, 2, 0], [1, 1, 2, 3], [1, 1, 1, 0])
    default = cox_loss(risk, time=time, event=event)
    assert default == cox_loss(risk, time=time, event=event, ties="breslow")
    assert default > cox_loss(risk, time=time, event=event, ties="efron")


def test_patient_censored_at_an_event_time_is_still_at_risk():
    risk, time, event = tensors([0, 0], [5, 5], [1, 0])
    assert cox_loss_sum(risk, time=time, event=event).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("seed", range(3))
def test_log_likelihood_of_scikit_survival_is_stationary(ties, seed):
    covariates, time, event = tied_cohort(seed)
    fitted = CoxPHSurvivalAnalysis(ties=ties, tol=1e-12, n_iter=200).fit(covariates, Surv.from_arrays(event, time))
    beta = torch.tensor(fitted.coef_, requires_grad=True)
    risk = torch.from_numpy(covariates) @ beta
    cox_loss(risk, time=torch.from_numpy(time), event=torch.from_numpy(event), ties=ties).backward()
    np.testing.assert_allclose(beta.grad.numpy(), 0, atol=1e-7)
    # The test can fail: the coefficients for the other ties are not stationary.
    beta.grad = None
    other = "efron" if ties == "breslow" else "breslow"
    risk = torch.from_numpy(covariates) @ beta
    cox_loss(risk, time=torch.from_numpy(time), event=torch.from_numpy(event), ties=other).backward()
    assert beta.grad.abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_log_likelihood_of_lifelines(seed):
    covariates, time, event = tied_cohort(seed)
    table = pd.DataFrame(covariates, columns=list("abc")).assign(time=time, event=event)
    fitted = CoxPHFitter().fit(table, "time", "event")
    risk = torch.from_numpy(covariates @ fitted.params_.to_numpy())
    loss = cox_loss_sum(risk, time=torch.from_numpy(time), event=torch.from_numpy(event), ties="efron")
    assert -loss.item() == pytest.approx(fitted.log_likelihood_, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_without_ties_both_kinds_equal_lifelines_and_each_other(seed):
    covariates, _, event = tied_cohort(seed)
    time = np.random.default_rng(seed).permutation(len(event)) + 1.0
    table = pd.DataFrame(covariates, columns=list("abc")).assign(time=time, event=event)
    fitted = CoxPHFitter().fit(table, "time", "event")
    risk = torch.from_numpy(covariates @ fitted.params_.to_numpy())
    for ties in TIES:
        loss = cox_loss_sum(risk, time=torch.from_numpy(time), event=torch.from_numpy(event), ties=ties)
        assert -loss.item() == pytest.approx(fitted.log_likelihood_, rel=1e-9)


@pytest.mark.parametrize("ties", TIES)
def test_gradient_is_that_of_the_loss(ties):
    covariates, time, event = tied_cohort(4, n=15, times=5)
    risk = torch.from_numpy(covariates.sum(axis=1)).requires_grad_()
    days, happened = torch.from_numpy(time), torch.from_numpy(event)
    assert torch.autograd.gradcheck(lambda r: cox_loss(r, time=days, event=happened, ties=ties), risk)


@pytest.mark.parametrize("ties", TIES)
def test_gradient_of_huge_risks(ties):
    risk = [500.0, -500.0, 499.0, -499.5, 0.0, 250.0]
    time, event = [1, 1, 2, 2, 2, 3], [1, 1, 0, 1, 1, 1]
    scores, days, happened = tensors(risk, time, event)
    scores.requires_grad_()
    cox_loss_sum(scores, time=days, event=happened, ties=ties).backward()
    np.testing.assert_allclose(scores.grad.numpy(), naive_gradient(risk, time, event, ties), atol=1e-12)


@pytest.mark.parametrize("ties", TIES)
@settings(deadline=None, max_examples=60)
@given(patients(), st.randoms(use_true_random=False), st.floats(-500, 500))
def test_row_order_and_a_constant_do_not_matter(ties, drawn, random, constant):
    order = list(range(len(drawn[0])))
    random.shuffle(order)
    risk, time, event = tensors(*drawn)
    loss = cox_loss_sum(risk, time=time, event=event, ties=ties)
    moved = cox_loss_sum(risk[order] + constant, time=time[order], event=event[order], ties=ties)
    assert moved.item() == pytest.approx(loss.item(), rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("ties", TIES)
@settings(deadline=None, max_examples=60)
@given(patients())
def test_gradients_are_finite_and_sum_to_zero(ties, drawn):
    risk, time, event = tensors(*drawn)
    risk.requires_grad_()
    loss = cox_loss(risk, time=time, event=event, ties=ties)
    loss.backward()
    assert math.isfinite(loss.item())
    assert loss.item() >= -1e-9
    assert torch.isfinite(risk.grad).all()
    assert risk.grad.sum().item() == pytest.approx(0, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(patients(min_size=2))
def test_only_the_order_of_times_matters(drawn):
    risk, time, event = tensors(*drawn)
    loss = cox_loss_sum(risk, time=time, event=event)
    assert cox_loss_sum(risk, time=torch.exp(time) * 365.25, event=event).item() == loss.item()


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("risk", [[0.4], [1.0, -2.0, 300.0], [0.0, 1e30, -1e30]])
def test_all_censored_is_exactly_zero_with_zero_gradient(ties, risk):
    scores, time, event = tensors(risk, range(len(risk)), [0] * len(risk))
    scores.requires_grad_()
    for loss in (cox_loss, cox_loss_sum):
        scores.grad = None
        value = loss(scores, time=time, event=event, ties=ties)
        value.backward()
        assert value.item() == 0
        assert scores.grad.tolist() == [0] * len(risk)


@pytest.mark.parametrize("ties", TIES)
def test_no_patient_at_all(ties):
    nobody = torch.zeros(0, requires_grad=True)
    loss = cox_loss(nobody, time=torch.zeros(0), event=torch.zeros(0), ties=ties)
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("happened", [0, 1])
def test_one_patient_teaches_nothing(ties, happened):
    risk, time, event = tensors([3.7], [100], [happened])
    risk.requires_grad_()
    loss = cox_loss(risk, time=time, event=event, ties=ties)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert risk.grad.item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_all_tied_with_equal_risks(n):
    risk, time, event = tensors([1.5] * n, [9] * n, [1] * n)
    breslow = cox_loss_sum(risk, time=time, event=event, ties="breslow")
    efron = cox_loss_sum(risk, time=time, event=event, ties="efron")
    assert breslow.item() == pytest.approx(n * math.log(n))
    assert efron.item() == pytest.approx(math.log(math.factorial(n)))


def test_mean_is_over_events_not_patients():
    covariates, time, event = tied_cohort(5)
    risk = torch.from_numpy(covariates[:, 0])
    arguments = {"time": torch.from_numpy(time), "event": torch.from_numpy(event)}
    assert cox_loss(risk, **arguments).item() == pytest.approx(cox_loss_sum(risk, **arguments).item() / event.sum())


def test_higher_risk_for_the_earlier_event_is_better():
    _, time, event = tensors([0, 0], [1, 2], [1, 1])
    right = cox_loss(torch.tensor([1.0, -1.0]), time=time, event=event)
    wrong = cox_loss(torch.tensor([-1.0, 1.0]), time=time, event=event)
    assert right < wrong


@pytest.mark.parametrize("ties", TIES)
def test_single_precision_risks_and_other_types(ties):
    covariates, time, event = tied_cohort(6)
    precise = torch.from_numpy(covariates[:, 0].astype(np.float32).astype(float))
    expected = cox_loss(precise, time=torch.from_numpy(time), event=torch.from_numpy(event), ties=ties)
    risk = precise.float().requires_grad_()
    loss = cox_loss(risk, time=torch.from_numpy(time).int(), event=torch.from_numpy(event).int(), ties=ties)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert risk.grad.dtype == torch.float32


@pytest.mark.parametrize("name", ["risk", "time", "event"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_refused(name, value):
    arguments = {"risk": torch.zeros(3), "time": torch.arange(3.0), "event": torch.ones(3)}
    arguments[name] = torch.tensor([0.0, value, 1.0])
    for loss in (cox_loss, cox_loss_sum):
        with pytest.raises(ValueError, match=f"{name} holds a value that is not a number"):
            loss(arguments["risk"], time=arguments["time"], event=arguments["event"])


@pytest.mark.parametrize("event", [[0.5, 1, 0], [2, 0, 1], [-1, 0, 1]])
def test_event_is_zero_or_one(event):
    with pytest.raises(ValueError, match="event must be 0 or 1"):
        cox_loss(torch.zeros(3), time=torch.arange(3.0), event=torch.tensor(event, dtype=torch.float64))


@pytest.mark.parametrize(
    ("risk", "time", "event"),
    [((3, 1), (3,), (3,)), ((3,), (2,), (3,)), ((3,), (3,), (4,)), ((3, 2), (3, 2), (3, 2)), ((), (), ())],
)
def test_shapes_that_do_not_fit_are_refused(risk, time, event):
    with pytest.raises(ValueError, match="vectors of one length"):
        cox_loss(torch.zeros(risk), time=torch.zeros(time), event=torch.zeros(event))


@settings(deadline=None, max_examples=100)
@given(patients(), st.data())
def test_bootstrap_sums_equal_repeated_rows(drawn, data):
    risk, time, event = (np.array(column, dtype=float) for column in drawn)
    drawn_counts = st.lists(st.integers(0, 3), min_size=len(risk), max_size=len(risk))
    counts = np.array(data.draw(st.lists(drawn_counts, min_size=1, max_size=3)))
    sums = resampled_cox_loss_sums(risk, time=time, event=event, counts=counts)
    expected = [
        naive_loss_sum(*(np.repeat(column, count).tolist() for column in (risk, time, event)), "breslow")
        for count in counts
    ]
    np.testing.assert_allclose(sums, expected, rtol=1e-9, atol=1e-9)


def test_bootstrap_sum_of_each_patient_once_is_the_loss():
    covariates, time, event = tied_cohort(7)
    counts = np.ones((1, len(time)), dtype=np.int64)
    sums = resampled_cox_loss_sums(covariates[:, 0], time=time, event=event.astype(float), counts=counts)
    loss = cox_loss_sum(torch.from_numpy(covariates[:, 0]), time=torch.from_numpy(time), event=torch.from_numpy(event))
    assert sums.tolist() == [pytest.approx(loss.item(), rel=1e-12)]


def test_bootstrap_of_nobody_is_zero():
    empty = np.zeros(0)
    sums = resampled_cox_loss_sums(empty, time=empty, event=empty, counts=np.zeros((4, 0), dtype=np.int64))
    assert sums.tolist() == [0, 0, 0, 0]
