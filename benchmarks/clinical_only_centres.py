"""Do centres without images help those with images? Three imaging centres with and without two clinical-only ones.

    python benchmarks/clinical_only_centres.py OUT --seed 7 --seed 8 [--config FILE]

Each seed draws other synthetic patients, another split and other first weights. Both federations run on Flower's
simulation runtime and are tested on the same test patients of the three imaging centres; a seed's interval is of paired
bootstrap samples of them, the last line's a t interval over the seeds. What is finished is not done again.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.stats import t

from simulation.gain import difference
from simulation.tested import Tests, count_everywhere
from simulation.trainings import open_centres, train_federated
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import Experiment, parse_experiment
from stsmm_core.survival.concordance import total
from stsmm_core.training.inputs import open_cohorts

IMAGING = ("site_3", "site_4", "site_5")
CLINICAL_ONLY = ("site_1", "site_2")
IMAGING_PATIENTS, CLINICAL_PATIENTS = 2400, 2110
"""Of five sites, of which the three smaller are taken (1134 patients, 170 of them to train on), and of the two."""
CONFIG = """
[imaging]
shape = [32, 32, 32]
margin_mm = 5.0
steps = ["resampling", "zscore", "masking"]
augmentation = { flip = true, rotation_degrees = 0.0, zoom = 0.0 }

[model]
image_encoder = "small_densenet"
norm = "batch"
dropout = 0.2
clinical_widths = []

[training]
epochs = 40
batch_size = 16
risk_window = 16
optimizer = "adamw"
learning_rate = 0.01
schedule = "one_cycle"
weight_decay = 1e-3

[blending]
method = "robust"
interval = 3

[evaluation]
train_fraction = 0.15
validation_fraction = 0.075
"""
"""Chosen on seeds 5, 6, 21 and 22, which can therefore not show a gain."""


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
    parser.add_argument("--config", type=Path)
    given = parser.parse_args()
    config = given.config.read_text(encoding="utf-8") if given.config else CONFIG
    console = Console()
    gains: dict[str, list[Gain]] = {}
    for seed in given.seed:
        experiment = parse_experiment(config, source=str(given.config or __file__)).model_copy(update={"seed": seed})
        for endpoint, gain in zip(experiment.data.endpoints, _measure(console, experiment, given.out), strict=True):
            gains.setdefault(endpoint, []).append(gain)
            console.print(
                f"seed {seed} {endpoint}: {gain.without:.3f} -> {gain.joined:.3f}, "
                f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] ({gain.pairs} pairs)",
                highlight=False,
            )
    for name, each in gains.items():
        console.print(f"{name}: {_over_seeds(each)}", highlight=False)


def _measure(console: Console, experiment: Experiment, out: Path) -> list[Gain]:
    """Train both federations of one seed; an endpoint each."""
    folder = out / f"seed-{experiment.seed}"
    everybody = open_cohorts(_write_cohorts(folder / "cohorts", experiment.seed))
    imaging = [cohort for cohort in everybody if cohort.manifest.site in IMAGING]
    tests: dict[str, Tests] = {}
    for name, virtual in {"joined": everybody, "without": imaging}.items():
        run = folder / name
        train_federated(console, experiment, virtual, None, run, cache=folder / "cache")
        centres = open_centres(console, experiment, imaging, run, cache=folder / "cache")
        tests[name] = count_everywhere(centres, run, "selected", folder / "tested" / name)
    gains = []
    for column in range(len(experiment.data.endpoints)):
        joined, without = (total([counts[column] for counts in each.values()]) for each in tests.values())
        found = difference("joined_minus_without", None, joined, without)
        assert found.low is not None
        assert found.high is not None
        gains.append(
            Gain(
                joined.concordant / joined.comparable,
                without.concordant / without.comparable,
                found.low,
                found.high,
                found.pairs,
            )
        )
    return gains


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
    values = np.array([gain.value for gain in gains])
    means = f"{np.mean([g.without for g in gains]):.3f} -> {np.mean([g.joined for g in gains]):.3f}"
    if len(values) < 2:
        return means
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return (
        f"{means}, {values.mean():+.3f} [{values.mean() - half:+.3f}, {values.mean() + half:+.3f}], {len(values)} seeds"
    )


if __name__ == "__main__":
    main()
