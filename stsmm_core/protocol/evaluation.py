"""The test over all sites: sums of outputs, development sums, and what each site tells of its test patients."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stsmm_core.config import Experiment
from stsmm_core.protocol.keys import (
    LARGEST_COUNT,
    LARGEST_NUMBER,
    Numbers,
    ProtocolError,
    check_sums,
    read_array,
    read_count,
    read_counts,
    read_length,
    read_times,
)
from stsmm_core.protocol.time_counts import read_counts_at
from stsmm_core.survival.cells import OPEN_END, Cells
from stsmm_core.survival.common_scale import OutputSums, Scale
from stsmm_core.survival.development import DevelopmentSums
from stsmm_core.survival.leaving import Leaving
from stsmm_core.survival.site_sums import GROUPS, Development, HorizonSums, RankSums, RiskSums, SiteTest

SUMS = (
    "size",
    "brier",
    "brier_null",
    "brier_site",
    "expected",
    "expected_site",
    "observed",
    "concordant",
    "comparable",
)
GROUP_SUMS = ("group_size", "group_expected", "group_observed")
EDGES = ("risk_low", "risk_high", "time_low", "time_high")


def output_sums_to_numbers(sums: OutputSums) -> Numbers:
    """Number, sum and sum of squares of the training patients' outputs."""
    return {f"outputs.{name}": getattr(sums, name).ravel().tolist() for name in ("n", "total", "squares")}


def output_sums_from_numbers(
    numbers: Mapping[str, Any], experiment: Experiment, *, most: int = LARGEST_COUNT
) -> OutputSums:
    """Inverse of `output_sums_to_numbers`, of at most so many patients."""
    shape = _shape(experiment)
    n = read_counts(numbers, "outputs.n", shape, most=most)
    total = read_array(numbers, "outputs.total", shape)
    squares = read_array(numbers, "outputs.squares", shape, low=0, high=LARGEST_NUMBER**2)
    check_sums(n, total, squares, "outputs.squares", largest=LARGEST_NUMBER)
    return OutputSums(n, total, squares)


def scale_to_numbers(scale: Scale) -> Numbers:
    """Mean and standard deviation of the outputs over all sites."""
    return {"scale.mean": scale.mean.ravel().tolist(), "scale.sd": scale.sd.ravel().tolist()}


def scale_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> Scale:
    """Inverse of `scale_to_numbers`."""
    shape = _shape(experiment)
    return Scale(read_array(numbers, "scale.mean", shape), read_array(numbers, "scale.sd", shape))


def development_to_numbers(development: Development, experiment: Experiment) -> Numbers:
    """Development patients by time, of one site or of all together, a model and endpoint."""
    numbers: Numbers = {}
    for fold, by_endpoint in enumerate(development):
        for endpoint, sums in zip(experiment.data.endpoints, by_endpoint, strict=True):
            prefix = f"development.{fold}.{endpoint}"
            numbers |= {
                f"{prefix}.{name}": getattr(sums.counts, name).tolist() for name in ("times", "events", "censored")
            }
            numbers[f"{prefix}.log-hazards"] = sums.log_hazards.tolist()
            numbers[f"{prefix}.largest-move"] = float(sums.counts.largest_move_days)
    return numbers


def development_from_numbers(
    numbers: Mapping[str, Any], experiment: Experiment, *, most: int = LARGEST_COUNT
) -> list[list[DevelopmentSums]]:
    """Inverse of `development_to_numbers`, of at most so many patients."""

    def read(prefix: str) -> DevelopmentSums:
        counts = read_counts_at(numbers, prefix, most)
        return DevelopmentSums(counts, read_array(numbers, f"{prefix}.log-hazards", counts.times.shape))

    return [
        [read(f"development.{fold}.{endpoint}") for endpoint in experiment.data.endpoints]
        for fold in range(experiment.evaluation.runs)
    ]


def site_test_to_numbers(test: SiteTest, experiment: Experiment) -> Numbers:
    """What a site tells of its test patients."""
    numbers: Numbers = {}
    for column, endpoint in enumerate(experiment.data.endpoints):
        for head, ranks in zip(experiment.heads, test.ranks, strict=True):
            rank, prefix = ranks[column], f"ranks.{head}.{endpoint}"
            numbers |= {f"{prefix}.{name}": getattr(rank, name).tolist() for name in ("concordant", "comparable")}
            numbers |= {f"{prefix}.patients": rank.patients, f"{prefix}.events": rank.events}
            for fold, cells in enumerate(rank.cells):
                numbers |= _cells_to_numbers(cells, f"{prefix}.{fold}")
        risks, prefix = test.risks[column], f"leaving.{endpoint}"
        numbers |= {
            f"{prefix}.times": risks.leaving.times.tolist(),
            f"{prefix}.moved": int(risks.leaving.moved),
        }
        numbers |= _columns_to_numbers(risks.leaving.events, f"{prefix}.events")
        numbers |= _columns_to_numbers(risks.leaving.censored, f"{prefix}.censored")
        for place, sums in enumerate(risks.horizons):
            prefix = f"horizon.{place}.{endpoint}"
            numbers |= {f"{prefix}.{name}": getattr(sums, name).ravel().tolist() for name in (*SUMS, *GROUP_SUMS)}
            numbers |= {f"{prefix}.events": sums.events, f"{prefix}.beyond": sums.beyond}
            for fold, cells in enumerate(sums.cells):
                numbers |= _cells_to_numbers(cells, f"{prefix}.{fold}")
    return numbers


