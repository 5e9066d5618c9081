"""Which settings earn their place? Federated and centralised trainings of one consortium, over seeds, paired.

    python benchmarks/settings.py OUT --config configs/five_hospitals.toml --seed 0 --seed 1 --seed 2 \\
        --federated 'blending.method = "robust"' --federated 'blending.method = "softmax"' \\
        --centralised 'training.learning_rate = 0.003'

Each seed draws other synthetic patients, another split and other first weights; all settings of a seed share them. A
setting is TOML on top of the file (several lines: separated by ';'); '' is the file as it is. The first is the one that
the others are subtracted from, with a t interval over the seeds. What is finished is not done again.
"""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import tomli_w
from over_seeds import mean_with_interval
from rich.console import Console

from simulation.tested import Tests, count_by_sites, count_everywhere
from simulation.trainings import open_centres, train_federated, train_pooled
from stsmm_core.cohort.synthetic import write_synthetic_cohorts
from stsmm_core.config import Experiment, parse_experiment
from stsmm_core.errors import RunError
from stsmm_core.run_folder import CHECKPOINTS_FOLDER
from stsmm_core.survival.concordance import total
from stsmm_core.training.experiment import load_progress
from stsmm_core.training.inputs import open_cohorts

Mode = Literal["federated", "centralised"]


@dataclass(frozen=True)
class Setting:
    """One arm: how it trains, and what it changes in the file."""

    mode: Mode
    changes: str

    @property
    def label(self) -> str:
        """For the table."""
        return f"{self.mode} {self.changes}".strip()

    def experiment(self, file: Path, seed: int) -> Experiment:
        """The experiment of a seed."""
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
        changes = tomllib.loads(self.changes.replace(";", "\n"))
        return parse_experiment(tomli_w.dumps(_merged(tree, changes) | {"seed": seed}), source=f"{file}: {self.label}")


def main() -> None:
    """Train every setting on every seed, then compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--seed", type=int, action="append", required=True)
    for mode in get_args(Mode):
        parser.add_argument(f"--{mode}", dest="settings", action="append", type=partial(Setting, mode), metavar="TOML")
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--shift", type=float, default=3.0)
    given = parser.parse_args()
    if not given.settings:
        parser.error("name at least one --federated or --centralised setting")
    console = Console(width=200)
    rows = []
    for seed in given.seed:
        folder = given.out / f"seed-{seed}"
        if not (folder / "cohorts").exists():
            write_synthetic_cohorts(
                folder / "cohorts", sites=given.sites, patients=given.patients, seed=seed, shift=given.shift
            )
        for setting in given.settings:
            found = _measure(console, setting, setting.experiment(given.config, seed), folder)
            rows += [{"seed": seed, "setting": setting.label} | row for row in found]
            for row in found:
                console.print(f"seed {seed}, {setting.label}: {row}", highlight=False)
    results = pd.DataFrame(rows)
    results.to_csv(given.out / "settings.csv", index=False)
    for line in _compare(results, [setting.label for setting in given.settings]):
        console.print(line, highlight=False)


def _merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    sections = {key: _merged(tree.get(key, {}), value) for key, value in changes.items() if isinstance(value, Mapping)}
    return {**tree, **changes, **sections}


def _measure(console: Console, setting: Setting, experiment: Experiment, folder: Path) -> list[dict[str, Any]]:
    """Harrell's C within sites of one training, an endpoint each, by the selected round and by the last."""
    cohorts = open_cohorts(sorted((folder / "cohorts").iterdir()))
    run = folder / sha256(setting.label.encode()).hexdigest()[:12]
    centres = open_centres(console, experiment, cohorts, run, cache=folder / "cache")
    if setting.mode == "federated":
        train_federated(console, experiment, cohorts, None, run, cache=folder / "cache")
    elif reason := train_pooled(console, centres, run, name="all centres"):
        raise RunError(reason)
    selected = _concordance(count_by_sites(centres, run))
    last = (
        [float("nan")] * len(selected)  # the last round's layers of a site are not kept
        if experiment.federation.keeps_layers_at_sites
        else _concordance(count_everywhere(centres, run, "final", run / "last_round"))
    )
    progress = load_progress(run / CHECKPOINTS_FOLDER / "fold-0.pt")
    return [
        {"endpoint": endpoint, "selected": chosen, "last": final, "selected_round": progress.selected_round}
        | {"first_blending_round": progress.first_blending_round}
        for endpoint, chosen, final in zip(experiment.data.endpoints, selected, last, strict=True)
    ]


def _concordance(tests: Tests) -> list[float]:
    counts = [total(list(each)) for each in zip(*tests.values(), strict=True)]
    return [each.concordant / each.comparable for each in counts]


def _compare(results: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    lines = []
    for endpoint, rows in results.groupby("endpoint", sort=False):
        by_seed = {word: rows.pivot(index="seed", columns="setting", values=word) for word in ("selected", "last")}
        chosen = by_seed["selected"]
        for label in labels:
            share = (chosen[labels[0]].mean() - 0.5) / (chosen[label].mean() - 0.5)
            lines.append(
                f"{endpoint}  {chosen[label].mean():.3f}  last {by_seed['last'][label].mean():.3f}  "
                f"first minus this {mean_with_interval((chosen[labels[0]] - chosen[label]).tolist())}  "
                f"first as a share of its gain {share:.0%}  {label}"
            )
    return lines


if __name__ == "__main__":
    main()
