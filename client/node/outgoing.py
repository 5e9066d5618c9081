"""What may leave a site: docs/wire.md's table "Site to server" for the gate to read. What is not here stays."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "arrays",  # of the names, types and shapes that were sent
    "count",  # whole, from 0 to the cohort's patients
    "group",  # a count that is withheld from 1 to below the site's minimum cell size
    "withheld group",  # the same, or -1
    "number",  # finite
    "amount",  # finite, not negative
    "flag",  # 0 or 1
    "times",  # days, increasing; whole steps where the minimum is above 1
    "edges",  # days, in any order; whole steps where the minimum is above 1
    "places",  # whole, increasing
    "site",
    "channels",
    "schema",
    "version",
    "variables",
    "sentence",
]


@dataclass(frozen=True)
class Row:
    """A field; capitals stand for what differs from run to run.

    Attributes:
        message: type of the message that it answers; "any" for a refusal.
        shape: names of dimensions, whose sizes `outgoing_check` knows; "any" is as long as the site says, up to one
            entry a patient; "=NAME" as long as the field NAME. An empty shape is a single value.
        sums: n, sum, sum of squares (or patients a level), each n and level withheld as a group.
    """

    message: str
    record: str
    name: str
    kind: Kind
    shape: tuple[str, ...] = ()
    sums: bool = False


def _rows(message: str, kind: Kind, names: str, *shape: str, record: str = "metrics", sums: bool = False) -> list[Row]:
    return [Row(message, record, name, kind, shape, sums) for name in names.split()]


def _cells(prefix: str) -> list[Row]:
    """Cells of risk and time, and what fell into them in the data and in each bootstrap sample."""
    edges = f"={prefix}.risk-low"
    rows = _rows("evaluate.test", "number", f"{prefix}.risk-low", "any")
    rows += _rows("evaluate.test", "number", f"{prefix}.risk-high", edges)
    rows += _rows("evaluate.test", "edges", f"{prefix}.time-low {prefix}.time-high", edges)
    rows += _rows("evaluate.test", "count", f"{prefix}.unseen")
    for which in ("first", "second"):
        rows += _columns(f"{prefix}.{which}")
    return rows


def _columns(name: str) -> list[Row]:
    return _rows("evaluate.test", "amount", name, "samples", f"={name}.places") + _rows(
        "evaluate.test", "places", f"{name}.places", "any"
    )


_RANKS, _LEAVING, _HORIZON = "ranks.HEAD.ENDPOINT", "leaving.ENDPOINT", "horizon.NUMBER.ENDPOINT"
_DEVELOPMENT = "development.FOLD.ENDPOINT"
_HORIZON_SUMS = "size brier brier_null brier_site expected expected_site observed concordant comparable"

OUTGOING: tuple[Row, ...] = (
    *_rows("query", "site", "name", record="site"),
    *_rows("query", "channels", "channels", "any", record="site"),
    *_rows("query", "schema", "schema-version", record="site"),
    *_rows("query", "version", "software-version", record="site"),
    *_rows("query", "variables", "withheld", "any", record="site"),
    *_rows("query", "withheld group", "patients with-image"),
    *_rows("query", "withheld group", "events", "endpoints"),
    *_rows("query", "withheld group", "image-flags", "kinds"),
    *_rows("query", "number", "cohort.VARIABLE", "levels", sums=True),
    *_rows("query", "number", "training.VARIABLE", "levels", sums=True),
    *_rows("train", "arrays", "arrays", record="arrays"),
    *_rows("train", "group", "patients"),
    *_rows("train", "count", "events"),
    *_rows("train", "amount", "weight"),
    *_rows("train", "flag", "modalities-seen modalities-missed", "modalities"),
    *_rows("train", "flag", "heads-taught", "heads", "endpoints"),
    *_rows("evaluate", "number", "validation.loss train.loss", "heads", "endpoints"),
    *_rows("evaluate", "count", "validation.events train.events", "heads", "endpoints"),
    *_rows("evaluate", "number", "validation-change.change train-change.change", "heads", "endpoints"),
    *_rows("evaluate", "count", "validation-change.events train-change.events", "heads", "endpoints"),
    *_rows(
        "evaluate",
        "number",
        "validation-change.covariance train-change.covariance",
        "heads",
        "twice-endpoints",
        "twice-endpoints",
    ),
    *_rows("evaluate", "amount", "blending-weights", "heads"),
    *_rows("evaluate", "flag", "events-inverted", "endpoints"),
    *_rows("evaluate.predict", "group", "patients"),
    *_rows("evaluate.pairs", "amount", "concordant comparable", "heads", "endpoints"),
    *_rows("evaluate.pairs", "group", "patients", "heads", "endpoints"),
    *_rows("evaluate.pairs", "count", "events", "heads", "endpoints"),
    *_rows(
        "evaluate.pairs", "amount", "concordant-replicates comparable-replicates", "heads", "endpoints", "replicates"
    ),
    *_rows("evaluate.time_counts", "times", "ENDPOINT.times", "any"),
    *_rows("evaluate.time_counts", "count", "ENDPOINT.events ENDPOINT.censored", "=ENDPOINT.times"),
    *_rows("evaluate.time_counts", "edges", "ENDPOINT.largest-move"),
    *_rows("evaluate.time_counts", "flag", "ENDPOINT.withheld"),
    *_rows("evaluate.cox_columns", "group", "patients events"),
    *_rows("evaluate.cox_columns", "number", "first second", "candidates"),
    *_rows("evaluate.cox_columns", "flag", "withheld", "candidates"),
    *_rows("evaluate.cox_columns", "times", "event-times", "any"),
    *_rows("evaluate.cox_columns", "edges", "largest-move"),
    *_rows("evaluate.cox_sums", "count", "events", "sent-times"),
    *_rows("evaluate.cox_sums", "number", "event-total", "sent-columns"),
    *_rows("evaluate.cox_sums", "amount", "at-risk.zeroth tied.zeroth", "sent-times"),
    *_rows("evaluate.cox_sums", "number", "at-risk.first tied.first", "sent-times", "sent-columns"),
    *_rows("evaluate.cox_sums", "number", "at-risk.second tied.second", "sent-times", "sent-triangle"),
    *_rows("evaluate.cox_likelihood", "number", "value"),
    *_rows("evaluate.cox_likelihood", "number", "gradient", "sent-columns"),
    *_rows("evaluate.cox_likelihood", "number", "information", "sent-triangle"),
    *_rows("evaluate.cox_baseline", "times", "event-times", "any"),
    *_rows("evaluate.cox_baseline", "number", "log-cumulative-hazard", "=event-times"),
    *_rows("evaluate.cox_risks", "group", "patients"),
    *_rows("evaluate.scale", "group", "outputs.n", "folds", "heads", "endpoints"),
    *_rows("evaluate.scale", "number", "outputs.total outputs.squares", "folds", "heads", "endpoints"),
    *_rows("evaluate.development", "times", f"{_DEVELOPMENT}.times", "any"),
    *_rows("evaluate.development", "count", f"{_DEVELOPMENT}.events {_DEVELOPMENT}.censored", f"={_DEVELOPMENT}.times"),
    *_rows("evaluate.development", "number", f"{_DEVELOPMENT}.log-hazards", f"={_DEVELOPMENT}.times"),
    *_rows("evaluate.development", "edges", f"{_DEVELOPMENT}.largest-move"),
    *_rows("evaluate.test", "amount", f"{_RANKS}.concordant {_RANKS}.comparable", "samples"),
    *_rows("evaluate.test", "group", f"{_RANKS}.patients"),
    *_rows("evaluate.test", "count", f"{_RANKS}.events"),
    *_cells(f"{_RANKS}.FOLD"),
    *_rows("evaluate.test", "times", f"{_LEAVING}.times", "any"),
    *_columns(f"{_LEAVING}.events"),
    *_columns(f"{_LEAVING}.censored"),
    *_rows("evaluate.test", "flag", f"{_LEAVING}.moved"),
    *_rows("evaluate.test", "number", " ".join(f"{_HORIZON}.{name}" for name in _HORIZON_SUMS.split()), "samples"),
    *_rows(
        "evaluate.test",
        "number",
        f"{_HORIZON}.group_size {_HORIZON}.group_expected {_HORIZON}.group_observed",
        "samples",
        "groups",
    ),
    *_rows("evaluate.test", "count", f"{_HORIZON}.events {_HORIZON}.beyond"),
    *_cells(f"{_HORIZON}.FOLD"),
    *_rows("any", "sentence", "reason", record="refusal"),
)
MESSAGES = frozenset(row.message for row in OUTGOING) - {"any"}
"""Types of message that a site answers."""
