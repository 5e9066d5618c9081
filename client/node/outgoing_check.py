"""Checks an answer against the table of what may leave, and writes it anew: nothing of the app's own bytes passes."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.node.outgoing import OUTGOING, Row
from stsmm_core import protocol
from stsmm_core.cohort.covariates import candidates_of
from stsmm_core.cohort.dictionary import LONGEST_TIME_DAYS, VARIABLES, Category
from stsmm_core.config import Experiment
from stsmm_core.errors import StsmmError
from stsmm_core.imaging.flag_kinds import KINDS_AS_READ
from stsmm_core.protocol import refusals
from stsmm_core.protocol.weights import pack_weights, unpack_weights
from stsmm_core.survival.cells import OPEN_END
from stsmm_core.survival.site_sums import GROUPS
from stsmm_core.survival.time_grid import COARSE_STEP_DAYS, MIDDLE_STEP_DAYS


class HeldBackError(StsmmError):
    """An answer does not leave. The message is for the site's log: it names a row of the table, never a value."""


@dataclass(frozen=True)
class SiteLimits:
    """What the site knows of itself, whatever the app says.

    Attributes:
        patients: of the cohort.
        versions: of the software that may be named.
    """

    site: str
    patients: int
    channels: tuple[str, ...]
    minimum: int
    versions: frozenset[str]


@dataclass(frozen=True, eq=False)
class Question:
    """A message of the server, as far as an answer must fit it.

    Attributes:
        arrays: type and shape of each array that was sent.
        lengths: of the lists that were sent.
    """

    message: str
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]
    lengths: Mapping[str, int]
    fold: int | None = None
    round: int | None = None
    endpoint: int | None = None


def read_question(message: str, content: RecordDict) -> Question:
    """What the site must know of a message to judge the answer."""
    arrays = _unpacked(content.array_records[protocol.ARRAYS]) if protocol.ARRAYS in content.array_records else {}
    config: Mapping[str, Any] = content.config_records.get(protocol.CONFIG, ConfigRecord())

    def number(key: str) -> int | None:
        value = config.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    return Question(
        message,
        {name: (str(array.dtype), array.shape) for name, array in arrays.items()},
        {key: len(value) for key, value in config.items() if isinstance(value, list)},
        number(protocol.FOLD),
        number(protocol.ROUND),
        number("endpoint"),
    )


def check_answer(content: RecordDict, question: Question, experiment: Experiment, limits: SiteLimits) -> RecordDict:
    """The answer, written anew from what was checked.

    Raises:
        HeldBackError: when anything in it is not in the table, or not as the table says.
    """
    try:
        return _Check(question, experiment, limits).answer(content)
    except HeldBackError:
        raise
    except Exception as error:  # whatever the app made up: its own text stays out of the log
        raise HeldBackError(f"the answer could not be read ({type(error).__name__})") from None


def describe_answer(content: RecordDict) -> dict[str, Any]:
    """Field names (numbers in them as #), how many there are of each and how many values they hold together."""
    fields: Counter[str] = Counter()
    values: Counter[str] = Counter()
    records: list[Mapping[str, Any]] = [*content.metric_records.values(), *content.config_records.values()]
    for record in records:
        for name, value in record.items():
            key = re.sub(r"\.\d+", ".#", name)
            fields[key] += 1
            values[key] += len(value) if isinstance(value, list) else 1
    for name, packed in content.array_records.items():
        arrays = _unpacked(packed)
        fields[name] = len(arrays)
        values[name] = sum(array.size for array in arrays.values())
    return {name: [fields[name], values[name]] for name in fields}


def _unpacked(record: ArrayRecord) -> dict[str, np.ndarray]:
    if list(record) != [protocol.WEIGHTS]:
        raise HeldBackError("arrays: not the one that docs/wire.md lists")
    return unpack_weights(record[protocol.WEIGHTS].numpy())


