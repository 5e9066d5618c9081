"""The page as a reader and a browser get it: parsed from its HTML, never from the code that made it."""

import base64
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest
from parsed_page import Page

from stsmm_core.errors import RunError
from stsmm_core.report.report import write_report


@pytest.fixture(scope="module")
def federated(untouched_run: Path) -> Page:
    return Page(write_report(untouched_run))


@pytest.mark.parametrize("kind", ["federated_run", "cv_run", "clinical_only_run", "suppressed_run"])
def test_page_holds_its_three_figures_and_loads_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(kind)

    page = Page(write_report(run))

    assert not re.search(r"(?i)<script|javascript:|\bon\w+=|https?://|@import|url\(", page.html)
    loading = {"src", "href", "srcset", "data", "action"}
    references = [value for _, attributes in page.tags for name, value in attributes.items() if name in loading]
    assert len(references) == 3
    assert all(value is not None and value.startswith("data:image/svg+xml;base64,") for value in references)
    assert str(run.resolve()) not in page.html
    assert run.name not in page.html
    for source in page.images:
        svg = base64.b64decode(source.partition(",")[2])
        root = ET.fromstring(svg)
        assert root.tag.endswith("svg")
        assert sum(1 for element in root.iter() if element.tag.endswith("path")) > 20
        assert run.name.encode() not in svg
    assert [text for text in ("Figure 1.", "Figure 2.", "Figure 3.") if text not in page.text] == []
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")


def test_results_table_holds_every_head_endpoint_and_the_oracle(federated: Page) -> None:
    assert federated.tables[0] == [
        ["Head", "C-index [95 % CI]", "Patients", "Events", "Comparable pairs", "Oracle"],
        ["Overall survival"],
        ["fusion", "0.715 [0.625, 0.795]", "45", "17", "310", "0.783"],
        ["image", "0.553 [0.440, 0.661]", "44", "17", "310", "0.783"],
        ["clinical", "0.691 [0.590, 0.780]", "45", "17", "310", "0.783"],
        ["Distant metastasis"],
        ["fusion", "0.661 [0.481, 0.801]", "45", "21", "402", "0.771"],
        ["image", "0.562 [0.451, 0.671]", "44", "17", "310", "0.771"],
        ["clinical", "0.642 [0.530, 0.741]", "45", "17", "310", "0.771"],
    ]


def test_honest_numbers_come_first(federated: Page) -> None:
    box = federated.text[: federated.text.index("Results")]

    assert "Overall survival: C-index 0.71 (95 % CI 0.63 to 0.79) on 45 test patients with 17 events." in box
    assert "Distant metastasis: C-index 0.66 (95 % CI 0.48 to 0.80)" in box
    assert "Synthetic data." in box
    assert "never for claims" in box
    assert "fewer than 100 events" in box
    assert "The interval for distant metastasis reaches 0.5 or below" in box
    assert "Research software, not for clinical decisions." in box


def test_a_variable_that_no_patient_has_is_said_not_to_count(federated_run: Path) -> None:
    metrics = json.loads((federated_run / "metrics.json").read_text())
    said = "Not known of any patient, so the model learned nothing from it, whatever Methods lists: Age at diagnosis."

    def text(*numbers: int | None) -> str:
        for number, cohort in zip(numbers, metrics["cohorts"], strict=True):
            cohort["variables"]["age"] = {"n": number, "mean": None, "sd": None}
        (federated_run / "metrics.json").write_text(json.dumps(metrics))
        return Page(write_report(federated_run)).text

    assert said in text(0, 0, 0)
    assert said not in text(0, None, 0)
    assert said not in text(0, 3, 0)


