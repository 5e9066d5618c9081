"""Dividing one cohort into virtual centres."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.sheet import centre_names, check_divides, labels_of
from stsmm_core.cohort.cohort import Cohort
from stsmm_core.errors import CohortError, ConfigError
from stsmm_core.seeds import generator

DRAWS = 1000
"""Dirichlet divisions tried until every centre has its minimum."""


@dataclass(frozen=True)
class Equal:
    """At random into centres of equal size (the sizes differ by one patient at most)."""

    centres: int

    def divide(self, cohort: Cohort, *, seed: int) -> list[Cohort]:
        """The centres.

        Raises:
            CohortError: when there are fewer patients than centres.
        """
        _check_enough(cohort, self.centres, 1)
        return _numbered(cohort, np.array_split(_shuffled(cohort, seed), self.centres))


@dataclass(frozen=True)
class BySize:
    """At random into a long tail of centres: centre k in proportion to k^-exponent, each at least the minimum."""

    centres: int
    exponent: float = 1.0
    at_least: int = 10

    def divide(self, cohort: Cohort, *, seed: int) -> list[Cohort]:
        """The centres, the largest first.

        Raises:
            CohortError: when there are too few patients for the minimum.
        """
        _check_enough(cohort, self.centres, self.at_least)
        sizes = long_tail(len(cohort.patients), self.centres, exponent=self.exponent, at_least=self.at_least)
        return _numbered(cohort, np.split(_shuffled(cohort, seed), np.cumsum(sizes)[:-1]))


@dataclass(frozen=True)
class ByColumn:
    """A centre a value of a column of the sheet or of acquisition.csv; patients without a value are one too."""

    by: str

    def divide(self, cohort: Cohort, *, seed: int) -> list[Cohort]:
        """The centres, in the order of their values; nothing is drawn.

        Raises:
            CohortError: when there is no such column, or its values do not make centres.
        """
        del seed
        labels = labels_of(cohort, self.by)
        check_divides(labels, self.by)
        names = centre_names(labels, self.by)
        return [_centre(cohort, names[value], labels.index[labels == value]) for value in sorted(names)]


@dataclass(frozen=True)
class Dirichlet:
    """With skewed labels: each value's patients are spread over the centres in shares drawn from Dirichlet(alpha).

    Hsu, Qi and Brown 2019 (arXiv 1909.06335), for the classes of a label of ours: whether an endpoint's event was seen,
    or a column such as location. A small alpha gives each value to few centres, a large one spreads all evenly.
    """

    centres: int
    by: str = "os"
    alpha: float = 0.5
    at_least: int = 10

    def divide(self, cohort: Cohort, *, seed: int) -> list[Cohort]:
        """The centres; drawn again until each has its minimum.

        Raises:
            CohortError: when there are too few patients, or no draw gives every centre its minimum.
        """
        _check_enough(cohort, self.centres, self.at_least)
        labels = labels_of(cohort, self.by)
        check_divides(labels, self.by)
        rng = generator(seed, "partition", "dirichlet")
        for _ in range(DRAWS):
            owner = deal_labels(labels.to_numpy(), self.centres, alpha=self.alpha, rng=rng)
            if np.bincount(owner, minlength=self.centres).min() >= self.at_least:
                patients = labels.index.to_numpy()
                return _numbered(cohort, [patients[owner == centre] for centre in range(self.centres)])
        raise CohortError(
            f"none of {DRAWS} Dirichlet({self.alpha:g}) divisions of {cohort.root.name} by {self.by} gives each of "
            f"{self.centres} centres {self.at_least} patients; raise --alpha, or lower --centres or --at-least"
        )


@dataclass(frozen=True)
class ScannerShift:
    """Into centres of equal size; `simulation.scanner` then sends each centre's images through another scanner."""

    centres: int
    strength: float = 1.0

    def divide(self, cohort: Cohort, *, seed: int) -> list[Cohort]:
        """The same centres as `Equal`, so that the two differ in the images alone."""
        return Equal(self.centres).divide(cohort, seed=seed)


Partition = Equal | BySize | ByColumn | Dirichlet | ScannerShift

