from stsmm_core.cohort.clinical import ClinicalSummary
from stsmm_core.config import Experiment
from stsmm_core.training.centre import SiteDescription
from stsmm_core.training.certificate import certify


def site(name, patients, events):
    return SiteDescription(name, (), patients, {"os": events, "dm": events}, 0, ClinicalSummary({}, {}))


SITES = [site("a", 200, 70), site("b", 150, 50), site("c", 90, 0), site("d", 7, 1), site("e", None, None)]


def test_with_a_minimum_of_one_all_figures_are_equal_and_with_five_within_their_bounds():
    checks = certify(Experiment(), SITES)
    assert {check["minimum"] for check in checks} == {1, 5}
    assert all(check["exact"] for check in checks if check["minimum"] == 1)
    exact = [check for check in checks if check["exact"]]
    assert max(check["difference"] for check in exact) < 1e-9
    bounded = [check for check in checks if check["low"] is not None]
    assert len(bounded) > 4
    for check in bounded:
        assert check["low"] - 1e-9 <= check["pooled"] <= check["high"] + 1e-9
    figures = {check["figure"].split(" at ")[0] for check in checks}
    assert {"pooled C-index", "AUC", "Brier score", "O/E", "baseline hazard"} <= figures


def test_the_same_run_gives_the_same_certificate_and_another_seed_another():
    assert certify(Experiment(), SITES) == certify(Experiment(), SITES)
    assert certify(Experiment(), SITES) != certify(Experiment(seed=1), SITES)


def test_sites_too_small_for_a_minimum_of_five_are_left_out_of_it():
    checks = certify(Experiment(), [site("d", 8, 3), site("e", None, None)])
    assert {check["minimum"] for check in checks} == {1}
