import numpy as np

from stsmm_core.explain.cases import describe_case, pick_cases

YEAR = 365.25


def pick(risk, time, event, **settings):
    return pick_cases(
        np.array(risk, dtype=float),
        time=np.array(time, dtype=float),
        event=np.array(event, dtype=float),
        **{"horizon_days": 5 * YEAR} | settings,
    )


def test_one_of_each_kind_the_most_extreme_first():
    risk = [3.0, 2.0, 1.0, -1.0, -2.0, -3.0, 2.5, -2.5]
    time = [300, 400, 3000, 3000, 3000, 500, 4000, 4000]
    event = [1, 1, 0, 0, 0, 1, 0, 0]
    cases = pick(risk, time, event)
    assert [(case.row, case.risk, case.event) for case in cases] == [
        (0, "high", True),
        (7, "low", False),
        (6, "high", False),
        (5, "low", True),
    ]
    assert [case.right for case in cases] == [True, True, False, False]
    assert [case.number for case in cases] == [1, 2, 3, 4]


def test_unknown_outcomes_and_risks_are_not_judged():
    risk = [9.0, -9.0, np.nan, 8.0, 1.0, -1.0]
    time = [100, 100, 3000, np.nan, 100, 3000]
    event = [0, 0, 0, np.nan, 1, 0]  # the first two are censored early
    assert [case.row for case in pick(risk, time, event)] == [4, 5]
    assert pick([1.0, 2.0], [10, 20], [0, 0]) == []


def test_an_event_after_the_horizon_is_none_by_it():
    cases = pick([1.0, -1.0], [6 * YEAR, YEAR], [1, 1])
    assert [(case.row, case.risk, case.event) for case in cases] == [(0, "high", False), (1, "low", True)]


def test_the_line_for_the_figure():
    case = pick([1.0, -1.0], [6 * YEAR, YEAR], [1, 1])[1]
    assert describe_case(case, event="death", horizon_years=5) == "case 2: low risk, death by 5 years (wrong)"
