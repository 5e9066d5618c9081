"""The report of a comparison as a reader gets it: the page, its tables as CSV, its figures and the model card."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison_folder import EVENTS, HORIZONS, MODELS, REASON, SITE, comparison, nothing, write_comparison
from parsed_page import Page

from stsmm_core.errors import RunError
from stsmm_core.report.comparison.comparison_report import write_comparison_report
from stsmm_core.report.comparison.panels import decision_panels
from stsmm_core.report.comparison.prose import HEAT_MAP_TRUST
from stsmm_core.report.comparison.reading import read_comparison

LABELS = {key: label for key, label, *_ in MODELS}
NAMES = {"os": "Overall survival", "dm": "Distant metastasis"}


@pytest.fixture(scope="module")
def page(comparison_run: Path) -> Page:
    return Page(comparison_run / "report.html")


@pytest.fixture(scope="module")
def record(comparison_run: Path) -> dict[str, Any]:
    return json.loads((comparison_run / "comparison.json").read_text())


def keyed(page: Page) -> dict[str, list[list[str]]]:
    """Tables by the name of their CSV file, no-break spaces as spaces."""
    keys = [attributes["data-key"] for tag, attributes in page.tags if tag == "table"]
    plain = [[[cell.replace("\u00a0", " ") for cell in row] for row in table] for table in page.tables]
    return {str(key): table for key, table in zip(keys, plain, strict=True)}


def grouped(table: list[list[str]]) -> Iterator[tuple[str, list[str]]]:
    """Rows below the head with the name of their group; a line of one cell opens a group."""
    group = ""
    for row in table[1:]:
        if len(row) == 1:
            group = row[0]
        else:
            yield group, row


def with_interval(figure: dict[str, Any], *, sd: bool = False) -> str:
    if figure["value"] is None:
        return figure["reason"]
    spread = f" ({figure['sd']:.3f})" if sd else ""
    text = f"{figure['value']:.3f}{spread} [{figure['low']:.3f}, {figure['high']:.3f}]"
    return text.replace("-", "\u2212")


def test_page_is_one_file_that_loads_nothing(page: Page, comparison_run: Path) -> None:
    assert not re.search(r"(?i)<script|javascript:|\bon\w+=|@import|url\(|https?://", page.html)
    loading = {"src", "srcset", "data", "action"}
    references = [str(value) for _, attributes in page.tags for name, value in attributes.items() if name in loading]
    assert references == page.images
    assert all(re.match(r"data:image/(svg\+xml|png);base64,", reference) for reference in references)
    anchors = {str(attributes["href"]) for tag, attributes in page.tags if tag == "a"}
    ids = {str(attributes["id"]) for _, attributes in page.tags if "id" in attributes}
    assert {anchor.removeprefix("#") for anchor in anchors} <= ids
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert str(comparison_run) not in page.html
    assert "private/" not in page.html


def test_nothing_is_printed_that_is_no_number(page: Page, comparison_cv_run: Path, comparison_run: Path) -> None:
    texts = [page.text, Page(comparison_cv_run / "report.html").text, (comparison_run / "model_card.md").read_text()]
    texts += [path.read_text() for path in (comparison_run / "tables").iterdir()]
    for text in texts:
        assert not re.search(r"\b(nan|NaN|None|null\b(?=,)|inf|Undefined)\b", text)


def test_discrimination_equals_the_record(page: Page, record: dict[str, Any]) -> None:
    rows = list(grouped(keyed(page)["table_3"]))

    assert [(group, row[0]) for group, row in rows] == [
        (NAMES[endpoint], label) for endpoint in EVENTS for label in LABELS.values()
    ]
    lines = {(group, row[0]): row[1:] for group, row in rows}
    for endpoint in EVENTS:
        for model in record["models"]:
            metrics = record["results"][model["key"]][endpoint]
            published = (model["paper"] or {}).get(endpoint)
            assert lines[NAMES[endpoint], model["label"]] == [
                with_interval(metrics["harrell_c"], sd=True),
                with_interval(metrics["uno_c"], sd=True),
                "\u2013" if published is None else f"{published[0]:.3f} ({published[1]:.3f})",
                with_interval(metrics["ibs"]),
                f"{metrics['ibs_null']['value']:.3f}",
                "90",
                str(EVENTS[endpoint]),
                model["inputs"],
            ]


def test_error_and_calibration_by_horizon_equal_the_record(page: Page, record: dict[str, Any]) -> None:
    tables = keyed(page)
    error = {(group, row[0]): row[1:] for group, row in grouped(tables["table_5"])}
    calibration = {(group, row[0]): row[1:] for group, row in grouped(tables["table_6"])}

    assert len(error) == len(calibration) == len(EVENTS) * len(HORIZONS) * len(MODELS)
    for endpoint in EVENTS:
        for years in HORIZONS:
            for key, label in LABELS.items():
                metrics = record["results"][key][endpoint]
                place = f"{NAMES[endpoint]}, {years} years", label
                assert error[place] == [
                    with_interval(metrics[f"auc_{years}"]),
                    with_interval(metrics[f"brier_{years}"]),
                    f"{metrics[f'brier_null_{years}']['value']:.3f}",
                    with_interval(metrics[f"ipa_{years}"]),
                    "90",
                    str(metrics[f"brier_{years}"]["events"]),
                ]
                names = ("oe", "slope", "ici", "e50", "e90")
                told = [with_interval(metrics[f"{name}_{years}"]) for name in names]
                size = ["90", str(metrics[f"oe_{years}"]["events"])]
                assert calibration[place] == [*([REASON] if key == "volume" else told), *size]


def test_differences_equal_the_record(comparison_cv_run: Path) -> None:
    record = json.loads((comparison_cv_run / "comparison.json").read_text())
    rows = list(grouped(keyed(Page(comparison_cv_run / "report.html"))["table_4"]))

    told = [(endpoint, pair) for endpoint in EVENTS for pair in record["differences"][endpoint]]
    assert len(rows) == len(told) == 22
    for (group, row), (endpoint, pair) in zip(rows, told, strict=True):
        figure, folds = pair["difference"], pair["resampled_t"]
        assert group == f"{NAMES[endpoint]}: MMNN, gradient blending minus"
        assert row == [
            LABELS[pair["against"]],
            f"{figure['value']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}]".replace("-", "\u2212"),
            "< 0.001" if pair["p"] < 0.001 else f"{pair['p']:.3f}",
            f"{folds['mean']:+.3f} [{folds['low']:+.3f}, {folds['high']:+.3f}]".replace("-", "\u2212"),
            f"{folds['p']:.3f}",
            "90",
            str(EVENTS[endpoint]),
        ]


def test_cohort_tables_equal_the_record(page: Page) -> None:
    tables = keyed(page)

    assert tables["table_1_by_set"][0] == ["Characteristic", "Training", "Validation", "Test", "All"]
    assert tables["table_1_by_site"][0] == ["Characteristic", "site_1", SITE, "All"]
    rows = {(group, row[0]): row[1:] for group, row in grouped(tables["table_1_by_set"])}
    assert rows["", "Patients, n"] == ["420", "90", "90", "600"]
    assert rows["", "Events, overall survival, n (%)"][0] == "121 (28.8 %)"
    assert rows["Age at diagnosis, years", "mean (SD)"][0] == "58.1 (14.0)"
    assert rows["Age at diagnosis, years", "median [IQR]"][0] == "60.0 [47.0, 69.5]"
    assert rows["FNCLCC grade, n (%)", "high"] == ["210 (50.0 %)", "45 (50.0 %)", "45 (50.0 %)", "300 (50.0 %)"]
    assert not any("Histological" in group for group, _ in rows)
    subtypes = {row[0]: row[1:] for _, row in grouped(tables["table_2_by_set"])}
    assert subtypes["leiomyosarcoma"][0] == "63 (15.0 %)"
    assert subtypes["vascular sarcoma"][0] == "0 (0.0 %)"
    missing = {row[0]: row[1] for _, row in grouped(tables["table_8"])}
    assert missing["FNCLCC grade"] == "11 (1.8 %)"
    assert missing["Image"] == "29 (4.8 %)"


def test_cross_validation_has_no_sets_and_five_panels(comparison_cv_run: Path) -> None:
    page = Page(comparison_cv_run / "report.html")

    assert "table_1_by_set" not in keyed(page)
    assert "one panel a fold" in page.text
    assert "5-fold cross-validation" in page.text
    assert "420 training" not in page.text


def test_subgroups_equal_the_record_and_say_their_reason(page: Page, record: dict[str, Any]) -> None:
    rows = list(grouped(keyed(page)["table_7"]))

    told = [group for endpoint in EVENTS for group in record["subgroups"][endpoint]]
    assert [row[1:] for _, row in rows] == [
        [str(group["n"]), str(group["events"]), with_interval(group["harrell_c"])] for group in told
    ]
    assert rows[4][1] == ["FNCLCC grade: low", "18", "1", "fewer than 5 events"]
    assert rows[9][1][0] == f"Site: {SITE}"


def test_every_csv_holds_what_the_page_shows(page: Page, comparison_run: Path) -> None:
    tables = keyed(page)
    assert sorted(f"{key}.csv" for key in tables) == sorted(path.name for path in (comparison_run / "tables").iterdir())
    for key, table in tables.items():
        with (comparison_run / "tables" / f"{key}.csv").open(encoding="utf-8", newline="") as file:
            head, *lines = csv.reader(file)
        assert [name.replace("\u00a0", " ") for name in head] == ["group", "row", "statistic", *table[0][1:]]
        values = [line for line in lines if line[2] == "value"]
        shown = list(grouped(table))
        assert [(line[0], line[1]) for line in values] == [(group, row[0]) for group, row in shown]
        for line, (_, row) in zip(values, shown, strict=True):
            said = [one for one, before in zip(line[3:], ["", *line[3:]], strict=False) if not said_once(one, before)]
            for value, text in zip(said, row[1:], strict=True):
                assert same(value, text), (key, value, text)


def said_once(value: str, before: str) -> bool:
    """Whether a cell of a CSV file repeats the reason of its neighbour, which the page says once for both."""
    return value == before and " " in value


def same(value: str, text: str) -> bool:
    """Whether a number of a CSV file is the first one of a cell, when rounded as there; words are equal."""
    if not value:
        return text == "\u2013"
    try:
        number = float(value)
    except ValueError:
        return value == text
    if text.startswith("< "):
        return number < float(text[2:])
    printed = re.match(r"[+\u2212]?[\d,]+(\.\d+)?", text)
    assert printed is not None
    digits = len((printed[1] or ".")[1:])
    return f"{number:.{digits}f}" == printed[0].replace(",", "").replace("+", "").replace("\u2212", "-")


def test_csv_is_not_rounded(comparison_run: Path, record: dict[str, Any]) -> None:
    with (comparison_run / "tables" / "table_3.csv").open(encoding="utf-8") as file:
        lines = {(line[0], line[1], line[2]): line[3] for line in csv.reader(file)}

    harrell = record["results"]["densenet"]["dm"]["harrell_c"]
    for name in ("value", "sd", "low", "high"):
        assert float(lines["Distant metastasis", "DenseNet-121", name]) == harrell[name]


def test_honest_sentences_come_before_the_tables(page: Page, record: dict[str, Any]) -> None:
    box = page.text[: page.text.index("Table 1.")]

    harrell = record["results"]["mmnn_blending"]["os"]["harrell_c"]
    assert (
        f"Overall survival: C-index of MMNN, gradient blending {harrell['value']:.2f} "
        f"(95 % CI {harrell['low']:.2f} to {harrell['high']:.2f}) on 90 test patients with 26 events." in box
    )
    for sentence in (
        "Synthetic data.",
        "600 patients of 2 sites",
        "fewer than 100 events for overall survival and distant metastasis",
        "No figures for overall survival at 10 years: fewer than 5 test patients were followed so long.",
        "no gain over it is shown",
        "paired differences on the same patients",
        "Research software. Not for clinical decisions.",
        "612 patients recorded",
        "420 training",
        "Median follow-up by the reverse Kaplan-Meier method: 4.1 years (95 % CI 3.8 to 4.5) for overall survival "
        "and 3.8 years (95 % CI 3.4 to not reached) for distant metastasis.",
    ):
        assert sentence in box, sentence


def test_real_data_with_many_events_are_not_warned_of(tmp_path: Path) -> None:
    record = comparison()
    record |= {"synthetic": False, "curves": {}}
    for results in record["results"].values():
        for metrics in results.values():
            metrics["harrell_c"]["events"] = 130

    page = Page(write_comparison_report(write_comparison(tmp_path / "run", record)))

    assert "Synthetic data" not in page.text
    assert "Small test set" not in page.text


@pytest.mark.parametrize("lacking", [599, 600])
def test_a_variable_that_no_patient_has_is_said_not_to_count(tmp_path: Path, lacking: int) -> None:
    record = comparison()
    record["missing"]["grade"] = lacking
    text = Page(write_comparison_report(write_comparison(tmp_path / "run", record))).text
    assert ("the model learned nothing from it, whatever Methods lists: FNCLCC grade." in text) is (lacking == 600)


def test_the_reference_bar_is_marked(page: Page) -> None:
    marked = re.findall(r'<tr class="member reference"><th scope="row">(.*?)</th>', page.html)

    assert set(marked) == {"Clinical, ridge Cox"}
    assert len(marked) == 2 + 2 + 2 * len(EVENTS) * len(HORIZONS)


def test_names_of_sites_are_escaped(page: Page, comparison_run: Path) -> None:
    assert "<b>" not in page.html
    assert "&lt;b&gt;&amp; Cie&lt;/b&gt;" in page.html
    assert "<b>" not in (comparison_run / "model_card.md").read_text()


def test_figures_are_on_the_page_and_in_the_folder(page: Page, comparison_run: Path) -> None:
    words = [f"Figure {number}." for number in (1, "2a", "2b", "2c", 3, 4, 5, 6)]
    assert [word for word in words if word not in page.text] == []
    panels = sorted(path.stem for path in (comparison_run / "figures").iterdir() if path.stem != "heat_map_3")
    assert len(panels) + 3 == len(page.images)
    assert {"blending_weights", "architecture", "cumulative_incidence", "roc_os_2", "decision_dm_5"} <= set(panels)
    assert not any(panel.endswith("_10") for panel in panels)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (comparison_run / "figures").iterdir())
    assert "Wrong, overall survival." in page.text
    assert keyed(page)["table_9"][-2:] == [
        ["Another patient", "0.520 [0.410, 0.600]", "20"],
        ["Whole image encoder", "no map varies", "0"],
    ]


def test_model_without_numbers_shows_its_reason(tmp_path: Path) -> None:
    record = comparison()
    reason = "no event among the test patients"
    record["results"]["mmnn_blending"]["os"] = {"harrell_c": nothing(reason, events=0)}
    record["differences"]["os"] = []
    record |= {"explanations": None, "cumulative_incidence": None, "curves": {}}

    page = Page(write_comparison_report(write_comparison(tmp_path / "run", record)))

    first = next(row for _, row in grouped(keyed(page)["table_3"]))
    assert first[:3] == ["MMNN, gradient blending", reason, "\u2013"]
    assert first[4:] == ["\u2013", "\u2013", "90", "0", "MRI, 11 clinical variables"]
    assert f"no C-index of MMNN, gradient blending on 90 test patients with 0 events; {reason}." in page.text
    assert "This run made no heat maps." in page.text
    assert not re.search(r"\b(nan|NaN|None)\b", page.text)


def test_model_card_is_on_the_page_and_in_its_file(page: Page, comparison_run: Path) -> None:
    card = (comparison_run / "model_card.md").read_text(encoding="utf-8")

    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == [
        "Model",
        "Intended use",
        "Out of scope",
        "Training data",
        "Performance",
        "Limits",
        "Ethical considerations",
    ]
    assert card.count("Research software. Not for clinical decisions.") == 2
    for line in re.findall(r"^- (.*)$", card, re.MULTILINE):
        if "\\" not in line and "&" not in line:
            assert line in page.text


def test_same_run_gives_the_same_page(comparison_cv_run: Path) -> None:
    first = (comparison_cv_run / "report.html").read_bytes()

    assert write_comparison_report(comparison_cv_run).read_bytes() == first


def change(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(record: dict[str, Any]) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (change("results", "mmnn", "os", "harrell_c", "value", to=float("nan")), "finite number"),
        (change("results", "mmnn", "os", "harrell_c", "value", to=None), "an estimate without value needs a reason"),
        (change("results", "mmnn", "os", "harrell_c", "low", to=None), "both ends of the interval"),
        (change("results", "mmnn", "os", "harrell_c", "low", to=2.0), "low is above high"),
        (change("results", "mmnn", "os", to={}), "results.mmnn.os lacks harrell_c"),
        (change("results", "mmnn", to={}), "results.mmnn must have the endpoints dm, os"),
        (change("results", "cnn", to={}), "results must be those of the models"),
        (change("curves", "cnn", to={}), "models that are not compared: cnn"),
        (change("models", 1, "key", to="mmnn_blending"), "a key stands twice"),
        (change("cohort_by", 0, "variables", "shoe_size", to={"n": 1, "levels": {}}), "shoe_size is not in"),
        (change("cohort_by", 0, "variables", "age", to={"n": 1, "levels": {}}), "age must be summarised by mean"),
        (change("cohort_by", 0, "variables", "grade", "levels", "huge", to=3), "grade has unknown levels: huge"),
        (change("cohort_by", 5, "column", to="every"), "cohort_by needs the column 'all'"),
        (change("curves", "mmnn", "os", "2", "roc", "fpr", to=[0.0]), "fpr, tpr must have the same length"),
        (change("schema_version", to=2), "schema_version"),
        (change("explanations", "figures", 0, "file", to="private/../../x.png"), "must lie in figures/ or private/"),
        (change("explanations", "figures", 0, "file", to="config.toml"), "must lie in figures/ or private/"),
    ],
)
def test_wrong_record_is_explained(tmp_path: Path, fault: Callable[[dict[str, Any]], None], problem: str) -> None:
    folder = write_comparison(tmp_path / "run", comparison())
    broken = json.loads((folder / "comparison.json").read_text())
    fault(broken)
    (folder / "comparison.json").write_text(json.dumps(broken))

    with pytest.raises(RunError, match=r"comparison\.json: .*run again") as caught:
        read_comparison(folder)

    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["config.toml", "versions.json", "comparison.json", "private/networks/mmnn_blending/history.csv"],
)
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_comparison(tmp_path / "run", comparison())
    (folder / name).unlink()

    with pytest.raises(RunError, match=rf"{name}: missing"):
        read_comparison(folder)


def test_missing_or_broken_picture_is_named(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "run", comparison())
    picture = folder / "private" / "heat_maps" / "2.png"
    picture.write_bytes(b"GIF89a")
    with pytest.raises(RunError, match=r"2\.png: not a PNG image"):
        read_comparison(folder)
    picture.unlink()
    with pytest.raises(RunError, match=r"2\.png: missing, though comparison\.json lists it"):
        read_comparison(folder)


def test_unknown_keys_are_ignored(tmp_path: Path) -> None:
    record = comparison()
    record["colour"] = "green"
    record["models"][0]["colour"] = "green"

    assert read_comparison(write_comparison(tmp_path / "run", record)).first.key == "mmnn_blending"


def test_pretrained_weights_are_named_without_their_folder(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "run", {**comparison(), "curves": {}})
    config = (folder / "config.toml").read_text()
    pretrained = 'image_encoder = "densenet121"\npretrained = "/home/somebody/weights.pth"'
    (folder / "config.toml").write_text(config.replace('image_encoder = "small_densenet"', pretrained))

    page = Page(write_comparison_report(folder))

    assert "The image encoder starts from pretrained weights (weights.pth)" in page.text
    assert "Initial weights are random" not in page.text
    assert "/home/somebody" not in page.html


def test_the_first_models_short_decision_curve_does_not_cut_that_of_treating_all(tmp_path: Path) -> None:
    record = comparison()
    for years in HORIZONS:
        decision = record["curves"]["mmnn_blending"]["os"][years]["decision"]
        kept = 10 if years == "2" else 0
        for name in decision:
            decision[name] = decision[name][:kept]
    for key in LABELS:
        if key != "mmnn_blending":
            record["curves"][key]["os"].pop("5")

    first, second, *_ = decision_panels(read_comparison(write_comparison(tmp_path / "run", record)))

    lines = {str(line.get_label()): np.asarray(line.get_xdata()) for line in first.figure.axes[0].lines}
    assert len(lines["treat all"]) == len(lines["treat none"]) == 60
    assert len(lines[LABELS["mmnn_blending"]]) == 10
    assert second.key == "decision_os_5"


def test_what_was_tested_and_what_predicts_are_told_apart(comparison_run: Path, comparison_cv_run: Path) -> None:
    said = "averages the networks of all folds, an ensemble that was not itself tested"

    assert said in (comparison_cv_run / "model_card.md").read_text()
    assert said in (comparison_cv_run / "tables" / "checklist_claim.csv").read_text()
    assert said not in (comparison_run / "model_card.md").read_text()


def test_metastasis_at_presentation_that_nobody_recorded_is_not_called_none(tmp_path: Path, page: Page) -> None:
    assert "36 metastatic at presentation, not at risk of distant metastasis" in page.text
    record = {**comparison(), "curves": {}}
    record["flow"]["metastatic_at_presentation"] = None
    other = Page(write_comparison_report(write_comparison(tmp_path / "run", record)))
    assert "metastasis at presentation not recorded" in other.text
    assert "metastatic at presentation" not in other.text


def test_networks_of_an_ensemble_are_not_called_folds(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "run", {**comparison(), "curves": {}})
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("[evaluation]", "[evaluation]\nmembers = 4"))
    page = Page(write_comparison_report(folder))
    assert "one panel a network" in page.text
    assert "one panel a fold" not in page.text


@pytest.mark.parametrize(
    ("method", "words"), [("grad_cam", "3D Grad-CAM at"), ("hires_cam", "3D HiResCAM, up or down")]
)
def test_the_heat_maps_method_and_block_are_said(tmp_path: Path, method: str, words: str) -> None:
    folder = write_comparison(tmp_path / "run", {**comparison(), "curves": {}})
    config = folder / "config.toml"
    config.write_text(config.read_text() + f'\n[explain]\nmethod = "{method}"\nblock = 2\n')
    page = Page(write_comparison_report(folder))
    assert words in page.text
    assert "dense block 2 of 3" in page.text
    assert HEAT_MAP_TRUST[method] in page.text


def test_limits_name_the_immortal_time_of_radiotherapy_where_it_is_used(comparison_run: Path, tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "run", {**comparison(), "curves": {}})
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(config.replace("[data]", '[data]\nvariables = ["age", "grade"]'))
    write_comparison_report(folder)

    assert "immortal time" in (comparison_run / "model_card.md").read_text()
    assert "immortal time" not in (folder / "model_card.md").read_text()


def test_small_cells_are_warned_of_under_tables_1_2_and_7(page: Page) -> None:
    assert page.text.count("merge small cells") == 3


def test_the_ridge_of_plain_cox_models_is_said(page: Page) -> None:
    assert "a slight fixed ridge (penalty 0.1)" in page.text


def test_the_brier_score_has_events_of_its_own(page: Page, record: dict[str, Any]) -> None:
    events = record["results"]["mmnn_blending"]["os"]["ibs"]["events"]
    assert f"IBS runs up to 5 years for overall survival ({events} events by then)" in page.text