def test_header_and_methods_tell_what_was_run(federated: Page) -> None:
    assert "Federated training, 3 sites, 300 patients" in federated.text
    assert "one split, 70 / 15 / 15 % train / validation / test" in federated.text
    assert "1 min 33 s" in federated.text
    for phrase in (
        "Breslow",
        "windows of 64 patients",
        "FedAvg",
        "weighted by patients",
        "seed 11",
        "stratified by site",
        "max(dG - 0.5 se, 0)",
        "pairs are compared within a site only",
        "interval = 2",
        "torch 2.6.0",
    ):
        assert phrase in federated.text, phrase


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("densenet121", "goes through a 3D DenseNet-121."),
        ("small_densenet", "small 3D DenseNet (three dense blocks)."),
        ("fine_densenet", "small 3D DenseNet (two dense blocks, first kernel of 3 voxels)."),
    ],
)
def test_image_encoders_are_told_apart(federated_run: Path, encoder: str, words: str) -> None:
    with (federated_run / "config.toml").open("a", encoding="utf-8") as config:
        config.write(f"\n[model]\nimage_encoder = '{encoder}'\n")
    assert words in Page(write_report(federated_run)).text


def test_another_decay_of_the_clinical_encoder_is_said(federated: Page, federated_run: Path) -> None:
    assert "for the clinical encoder, its head" not in federated.text
    config = federated_run / "config.toml"
    decayed = "[training]\nweight_decay = 1e-3\nclinical_decay_factor = 30.0"
    config.write_text(config.read_text(encoding="utf-8").replace("[training]", decayed), encoding="utf-8")
    text = Page(write_report(federated_run)).text
    assert "weight decay 0.001 (0.03 for the clinical encoder, its head and what" in text


def test_what_hides_a_modality_and_a_linear_clinical_encoder_are_said(federated: Page, federated_run: Path) -> None:
    hidden = "the fusion head is shown 40 % of the patients who have several modalities"
    assert hidden not in federated.text
    assert "go through a multilayer perceptron" in federated.text
    with (federated_run / "config.toml").open("a", encoding="utf-8") as config:
        config.write("\n[model]\nmodality_dropout = 0.4\nclinical_widths = []\n")
    text = Page(write_report(federated_run)).text
    assert hidden in text
    assert "go through a linear layer" in text


def test_weights_of_sites_are_tabled(federated: Page, federated_run: Path) -> None:
    assert not any(table[0][0] == "Site" for table in federated.tables)
    rows = [
        f"0,{checkpoint},{site},{head},{weight}"
        for checkpoint, shift in ((0, 0.0), (3, 0.1))
        for site in ("site_1", "site_3")
        for head, weight in (("fusion", 0.5 + shift), ("image", 0.3 - shift), ("clinical", 0.2))
    ]
    (federated_run / "blending_sites.csv").write_text("\n".join(["fold,round,site,head,weight", *rows]))
    config = (federated_run / "config.toml").read_text()
    (federated_run / "config.toml").write_text(
        config.replace("[blending]", '[blending]\nscope = "site"')
        + '\n[federation]\nstrategy = "fedmedian"\nlocal_normalisation = true\n'
    )
    page = Page(write_report(federated_run))
    (table,) = [table for table in page.tables if table[0][0] == "Site"]
    assert table[1] == ["site_1", "0.60 (0.50 to 0.60)", "0.20 (0.20 to 0.30)", "0.20 (0.20 to 0.20)"]
    assert [row[0] for row in table[1:]] == ["site_1", "site_3"]
    for phrase in ("FedMedian", "one vote a site", "by its own losses", "FedBN", "Each site trained with its own"):
        assert phrase in page.text
    assert "weighted by patients" not in page.text
    (federated_run / "blending_sites.csv").write_text("fold,round\n0,0\n")
    with pytest.raises(RunError, match=r"blending_sites\.csv"):
        write_report(federated_run)


def test_names_of_sites_are_escaped(federated: Page) -> None:
    assert federated.tables[1][0] == ["", "site_1", "Hôpital <b>& Cie</b>", "site_3", "Total"]
    assert "<b>" not in federated.html


