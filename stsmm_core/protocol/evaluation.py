"""The test over all sites: sums of outputs, development sums, and what each site tells of its test patients."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stsmm_core.config import Experiment
from stsmm_core.protocol.keys import Numbers, ProtocolError, read_array
from stsmm_core.survival.cells import OPEN_END, Cells
from stsmm_core.survival.common_scale import OutputSums, Scale
from stsmm_core.survival.development import DevelopmentSums
from stsmm_core.survival.leaving import Leaving
from stsmm_core.survival.site_sums import GROUPS, Development, HorizonSums, RankSums, RiskSums, SiteTest
from stsmm_core.survival.time_counts import TimeCounts

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


def output_sums_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> OutputSums:
    """Inverse of `output_sums_to_numbers`."""
    shape = _shape(experiment)
    return OutputSums(*(read_array(numbers, f"outputs.{name}", shape) for name in ("n", "total", "squares")))


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


def development_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> list[list[DevelopmentSums]]:
    """Inverse of `development_to_numbers`."""

    def read(prefix: str) -> DevelopmentSums:
        steps = _length(numbers, f"{prefix}.times")
        times = read_array(numbers, f"{prefix}.times", (steps,))
        events, censored = (_read_amounts(numbers, f"{prefix}.{name}", (steps,)) for name in ("events", "censored"))
        log_hazards = read_array(numbers, f"{prefix}.log-hazards", (steps,))
        _check_times(times, f"{prefix}.times")
        move = float(read_array(numbers, f"{prefix}.largest-move", ()))
        return DevelopmentSums(TimeCounts(times, events, censored, move), log_hazards)

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


def site_test_from_numbers(numbers: Mapping[str, Any], experiment: Experiment) -> SiteTest:
    """Inverse of `site_test_to_numbers`."""
    samples = 1 + experiment.evaluation.bootstrap_replicates
    folds = range(experiment.evaluation.runs)

    def rank(prefix: str) -> RankSums:
        return RankSums(
            read_array(numbers, f"{prefix}.concordant", (samples,)),
            read_array(numbers, f"{prefix}.comparable", (samples,)),
            tuple(_cells_from_numbers(numbers, f"{prefix}.{fold}", samples) for fold in folds),
            _count(numbers, f"{prefix}.patients"),
            _count(numbers, f"{prefix}.events"),
        )

    def leaving(prefix: str) -> Leaving:
        steps = _length(numbers, f"{prefix}.times")
        times = read_array(numbers, f"{prefix}.times", (steps,))
        _check_times(times, f"{prefix}.times")
        events, censored = (
            _columns_from_numbers(numbers, f"{prefix}.{name}", (samples, steps)) for name in ("events", "censored")
        )
        return Leaving(times, events, censored, bool(_count(numbers, f"{prefix}.moved")))

    def horizon(prefix: str) -> HorizonSums:
        sums = {name: read_array(numbers, f"{prefix}.{name}", (samples,)) for name in SUMS}
        groups = {name: read_array(numbers, f"{prefix}.{name}", (samples, GROUPS)) for name in GROUP_SUMS}
        return HorizonSums(
            **sums,
            **groups,
            cells=tuple(_cells_from_numbers(numbers, f"{prefix}.{fold}", samples) for fold in folds),
            events=_count(numbers, f"{prefix}.events"),
            beyond=_count(numbers, f"{prefix}.beyond"),
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
    count = _length(numbers, f"{prefix}.risk-low")
    risk_low, risk_high, time_low, time_high = (
        read_array(numbers, f"{prefix}.{name.replace('_', '-')}", (count,), low=-OPEN_END, high=OPEN_END)
        for name in EDGES
    )
    if (risk_low > risk_high).any() or (time_low > time_high).any():
        raise ProtocolError(f"cells '{prefix}': an upper edge lies below the lower one")
    first, second = (
        _columns_from_numbers(numbers, f"{prefix}.{name}", (samples, count)) for name in ("first", "second")
    )
    unseen = _count(numbers, f"{prefix}.unseen")
    return Cells(risk_low, risk_high, time_low, time_high, first, second, unseen)


def _columns_to_numbers(values: NDArray[np.float64], key: str) -> Numbers:
    """A table without its columns of zeros: most cells hold either events or censorings."""
    used = np.flatnonzero(values.any(axis=0))
    return {f"{key}.places": used.tolist(), key: values[:, used].ravel().tolist()}


def _columns_from_numbers(numbers: Mapping[str, Any], key: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    samples, columns = shape
    count = _length(numbers, f"{key}.places")
    places = read_array(numbers, f"{key}.places", (count,))
    used = places.astype(np.intp)
    if (places != used).any() or (np.diff(places) <= 0).any() or not ((used >= 0) & (used < columns)).all():
        raise ProtocolError(f"field '{key}.places' does not number columns")
    values = np.zeros((samples, columns))
    values[:, used] = _read_amounts(numbers, key, (samples, count))
    return values


def _shape(experiment: Experiment) -> tuple[int, int, int]:
    return experiment.evaluation.runs, len(experiment.heads), len(experiment.data.endpoints)


def _length(numbers: Mapping[str, Any], key: str) -> int:
    """How long a list is whose length is the site's own to say."""
    if key not in numbers:
        raise ProtocolError(f"field '{key}' is missing from the message")
    if not isinstance(numbers[key], Sequence) or isinstance(numbers[key], (str, bytes)):
        raise ProtocolError(f"field '{key}' is not a list")
    return len(numbers[key])


def _count(numbers: Mapping[str, Any], key: str) -> int:
    value = float(read_array(numbers, key, ()))
    if value < 0 or value != int(value):
        raise ProtocolError(f"field '{key}' is not a count")
    return int(value)


def _check_times(times: NDArray[np.float64], key: str) -> None:
    if len(times) and (times[0] < 0 or (np.diff(times) <= 0).any()):
        raise ProtocolError(f"field '{key}' must increase from 0")


def _read_amounts(numbers: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A field of counts or weights."""
    values = read_array(numbers, key, shape)
    if (values < 0).any():
        raise ProtocolError(f"field '{key}' holds a negative number")
    return values
