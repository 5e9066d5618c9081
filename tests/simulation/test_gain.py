"""Paired differences of C-indices from pair counts by site."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.metrics import concordance_index_censored

from simulation.gain import ALIKE, Models, c_index, compare_models, difference, share_of_gain
from stsmm_core.errors import RunError
from stsmm_core.survival.concordance import concordance, count_pairs, total

REPLICATES = 200
SIZES = {"north": 40, "south": 25, "west": 12}


def patients(site: str, events: float = 0.6):
    rng = np.random.default_rng(sum(map(ord, site)))
    time = rng.integers(10, 200, SIZES[site]).astype(float)
    return rng.normal(size=SIZES[site]), time, (rng.uniform(size=SIZES[site]) < events).astype(float)


def model(noise: float, seed: int = 0, *, events: float = 0.6):
    """Counts by site of a model whose risk is the true one and noise; all models see the same samples."""
    counts = {}
    for number, site in enumerate(SIZES):
        _, time, event = patients(site, events)
        risk = -np.log(time) + noise * np.random.default_rng([seed, number]).normal(size=len(time))
        counts[site] = counted(site, risk, time, event)
    return counts


def counted(site, risk, time, event):
    rng = np.random.default_rng([9, len(site), ord(site[0])])
    return count_pairs(risk, time=time, event=event, replicates=REPLICATES, rng=rng)


def models(**changes):
    alone = {site: model(2.0 + number, seed=number) for number, site in enumerate(SIZES)}
    return replace(Models(model(0.8, 10), model(0.6, 11), alone, {}), **changes)


def find(figures, name, site=None):
    (found,) = [figure for figure in figures if (figure.name, figure.site) == (name, site)]
    return found


def test_a_difference_is_that_of_bootstrap_samples_drawn_by_hand():
    """Against scikit-survival on the rows themselves, each patient repeated as often as drawn; pairs within a site."""
    first, second = (
        {
            site: -np.log(patients(site)[1]) + noise * np.random.default_rng(seed).normal(size=SIZES[site])
            for site in SIZES
        }
        for noise, seed in ((0.5, 1), (1.5, 2))
    )
    drawn = {
        site: np.random.default_rng([9, len(site), ord(site[0])]).multinomial(size, np.full(size, 1 / size), REPLICATES)
        for site, size in SIZES.items()
    }

    def index(risks, times_drawn):
        concordant = comparable = 0.0
        for site, times in times_drawn.items():
            rows = np.repeat(np.arange(SIZES[site]), times)
            _, time, event = patients(site)
            _, agree, disagree, tied, _ = concordance_index_censored(event[rows] > 0, time[rows], risks[site][rows])
            concordant += agree + tied / 2
            comparable += agree + disagree + tied
        return concordant / comparable

    by_hand = [
        index(first, {site: each[b] for site, each in drawn.items()})
        - index(second, {site: each[b] for site, each in drawn.items()})
        for b in range(REPLICATES)
    ]
    ours = difference(
        "federated_minus_alone",
        None,
        *(total([counted(site, risks[site], *patients(site)[1:]) for site in SIZES]) for risks in (first, second)),
    )
    everyone = {site: np.ones(size, int) for site, size in SIZES.items()}
    assert ours.value == pytest.approx(index(first, everyone) - index(second, everyone), abs=1e-12)
    assert (ours.low, ours.high) == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), abs=1e-12)


def test_models_tested_on_other_patients_or_samples_are_not_compared():
    first, second = (total(model(noise).values()) for noise in (0.5, 1.0))
    other = replace(second, comparable_replicates=second.comparable_replicates[::-1])
    for unpaired in (other, replace(second, patients=second.patients - 1)):
        with pytest.raises(RunError, match="not tested on the same patients"):
            difference("federated_minus_alone", None, first, unpaired)
    with pytest.raises(RunError, match="not tested on the same patients"):
        share_of_gain(first, other)


def test_the_figures_add_up():
    all_models = models()
    figures = compare_models(all_models)
    federated = total(all_models.federated.values())
    assert find(figures, "federated").value == pytest.approx(concordance(federated).value)
    assert find(figures, "federated").low == pytest.approx(concordance(federated).ci_low)
    own = total([all_models.alone[site][site] for site in SIZES])
    assert find(figures, "alone").value == pytest.approx(concordance(own).value)
    everywhere = [concordance(total(counts.values())).value for counts in all_models.alone.values()]
    assert find(figures, "alone_everywhere").value == pytest.approx(np.mean(everywhere))
    gap = find(figures, "federated_minus_alone_everywhere")
    assert gap.value == pytest.approx(find(figures, "federated").value - np.mean(everywhere))
    assert gap.low <= gap.value <= gap.high
    for site in SIZES:
        gain = find(figures, "federated_minus_alone", site)
        assert gain.value == pytest.approx(find(figures, "federated", site).value - find(figures, "alone", site).value)
        assert (gain.n, gain.events) == (SIZES[site], int(patients(site)[2].sum()))
    share = find(figures, "share_of_gain")
    pooled = find(figures, "centralised").value
    assert share.value == pytest.approx((find(figures, "federated").value - 0.5) / (pooled - 0.5))


def test_a_gain_of_chance_has_no_share():
    noise = model(1e6)
    figure = share_of_gain(total(noise.values()), total(noise.values()))
    assert figure.value is None
    assert "no gain to share" in figure.reason


def test_a_site_without_a_model_has_a_reason_and_the_gap_is_over_the_others():
    alone = models().alone | {"west": "no training patient has an event"}
    figures = compare_models(models(alone=alone))
    assert find(figures, "alone", "west").reason == "no model of its own (no training patient has an event)"
    assert find(figures, "federated_minus_alone", "west").value is None
    assert find(figures, "alone").n == SIZES["north"] + SIZES["south"]
    joined = total([models().federated[site] for site in ("north", "south")])
    gap = find(figures, "federated_minus_alone")
    assert gap.value == pytest.approx(concordance(joined).value - find(figures, "alone").value)


def test_no_site_has_a_model_of_its_own():
    figures = compare_models(models(alone=dict.fromkeys(SIZES, "nothing to learn from")))
    assert not [figure for figure in figures if figure.site is None and "alone" in figure.name]
    assert len([figure for figure in figures if figure.name == "alone"]) == 3


def test_leaving_a_site_out_costs_the_others_and_itself():
    worse = model(5.0, 4)
    figures = compare_models(models(without={"north": worse, "south": "no other site has images"}))
    federated = models().federated
    others = total([federated[site] for site in ("south", "west")])
    expected = concordance(others).value - concordance(total([worse["south"], worse["west"]])).value
    assert find(figures, "loss_of_others", "north").value == pytest.approx(expected)
    itself = find(figures, "loss_of_site", "north")
    assert itself.value == pytest.approx(concordance(federated["north"]).value - concordance(worse["north"]).value)
    assert itself.n == SIZES["north"]
    assert find(figures, "loss_of_others", "south").reason == "no other site has images"


def test_a_site_left_out_has_no_model_where_the_others_keep_a_part_of_theirs():
    left = {site: counts for site, counts in model(1.5, 12).items() if site != "north"}
    figures = compare_models(models(without={"north": left}))
    missing = find(figures, "loss_of_site", "north")
    assert missing.value is None
    assert "normalisation layers stay" in missing.reason
    assert find(figures, "loss_of_others", "north").low is not None


def test_equal_models_have_no_interval_but_a_reason():
    figure = difference("federated_minus_alone", None, *[total(model(1.0).values())] * 2)
    assert (figure.value, figure.low, figure.reason) == (0.0, None, ALIKE)


def test_no_event_is_a_reason():
    nobody = model(1.0, events=0.0)
    figure = c_index("federated", "north", nobody["north"])
    assert (figure.value, figure.reason, figure.n) == (None, "no event", 40)
    figures = compare_models(Models(nobody, nobody, dict.fromkeys(SIZES, nobody), {"north": nobody}))
    assert all(figure.value is None and figure.reason for figure in figures)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.integers(0, 6))
def test_small_sites_have_an_interval_or_a_reason(data, size):
    """No patient, one, ties, all censored, a risk that is not known: never a bare number."""

    def draw(values):
        return np.array(data.draw(st.lists(values, min_size=size, max_size=size)), dtype=float)

    time = draw(st.one_of(st.integers(1, 4).map(float), st.just(np.nan)))
    event = draw(st.sampled_from([0.0, 1.0]))
    event[np.isnan(time)] = np.nan
    unknown = draw(st.booleans()) > 0
    site = [
        count_pairs(
            np.where(unknown, np.nan, draw(st.integers(-2, 2))),
            time=time,
            event=event,
            replicates=50,
            rng=np.random.default_rng(0),
        )
        for _ in range(3)
    ]
    federated, centralised, alone = ({"only": counts} for counts in site)
    for figure in compare_models(Models(federated, centralised, {"only": alone}, {})):
        assert (figure.low is None) == (figure.high is None)
        assert figure.low is not None or figure.reason
        assert figure.value is not None or figure.low is None