def test_cohort_table_pools_the_sites(federated: Page) -> None:
    rows = {row[0]: row[1:] for row in federated.tables[1]}

    assert rows["Patients, n"] == ["120", "100", "80", "300"]
    assert rows["Events, overall survival, n (%)"][0] == "44 (36.7 %)"
    assert rows["Events, overall survival, n (%)"][-1] == "132 (44.0 %)"
    assert rows["Age at diagnosis, years"] == ["n = 118", "n = 98", "n = 78", "n = 294"]
    assert rows["high"] == ["55 (47.8 %)", "35 (36.8 %)", "15 (20.0 %)", "105 (36.8 %)"]


def test_oddities_of_the_images_are_counted_by_site(federated: Page) -> None:
    rows = {row[0]: row[1:] for row in federated.tables[2]}
    assert rows["With image, n"] == ["118", "98", "78", "294"]
    assert rows["Tumour touches the border of the image, n (%)"] == [
        "9 (7.6 %)",
        "9 (9.2 %)",
        "9 (11.5 %)",
        "27 (9.2 %)",
    ]
    assert rows["Unusual voxel size, n (%)"][-1] == "0 (0.0 %)"
    assert "Doubtful registration, n (%)" not in rows  # of which no site tells


def test_a_run_without_images_has_no_image_table(metrics: dict[str, Any], write: Callable[..., Path]) -> None:
    for each in metrics["cohorts"]:
        each.update(with_image=0, image_flags={"border": 0})

    assert "What is odd about the images" not in Page(write_report(write(metrics))).text


def test_suppressed_counts_are_shown_as_such_and_never_summed(suppressed_run: Path) -> None:
    page = Page(write_report(suppressed_run))

    rows = {row[0]: row[1:] for row in page.tables[1]}
    for label in (
        "Events, overall survival, n (%)",
        "With image, n (%)",
        "low",
        "Age at diagnosis, years",
        "mean (SD)",
    ):
        assert rows[label][1] == "suppressed†", label
        assert rows[label][-1] == "suppressed†", label
    assert rows["Events, distant metastasis, n (%)"][-1] == "150 (50.0 %)"
    volumes = {row[0]: row[1:] for row in page.tables[2]}["Volumes of mask, contours or table differ, n (%)"]
    assert volumes == ["3 (2.5 %)", "suppressed†", "3 (3.8 %)", "suppressed†"]
    assert "† Suppressed: below the site\u2019s minimum cell size" in page.text


def test_suppressed_test_counts_have_their_footnote(metrics: dict[str, Any], write: Callable[..., Path]) -> None:
    metrics["test"]["os"]["harrell_c"]["events"] = None

    page = Page(write_report(write(metrics)))

    assert page.tables[0][2][3] == "suppressed†"
    assert "on 45 test patients with an undisclosed number of events" in page.text
    assert page.text.count("† Suppressed: below") == 1


def test_no_footnote_where_nothing_is_suppressed(federated: Page) -> None:
    assert "†" not in federated.text


def test_reason_stands_in_place_of_a_number(clinical_only_run: Path) -> None:
    page = Page(write_report(clinical_only_run))

    reason = "no event among the test patients at any site"
    assert ["fusion", reason, "6", "0", "0"] in page.tables[0]
    assert f"Distant metastasis: no C-index on 6 test patients with 0 events; {reason}." in page.text
    assert not any(row[0] == "image" for row in page.tables[0])
    assert "Oracle" not in page.text
    assert "Synthetic" not in page.text


def test_cross_validation_reports_every_fold(cv_run: Path) -> None:
    page = Page(write_report(cv_run))

    assert "5-fold cross-validation" in page.text
    assert "1 h 6 min" in page.text
    folds = page.tables[3][1:]
    assert [row[0] for row in folds] == ["0", "1", "2", "3", "4"]
    assert [row[2] for row in folds] == ["7", "9", "3", "12", "8"]
    assert [row[5] for row in folds] == ["2", "4", "never", "2", "6"]
    assert folds[2][6] == "0.33 / 0.33 / 0.33"
    assert page.tables[1][0] == ["", "sts_public"]


