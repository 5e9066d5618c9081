"""What every run folder of these tests holds: versions and a history of training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

VERSIONS = {"stsmm": "0.1.0", "torch": "2.6.0", "numpy": "2.1.3"}


def write_history(
    run: Path, heads: Sequence[str], first_updates: Sequence[int | None], rounds: int = 20, interval: int = 2
) -> None:
    """Losses that fall and then rise, and weights that stay equal until the first update of their fold."""
    rng = np.random.default_rng(5)
    lines = ["fold,round,head,train_loss,validation_loss,weight"]
    uniform = np.full(len(heads), 1 / len(heads))
    for fold, first in enumerate(first_updates):
        weights = uniform
        for number in range(rounds + 1):
            if first is not None and number >= first and number % interval == 0:
                weights = 0.5 * weights + 0.5 * rng.dirichlet(np.full(len(heads), 4.0))
            for place, head in enumerate(heads):
                train = f"{7.2 - 0.06 * number + 0.1 * place:.6f}" if number % interval == 0 else ""
                noise = 0.04 * rng.normal()
                validation = 4.4 - 0.08 * number + 0.005 * number**2 + 0.1 * place + noise + 0.05 * fold
                lines.append(f"{fold},{number},{head},{train},{validation:.6f},{weights[place]:.8f}")
    (run / "history.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