class _Check:
    def __init__(self, question: Question, experiment: Experiment, limits: SiteLimits) -> None:
        self._question, self._experiment, self._limits = question, experiment, limits
        self._placeholders = {
            "VARIABLE": experiment.data.variables,
            "ENDPOINT": experiment.data.endpoints,
            "HEAD": experiment.heads,
            "FOLD": tuple(map(str, range(experiment.evaluation.runs))),
            "NUMBER": tuple(map(str, range(len(experiment.evaluation.horizons_years)))),
        }
        self._rows = [(row, self._pattern(row)) for row in OUTGOING if row.message in (question.message, "any")]
        self._dimensions = self._fixed_dimensions()

    def answer(self, content: RecordDict) -> RecordDict:
        allowed = {"query": {"site", "metrics"}, "train": {"arrays", "metrics"}}.get(
            self._question.message, {"metrics"}
        )
        if set(content) == {protocol.REFUSAL}:
            allowed = {protocol.REFUSAL}
        if not content or not set(content) <= allowed:
            raise HeldBackError("the answer has other records than docs/wire.md lists")
        checked: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
        for name in sorted(content):
            record = content[name]
            if isinstance(record, ArrayRecord) and name == protocol.ARRAYS:
                checked[name] = self._arrays(record)
            elif isinstance(record, MetricRecord) and name == protocol.METRICS:
                checked[name] = MetricRecord(self._fields(name, record))
            elif isinstance(record, ConfigRecord) and name in (protocol.SITE, protocol.REFUSAL):
                checked[name] = ConfigRecord(self._fields(name, record))
            else:
                raise HeldBackError("a record is of another kind than docs/wire.md lists")
        return RecordDict(checked)

    def _fields(self, record: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        checked = {}
        for name in sorted(fields):
            row, found = self._row(record, name)
            levels = row.sums and isinstance(VARIABLES[found["VARIABLE"]], Category)
            checked[name] = self._value(row, fields[name], self._length(row, found, fields), levels=levels)
        self._check_groups(checked)
        return checked

    def _row(self, record: str, name: str) -> tuple[Row, dict[str, str]]:
        for row, pattern in self._rows:
            if row.record == record and (found := pattern.fullmatch(name)):
                return row, found.groupdict()
        raise HeldBackError("the answer has a field that docs/wire.md does not list")

    def _length(self, row: Row, found: Mapping[str, str], fields: Mapping[str, Any]) -> int | None:
        """How many values are due; None where the site says, up to one a patient."""
        due = 1
        for part in row.shape:
            if part == "any":
                return None
            if part == "levels":
                variable = VARIABLES[found["VARIABLE"]]
                due *= len(variable.levels) if isinstance(variable, Category) else 3
            elif part.startswith("="):
                sibling = part[1:]
                for placeholder, value in found.items():
                    sibling = sibling.replace(placeholder, value)
                other = fields.get(sibling)
                if not isinstance(other, list):
                    raise HeldBackError(f"{row.name}: {part[1:]}, which tells its length, is missing")
                due *= len(other)
            else:
                due *= self._dimensions[part]
        return due

    def _value(self, row: Row, value: Any, due: int | None, *, levels: bool) -> Any:
        if row.kind in ("site", "channels", "schema", "version", "variables", "sentence"):
            return self._text(row, value)
        single = not row.shape
        if single is isinstance(value, list):
            raise HeldBackError(f"{row.name}: a list where a number is due, or a number where a list is")
        values = [value] if single else value
        if any(type(each) not in (int, float) for each in values):
            raise HeldBackError(f"{row.name}: something else than numbers")
        if len(values) > self._limits.patients if due is None else len(values) != due:
            raise HeldBackError(f"{row.name}: not of the shape that is due")
        self._numbers(row, np.asarray(values, dtype=float), levels=levels)
        return value if single else list(value)

    def _numbers(self, row: Row, values: np.ndarray, *, levels: bool) -> None:
        limits = self._limits
        if not np.isfinite(values).all():
            raise HeldBackError(f"{row.name}: a value that is no number")
        if row.kind in ("count", "group", "withheld group", "flag", "places") or row.sums:
            least = -1 if row.kind == "withheld group" else 0
            counts = values[:1] if row.sums and not levels else values
            most = 1 if row.kind == "flag" else limits.patients
            if (counts != np.rint(counts)).any() or (counts < least).any() or (counts > most).any():
                raise HeldBackError(f"{row.name}: no count, or more than there are patients")
            if (row.kind in ("group", "withheld group") or row.sums) and (
                (counts > 0) & (counts < limits.minimum)
            ).any():
                raise HeldBackError(f"{row.name}: a count below min_cell_size, which must be withheld")
        if row.kind == "amount" and (values < 0).any():
            raise HeldBackError(f"{row.name}: a negative amount")
        if row.kind in ("times", "edges"):
            if row.kind == "edges":
                values = values[np.abs(values) != OPEN_END]
            if (values < 0).any() or (values > LONGEST_TIME_DAYS).any():
                raise HeldBackError(f"{row.name}: no time in days")
            step = COARSE_STEP_DAYS if row.kind == "edges" else MIDDLE_STEP_DAYS
            if limits.minimum > 1 and (values % step != 0).any():
                raise HeldBackError(f"{row.name}: a time that was not moved to one that patients share")
        if row.kind in ("times", "places") and (np.diff(values) <= 0).any():
            raise HeldBackError(f"{row.name}: does not increase")

    def _text(self, row: Row, value: Any) -> Any:
        limits, experiment = self._limits, self._experiment
        fits = {
            "site": lambda: value == limits.site,
            "channels": lambda: isinstance(value, list) and (not value or tuple(value) == limits.channels),
            "schema": lambda: type(value) is int and 0 < value < 100,
            "version": lambda: value in limits.versions,
            "variables": lambda: (
                isinstance(value, list)
                and len(set(value)) == len(value)
                and set(value) <= set(experiment.data.variables)
            ),
            "sentence": lambda: value in refusals.BY_APP,
        }[row.kind]
        if not fits():
            raise HeldBackError(f"{row.name}: a text that is none of those allowed")
        return value

    def _check_groups(self, fields: Mapping[str, Any]) -> None:
        """At every shared time at least `min_cell_size` patients leave."""
        if self._question.message == "evaluate.test":
            for endpoint in self._experiment.data.endpoints:
                self._check_leaving(fields, f"leaving.{endpoint}.")
        if self._question.message not in ("evaluate.time_counts", "evaluate.development"):
            return
        for name in fields:
            prefix = name.removesuffix(".times")
            if prefix == name:
                continue
            events, censored = (fields.get(f"{prefix}.{which}") for which in ("events", "censored"))
            if events is None or censored is None:
                raise HeldBackError("times without the numbers of patients who leave at each")
            if (np.add(events, censored) < self._limits.minimum).any():
                raise HeldBackError("fewer than min_cell_size patients leave at a time")

    def _check_leaving(self, fields: Mapping[str, Any], prefix: str) -> None:
        """The same of test patients: in the data, which come before their bootstrap samples, without empty columns."""
        told = {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}
        if not told:
            return
        columns = ("events", "censored")
        if not {"times", *columns} <= set(told):
            raise HeldBackError("times without the numbers of patients who leave at each")
        leave = np.zeros(len(told["times"]))
        for name in columns:
            places = told[f"{name}.places"]
            if any(place >= len(leave) for place in places):
                raise HeldBackError("patients who leave at none of the times")
            leave[np.asarray(places, dtype=int)] += told[name][: len(places)]
        rows_a_patient = self._experiment.evaluation.models_a_patient
        if (leave <= (self._limits.minimum - 1) * rows_a_patient).any():
            raise HeldBackError("fewer than min_cell_size patients leave at a time")

    def _arrays(self, record: ArrayRecord) -> ArrayRecord:
        sent, may_keep = self._question.arrays, self._experiment.federation.local_normalisation
        arrays = _unpacked(record)
        if not set(arrays) <= set(sent) or (set(arrays) != set(sent) and not may_keep):
            raise HeldBackError("arrays: other names than were sent")
        if any((str(values.dtype), values.shape) != sent[name] for name, values in arrays.items()):
            raise HeldBackError("arrays: another type or shape than was sent")
        # Packed anew: the bytes that came may hold more than the arrays.
        return ArrayRecord({protocol.WEIGHTS: Array(pack_weights(arrays))})

    def _pattern(self, row: Row) -> re.Pattern[str]:
        pattern = re.escape(row.name)
        for word, choices in self._placeholders.items():
            pattern = pattern.replace(word, f"(?P<{word}>{'|'.join(map(re.escape, choices))})")
        return re.compile(pattern)

    def _fixed_dimensions(self) -> dict[str, int]:
        experiment, question = self._experiment, self._question
        endpoints = experiment.data.endpoints
        columns = 0
        if question.endpoint is not None and 0 <= question.endpoint < len(endpoints):
            columns = question.lengths.get(f"{endpoints[question.endpoint]}.columns", 0)
        replicates = experiment.evaluation.bootstrap_replicates
        return {
            "heads": len(experiment.heads),
            "endpoints": len(endpoints),
            "twice-endpoints": 2 * len(endpoints),
            "modalities": len(experiment.data.modalities),
            "kinds": len(KINDS_AS_READ),
            "folds": experiment.evaluation.runs,
            "replicates": replicates,
            "samples": 1 + replicates,
            "groups": GROUPS,
            "candidates": len(candidates_of(experiment.data.variables)),
            "sent-times": question.lengths.get("event-times", 0),
            "sent-columns": columns,
            "sent-triangle": columns * (columns + 1) // 2,
        }