def test_untrained_network_selected_is_said(metrics: dict[str, Any], write: Callable[..., Path]) -> None:
    run = write(metrics)
    history = pd.read_csv(run / "history.csv")
    history.loc[history["round"] == 0, "validation_loss"] = 0.0
    history.to_csv(run / "history.csv", index=False)

    page = Page(write_report(run))

    said = "The network that was kept has no lower validation loss than the untrained one: training did not help."
    assert said in page.text
    assert said not in Page(write_report(write(metrics, name="another"))).text


def test_whose_loss_selected_is_said_where_sites_have_no_images(
    metrics: dict[str, Any], write: Callable[..., Path]
) -> None:
    assert "of the sites with images" not in Page(write_report(write(metrics))).text
    metrics["cohorts"][0] |= {"with_image": 0}
    page = Page(write_report(write(metrics, name="mixed")))
    assert "loss of the fusion head was kept, of the sites with images (of all where" in page.text


def test_an_ensemble_is_said(metrics: dict[str, Any], write: Callable[..., Path]) -> None:
    run = write(metrics)
    config = run / "config.toml"
    config.write_text(config.read_text().replace("[evaluation]\n", "[evaluation]\nmembers = 4\n"))
    assert "4 networks a test set" in Page(write_report(run)).text


def test_sites_that_were_not_tested_are_named(metrics: dict[str, Any], write: Callable[..., Path]) -> None:
    metrics["tested_sites"].remove("site_3")

    page = Page(write_report(write(metrics)))

    assert "Not tested, and missing from every figure above: site_3." in page.text


def test_many_sites_continue_below(metrics: dict[str, Any], write: Callable[..., Path]) -> None:
    metrics["cohorts"] = [{**metrics["cohorts"][0], "site": f"centre_{number}"} for number in range(8)]

    page = Page(write_report(write(metrics)))

    heads = [table[0] for table in page.tables[1:3]]
    assert heads[0] == ["", *(f"centre_{number}" for number in range(6))]
    assert heads[1] == ["", "centre_6", "centre_7", "Total"]
    assert page.tables[2][1] == ["Patients, n", "120", "120", "960"]


def test_same_run_gives_the_same_page_and_leaves_matplotlib_alone(federated_run: Path) -> None:
    settings = dict(matplotlib.rcParams)

    first = write_report(federated_run).read_bytes()
    second = write_report(federated_run).read_bytes()

    assert first == second
    assert dict(matplotlib.rcParams) == settings
    assert sorted(path.name for path in federated_run.iterdir()) == [
        "config.toml",
        "history.csv",
        "metrics.json",
        "report.html",
        "versions.json",
    ]


def test_interrupted_write_keeps_the_old_report(federated_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_report(federated_run).read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stsmm_core.files.os.replace", full)
    with pytest.raises(RunError, match=r"report\.html: cannot be written \(No space left"):
        write_report(federated_run)

    assert (federated_run / "report.html").read_bytes() == old
    assert len(list(federated_run.iterdir())) == 5


@pytest.mark.parametrize("curves", [False, True])
def test_figures_are_numbered_in_their_order(metrics: dict[str, Any], write: Callable[..., Path], curves: bool) -> None:
    curve = {"days": [100.0, 200.0], "survival": [0.9, 0.8], "at_risk": [10.0, 5.0]}
    pooled = curve | {"low": [0.8, 0.7], "high": [1.0, 0.9]}
    shown = {"sites": {"site_1": curve}, "pooled": pooled, "withheld": [], "largest_move_days": 0.0}
    metrics["survival"] = dict.fromkeys(("os", "dm"), shown) if curves else None
    page = Page(write_report(write(metrics)))
    numbers = [int(each) for each in re.findall(r"Figure (\d+)\. ", page.text)]
    assert numbers == list(range(1, 5 if curves else 4))