KINDS: Mapping[str, type[Partition]] = {
    "equal": Equal,
    "size": BySize,
    "column": ByColumn,
    "dirichlet": Dirichlet,
    "scanner": ScannerShift,
}


def choose_partition(kind: str | None, options: Mapping[str, Any]) -> Partition | None:
    """The partition that the command line asks for; None where it asks for none.

    Args:
        options: by name, None where not given.

    Raises:
        ConfigError: for an option that the partition does not have, or lacks.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if kind is None and set(given) <= {"centres"}:
        return Equal(**given) if given else None
    if kind is None:
        raise ConfigError(f"{_flags(given.keys() - {'centres'})} needs --partition; choose from {', '.join(KINDS)}")
    if kind not in KINDS:
        raise ConfigError(f"--partition {kind}: no such partition; choose from {', '.join(KINDS)}")
    known = {field.name: field.default is MISSING for field in fields(KINDS[kind])}
    stray, lacking = given.keys() - known.keys(), {name for name in known if known[name]} - given.keys()
    if stray:
        raise ConfigError(f"{_flags(stray)} means nothing to --partition {kind}; it takes {_flags(known)}")
    if lacking:
        raise ConfigError(f"--partition {kind} needs {_flags(lacking)}")
    return KINDS[kind](**given)


def describe_partition(partition: Partition) -> dict[str, Any]:
    """Its kind and settings, for the run folder."""
    kind = next(name for name, each in KINDS.items() if each is type(partition))
    return {"kind": kind, **asdict(partition)}


def long_tail(patients: int, centres: int, *, exponent: float, at_least: int) -> NDArray[np.int64]:
    """Sizes of the centres, largest first, in proportion to k^-exponent for those above the minimum.

    Raises:
        ValueError: when the minimum asks for more patients than there are.
    """
    if centres * at_least > patients:
        raise ValueError(f"{centres} centres of at least {at_least} need more than {patients} patients")
    shares = np.arange(1, centres + 1, dtype=float) ** -exponent
    free = centres
    # From the tail on: whoever falls below the minimum gets it, and the rest is shared among those before.
    while free > 1 and _proportional(patients, shares, free, centres, at_least)[-1] < at_least:
        free -= 1
    exact = _proportional(patients, shares, free, centres, at_least)
    sizes = np.full(centres, at_least)
    sizes[:free] = np.floor(exact)
    short = patients - sizes.sum()
    sizes[np.argsort(sizes[:free] - exact, kind="stable")[:short]] += 1
    return np.sort(sizes)[::-1]


def deal_labels(labels: NDArray[Any], centres: int, *, alpha: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """The centre of each patient: every label's patients fall to the centres with chances from Dirichlet(alpha)."""
    owner = np.empty(len(labels), dtype=np.intp)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        shares = rng.dirichlet(np.full(centres, alpha))
        owner[rows] = rng.choice(centres, size=len(rows), p=shares)
    return owner


def _proportional(
    patients: int, shares: NDArray[np.float64], free: int, centres: int, at_least: int
) -> NDArray[np.float64]:
    """Sizes of the first `free` centres when the others have the minimum."""
    return (patients - at_least * (centres - free)) * shares[:free] / shares[:free].sum()


def _shuffled(cohort: Cohort, seed: int) -> NDArray[Any]:
    return generator(seed, "partition").permutation(np.array(cohort.patients))


def _numbered(cohort: Cohort, parts: Sequence[NDArray[Any]]) -> list[Cohort]:
    return [_centre(cohort, f"centre_{number}", part) for number, part in enumerate(parts, start=1)]


def _centre(cohort: Cohort, name: str, patients: Iterable[Any]) -> Cohort:
    manifest = cohort.manifest.model_copy(update={"site": name})
    return replace(cohort.subset([str(patient) for patient in patients]), manifest=manifest)


def _check_enough(cohort: Cohort, centres: int, at_least: int) -> None:
    if len(cohort.patients) < centres * at_least:
        each = f" of at least {at_least}" if at_least > 1 else ""
        remedy = "lower --centres or --at-least" if at_least > 1 else "lower --centres"
        raise CohortError(
            f"{cohort.root.name} has {len(cohort.patients)} patients, too few for {centres} centres{each}; {remedy}"
        )


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))
