"""Reporting checklists (TRIPOD+AI, CLAIM, CLEAR), filled from the run as far as it knows."""

import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from pydantic import Field, model_validator

from stsmm_core.report.comparison.table import Cell, Row, Table, words
from stsmm_core.report.run_files import Record

CHECKLISTS = ("tripod_ai", "claim", "clear")
"""Data files beside this module, in the order of the report."""

NOT_TOLD = {True: "", False: "This run does not tell."}


class Item(Record):
    """What a checklist asks.

    `filled` is a template over the facts of a run, `otherwise` stands where the run does not know them, `authors` is
    what is left to write in any case.
    """

    number: str
    section: str
    topic: str
    asks: str
    filled: str | None = None
    otherwise: str | None = None
    authors: str | None = None

    @model_validator(mode="after")
    def _answered(self) -> "Item":
        if not self.filled and not self.authors:
            raise ValueError(f"item {self.number} needs filled or authors")
        return self

    @property
    def facts(self) -> tuple[str, ...]:
        """Names of the facts that `filled` takes."""
        parsed = string.Formatter().parse(self.filled or "")
        return tuple(name for _, name, _, _ in parsed if name)


class Checklist(Record):
    """A checklist with the reference of its statement."""

    name: str
    reference: str
    items: tuple[Item, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Answer:
    """An item with what the run says to it and what the authors still have to write, either may be empty."""

    item: Item
    filled: str
    authors: str


@dataclass(frozen=True)
class FilledChecklist:
    """A checklist of one run."""

    key: str
    checklist: Checklist
    answers: tuple[Answer, ...]

    @property
    def filled(self) -> int:
        """Items that the run answers."""
        return sum(bool(answer.filled) for answer in self.answers)

    @property
    def table(self) -> Table:
        """The items as a table."""
        rows = tuple(
            Row(
                f"{answer.item.number} {answer.item.topic}",
                (words(answer.item.asks), _answer(answer)),
                answer.item.section,
                "" if answer.filled else "open",
            )
            for answer in self.answers
        )
        title = f"{self.checklist.name} ({self.checklist.reference})."
        return Table(f"checklist_{self.key}", title, ("Item", "What is asked", "In this run"), rows)


def read_checklist(key: str) -> Checklist:
    """A checklist by the name of its data file."""
    source = files("stsmm_core.report.comparison").joinpath("checklists", f"{key}.toml")
    return Checklist.model_validate(tomllib.loads(source.read_text(encoding="utf-8")))


def fill(key: str, facts: Mapping[str, str | None]) -> FilledChecklist:
    """Answer a checklist: an item is filled when the run knows every fact that it takes."""
    checklist = read_checklist(key)
    answers = []
    for item in checklist.items:
        known = {name: facts[name] for name in item.facts}
        answered = item.filled is not None and all(value is not None for value in known.values())
        text = (item.filled or "").format(**known) if answered else ""
        left = [item.authors or "", "" if answered else item.otherwise or ""]
        answers.append(Answer(item, text, " ".join(part for part in left if part) or NOT_TOLD[answered]))
    return FilledChecklist(key, checklist, tuple(answers))


def _answer(answer: Answer) -> Cell:
    if not answer.filled:
        return words(f"Open: {answer.authors}")
    return words(f"{answer.filled} Still to write: {answer.authors}" if answer.authors else answer.filled)
