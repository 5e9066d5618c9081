"""The reporting checklists are whole, and the run fills what it knows."""

import csv
import re
from pathlib import Path

import pytest
from comparison_folder import comparison, write_comparison
from parsed_page import Page

from stsmm_core.report.comparison.checklists import CHECKLISTS, fill, read_checklist
from stsmm_core.report.comparison.prose import facts
from stsmm_core.report.comparison.reading import read_comparison

TRIPOD = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}
"""Items of TRIPOD+AI that are divided, and their parts."""

NUMBERS = {
    "tripod_ai": [f"{number}{part}" for number in range(1, 28) for part in TRIPOD.get(number, [""])],
    "claim": [str(number) for number in range(1, 45)],
    "clear": [str(number) for number in range(1, 59)],
}


@pytest.mark.parametrize("key", CHECKLISTS)
def test_items_are_complete_and_in_order(key: str) -> None:
    checklist = read_checklist(key)

    assert [item.number for item in checklist.items] == NUMBERS[key]
    assert all(item.section and item.topic and item.asks.endswith(".") for item in checklist.items)
    assert re.search(r"doi 10\.\d{4}/", checklist.reference)


@pytest.mark.parametrize("key", CHECKLISTS)
def test_page_counts_what_the_run_fills(comparison_run: Path, key: str) -> None:
    filled = fill(key, facts(read_comparison(comparison_run)))
    with (comparison_run / "tables" / f"checklist_{key}.csv").open(encoding="utf-8") as file:
        answers = [line[-1] for line in csv.reader(file)][1:]

    known = [answer for answer in answers if not answer.startswith("Open: ")]
    assert 0 < len(known) < len(answers) == len(NUMBERS[key])
    said = f"{filled.checklist.name}: {len(known)} of {len(answers)} filled by the run"
    assert said in Page(comparison_run / "report.html").text
    assert not any(re.search(r"[{}]|None|Still to write: $|Open: $", answer) for answer in answers)


def test_what_the_run_does_not_know_stays_open(tmp_path: Path) -> None:
    record = comparison("cv")
    record |= {"explanations": None, "subgroups": {}, "differences": {}}
    folder = write_comparison(tmp_path / "run", record, scheme="cv")
    answers = {answer.item.number: answer for answer in fill("claim", facts(read_comparison(folder))).answers}

    assert answers["31"].filled == ""
    assert answers["31"].authors == "Explanations were not computed or not checked."
    assert answers["29"].filled == ""
    assert answers["4"].filled.startswith("Compare 12 models")
    assert answers["4"].authors == "Hypotheses made before the run."


def test_sets_are_compared_in_table_1_only_where_there_are_sets(comparison_run: Path, comparison_cv_run: Path) -> None:
    def item(folder: Path) -> str:
        answers = fill("tripod_ai", facts(read_comparison(folder))).answers
        return next(answer.filled for answer in answers if answer.item.number == "16")

    assert item(comparison_run) == "Both come from the same cohort; Table 1 compares them."
    assert item(comparison_cv_run).endswith("in cross-validation every patient is in both in turn.")
