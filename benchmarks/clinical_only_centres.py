"""Do centres without images help those with images? Three imaging centres with and without two clinical-only ones.

    python benchmarks/clinical_only_centres.py OUT --seed 7 --seed 8 [--config configs/clinical_only_centres.toml]

Each seed draws other synthetic patients, another split and other first weights. Both federations run on Flower's
simulation runtime and are tested on the same test patients of the three imaging centres; a seed's interval is of paired
bootstrap samples of them, the last line's a t interval over the seeds. What is finished is not done again.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from over_seeds import mean_with_interval
from rich.console import Console

from simulation.gain import difference
from simulation.tested import Chosen, Tests, count_everywhere
from simulation.trainings import open_centres, train_federated
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import Experiment, read_experiment
from stsmm_core.survival.concordance import total
from stsmm_core.training.centre import Centre
from stsmm_core.training.inputs import open_cohorts

CONFIG = Path(__file__).parents[1] / "configs" / "clinical_only_centres.toml"
IMAGING = ("site_3", "site_4", "site_5")
CLINICAL_ONLY = ("site_1", "site_2")
JOINED, WITHOUT = "joined", "without"
IMAGING_PATIENTS, CLINICAL_PATIENTS = 2400, 6300
"""Of five sites, of which the three smaller are taken (1134 patients, 91 to train on), and of the two (504)."""


@dataclass(frozen=True)
class Gain:
    """C-index of the imaging centres' test patients with and without the clinical-only centres, and the difference."""

    joined: float
    without: float
    low: float
    high: float
    pairs: int

    @property
    def value(self) -> float:
        """What the imaging centres gain."""
        return self.joined - self.without


def main() -> None:
    """Measure each seed, then the mean over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, action="append", required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    given = parser.parse_args()
    console = Console()
    gains: dict[tuple[Chosen, str], list[Gain]] = {}
    for seed in given.seed:
        experiment = read_experiment(given.config).model_copy(update={"seed": seed})
        runs = _train(console, experiment, given.out / f"seed-{seed}")
        for chosen in get_args(Chosen):
            for endpoint, gain in zip(experiment.data.endpoints, runs.gains(chosen), strict=True):
                gains.setdefault((chosen, endpoint), []).append(gain)
                console.print(
                    f"seed {seed} {endpoint}, {chosen} round: {gain.without:.3f} -> {gain.joined:.3f}, "
                    f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] ({gain.pairs} pairs)",
                    highlight=False,
                )
    for (chosen, endpoint), each in gains.items():
        console.print(f"{endpoint}, {chosen} round: {_over_seeds(each)}", highlight=False)


@dataclass(frozen=True)
class Runs:
    """Both federations of a seed, and the imaging centres that test them."""

    folder: Path
    centres: Sequence[Centre]

    def gains(self, chosen: Chosen) -> list[Gain]:
        """By the weights of the selected or of the last round, an endpoint each."""
        joined, without = (
            count_everywhere(self.centres, self.folder / run, chosen, self.folder / "tested" / chosen / run)
            for run in (JOINED, WITHOUT)
        )
        return [_gain(joined, without, column) for column in range(len(self.centres[0].experiment.data.endpoints))]


def _train(console: Console, experiment: Experiment, folder: Path) -> Runs:
    everybody = open_cohorts(_write_cohorts(folder / "cohorts", experiment.seed))
    imaging = [cohort for cohort in everybody if cohort.manifest.site in IMAGING]
    for run, virtual in {JOINED: everybody, WITHOUT: imaging}.items():
        train_federated(console, experiment, virtual, None, folder / run, cache=folder / "cache")
    return Runs(folder, open_centres(console, experiment, imaging, folder / WITHOUT, cache=folder / "cache"))


def _gain(joined: Tests, without: Tests, column: int) -> Gain:
    both = [total([counts[column] for counts in tests.values()]) for tests in (joined, without)]
    found = difference("joined_minus_without", None, *both)
    assert found.low is not None
    assert found.high is not None
    values = [counts.concordant / counts.comparable for counts in both]
    return Gain(*values, found.low, found.high, found.pairs)


def _write_cohorts(out: Path, seed: int) -> list[Path]:
    """Cohort folders of the five centres."""
    cohorts = [out / site for site in (*CLINICAL_ONLY, *IMAGING)]
    if not out.exists():
        drawn = out.with_name("drawn")
        shutil.rmtree(drawn, ignore_errors=True)
        write_synthetic_cohorts(drawn / "imaging", sites=5, patients=IMAGING_PATIENTS, seed=seed)
        write_synthetic_cohorts(drawn / "clinical", sites=2, patients=CLINICAL_PATIENTS, seed=seed + 1000, images=False)
        for site in CLINICAL_ONLY:
            shutil.rmtree(drawn / "imaging" / site)
            (drawn / "clinical" / site).rename(drawn / "imaging" / site)
        (drawn / "imaging").rename(out)
        shutil.rmtree(drawn)
    return cohorts


def _over_seeds(gains: Sequence[Gain]) -> str:
    without, joined = (sum(each) / len(gains) for each in ([g.without for g in gains], [g.joined for g in gains]))
    difference_over_seeds = mean_with_interval([gain.value for gain in gains])
    return f"{without:.3f} -> {joined:.3f}, {difference_over_seeds}, {len(gains)} seeds"


if __name__ == "__main__":
    main()
