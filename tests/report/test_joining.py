"""What the page of a comparison says to each site."""

import json

import pytest
from parsed_page import Page

from stsmm_core.config import Experiment, to_toml
from stsmm_core.errors import RunError
from stsmm_core.report.joining import Joining, JoiningFigure, advice, show_figure, write_joining_report
from stsmm_core.run_folder import COMPARISON_FILE, CONFIG_FILE, VERSIONS_FILE


def figure(value=0.05, low=0.01, high=0.09, *, reason=None, events=20, name="federated_minus_alone", **more):
    given = {"weights": "selected", "endpoint": "os", "site": "north", "n": 31, "pairs": 300}
    return JoiningFigure(
        **given | {"name": name, "value": value, "low": low, "high": high, "reason": reason, "events": events} | more
    )


@pytest.mark.parametrize(
    ("gain", "said", "unsaid"),
    [
        (figure(), "+0.050 (95 % CI +0.010 to +0.090; 31 test patients, 20 events). Joining ranked", "does not show"),
        (figure(low=-0.01), "The interval includes 0: this does not show a gain.", "Joining ranked"),
        (figure(low=0.0), "does not show a gain", "better"),
        (figure(-0.05, -0.09, -0.01), "worse than training alone", "better"),
        (figure(low=None, high=None, reason="too few events for an interval"), "it shows nothing", "95 %"),
        (figure(None, None, None, reason="no event", events=0), "The gain is not known: no event (31 test", "95 %"),
        (figure(events=9), "fewer than 10 events the interval is too narrow", "does not show"),
    ],
)
def test_advice(gain, said, unsaid):
    assert said in advice(gain)
    assert unsaid not in advice(gain)


def test_how_figures_are_shown():
    assert show_figure(figure()) == "+0.050 [+0.010, +0.090]"
    assert show_figure(figure(0.7, 0.6, 0.8, name="federated")) == "0.700 [0.600, 0.800]"
    assert show_figure(figure(0.97, 0.9, 1.04, name="share_of_gain")) == "97% [90%, 104%]"
    assert show_figure(figure(0.7, None, None, name="alone", reason="too few events for an interval")) == (
        "0.700 (too few events for an interval)"
    )
    assert show_figure(figure(None, None, None, reason="no event")) == "no event"


def test_a_bare_number_is_refused():
    with pytest.raises(ValueError, match="needs a reason"):
        figure(low=None, high=None)


@pytest.fixture
def folder(tmp_path):
    centre = {"site": "north", "patients": 100, "events": {"os": 40}, "mix": {"axial": 60, "<b>": 40}}
    comparison = {
        "seed": 0,
        "endpoints": ["os"],
        "epochs": 10,
        "rounds": 10,
        "partition": {"kind": "dirichlet", "centres": 1, "by": "location"},
        "centres": [centre],
        "selected_rounds": {"federated": [3], "centralised": [4]},
        "oracle": None,
        "figures": [
            figure(**more).model_dump()
            for more in ({}, {"name": "alone", "value": 0.6}, {"name": "federated", "value": 0.65}, {"site": None})
        ],
        "notes": ["A note of the run."],
    }
    (tmp_path / COMPARISON_FILE).write_text(json.dumps(comparison))
    (tmp_path / CONFIG_FILE).write_text(to_toml(Experiment()))
    (tmp_path / VERSIONS_FILE).write_text(json.dumps({"stsmm": "0.1.0"}))
    return tmp_path


def test_the_page_says_what_the_file_says(folder):
    path, joining = write_joining_report(folder)
    assert isinstance(joining, Joining)
    page = Page(path)
    assert ["north", "31", "20", "0.600 [0.010, 0.090]", "0.650 [0.010, 0.090]", "+0.050 [+0.010, +0.090]"] in (
        page.tables[0]
    )
    assert ["north", "100", "40", "60", "40"] in page.tables[-1]
    assert "A note of the run." in page.text
    assert "When a site is left out" not in page.text
    assert "<b>" not in page.html
    assert "Synthetic" not in page.text
    assert not [tag for tag, attributes in page.tags if (attributes.get("src") or "").startswith("http")]


def test_a_broken_file_is_named(folder):
    (folder / COMPARISON_FILE).write_text("{}")
    with pytest.raises(RunError, match=r"comparison\.json"):
        write_joining_report(folder)