def site_test_from_numbers(
    numbers: Mapping[str, Any], experiment: Experiment, *, most: int = LARGEST_COUNT
) -> SiteTest:
    """Inverse of `site_test_to_numbers`, of at most so many patients."""
    samples = 1 + experiment.evaluation.bootstrap_replicates
    folds = range(experiment.evaluation.runs)

    def rank(prefix: str) -> RankSums:
        return RankSums(
            _read_amounts(numbers, f"{prefix}.concordant", (samples,)),
            _read_amounts(numbers, f"{prefix}.comparable", (samples,)),
            tuple(_cells_from_numbers(numbers, f"{prefix}.{fold}", samples) for fold in folds),
            read_count(numbers, f"{prefix}.patients", most=most),
            read_count(numbers, f"{prefix}.events", most=most),
        )

    def leaving(prefix: str) -> Leaving:
        rows = most * experiment.evaluation.runs
        times = read_times(numbers, f"{prefix}.times", most=rows)
        events, censored = (
            _columns_from_numbers(numbers, f"{prefix}.{name}", (samples, len(times))) for name in ("events", "censored")
        )
        if (events[0] + censored[0] < 1).any() or events[0].sum() + censored[0].sum() > rows:
            raise ProtocolError(f"field '{prefix}.times' holds a time at which no patient left, or too many did")
        return Leaving(times, events, censored, bool(read_count(numbers, f"{prefix}.moved", most=1)))

    def horizon(prefix: str) -> HorizonSums:
        sums = {name: _read_amounts(numbers, f"{prefix}.{name}", (samples,)) for name in SUMS}
        groups = {name: _read_amounts(numbers, f"{prefix}.{name}", (samples, GROUPS)) for name in GROUP_SUMS}
        return HorizonSums(
            **sums,
            **groups,
            cells=tuple(_cells_from_numbers(numbers, f"{prefix}.{fold}", samples) for fold in folds),
            events=read_count(numbers, f"{prefix}.events", most=most),
            beyond=read_count(numbers, f"{prefix}.beyond", most=most),
        )

    places = range(len(experiment.evaluation.horizons_years))
    endpoints = experiment.data.endpoints
    return SiteTest(
        tuple(tuple(rank(f"ranks.{head}.{endpoint}") for endpoint in endpoints) for head in experiment.heads),
        tuple(
            RiskSums(leaving(f"leaving.{endpoint}"), tuple(horizon(f"horizon.{place}.{endpoint}") for place in places))
            for endpoint in endpoints
        ),
    )


def _cells_to_numbers(cells: Cells, prefix: str) -> Numbers:
    numbers: Numbers = {f"{prefix}.{name.replace('_', '-')}": getattr(cells, name).tolist() for name in EDGES}
    numbers |= _columns_to_numbers(cells.first, f"{prefix}.first") | _columns_to_numbers(
        cells.second, f"{prefix}.second"
    )
    return numbers | {f"{prefix}.unseen": cells.unseen}


def _cells_from_numbers(numbers: Mapping[str, Any], prefix: str, samples: int) -> Cells:
    count = read_length(numbers, f"{prefix}.risk-low")
    risk_low, risk_high, time_low, time_high = (
        read_array(numbers, f"{prefix}.{name.replace('_', '-')}", (count,), low=-OPEN_END, high=OPEN_END)
        for name in EDGES
    )
    if (risk_low > risk_high).any() or (time_low > time_high).any():
        raise ProtocolError(f"cells '{prefix}': an upper edge lies below the lower one")
    first, second = (
        _columns_from_numbers(numbers, f"{prefix}.{name}", (samples, count)) for name in ("first", "second")
    )
    unseen = read_count(numbers, f"{prefix}.unseen")
    return Cells(risk_low, risk_high, time_low, time_high, first, second, unseen)


def _columns_to_numbers(values: NDArray[np.float64], key: str) -> Numbers:
    """A table without its columns of zeros: most cells hold either events or censorings."""
    used = np.flatnonzero(values.any(axis=0))
    return {f"{key}.places": used.tolist(), key: values[:, used].ravel().tolist()}


def _columns_from_numbers(numbers: Mapping[str, Any], key: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    samples, columns = shape
    count = read_length(numbers, f"{key}.places")
    places = read_array(numbers, f"{key}.places", (count,))
    used = places.astype(np.intp)
    if (places != used).any() or (np.diff(places) <= 0).any() or not ((used >= 0) & (used < columns)).all():
        raise ProtocolError(f"field '{key}.places' does not number columns")
    values = np.zeros((samples, columns))
    values[:, used] = _read_amounts(numbers, key, (samples, count))
    return values


def _shape(experiment: Experiment) -> tuple[int, int, int]:
    return experiment.evaluation.runs, len(experiment.heads), len(experiment.data.endpoints)


def _read_amounts(numbers: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A field of sums of counts or weights; a pair has a product of two weights, which may be large."""
    return read_array(numbers, key, shape, low=0, high=LARGEST_NUMBER**2)
