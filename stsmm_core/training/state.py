"""What a site keeps between rounds: optimiser state, outputs at checkpoints, its own weights, test risks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from stsmm_core.cohort.dictionary import PATIENT_ID
from stsmm_core.files import write_atomically

KEPT = 3
"""Rounds kept: the server may have to repeat its last two rounds after a crash, from the state before them."""


@dataclass(frozen=True)
class SiteState:
    """A folder that never leaves the site; `fold` numbers the model being trained."""

    folder: Path
    fold: int

    def save_optimizer(self, round_number: int, state: dict[str, Any]) -> None:
        """Keep the optimiser's state after a round."""
        write_atomically(self._file("optimizer", round_number), lambda path: torch.save(state, path))
        self._forget("optimizer", round_number)

    def load_optimizer(self, round_number: int) -> dict[str, Any] | None:
        """The optimiser's state after a round, or None if this site did not train in it."""
        path = self._file("optimizer", round_number)
        return torch.load(path, weights_only=True) if path.exists() else None

    def save_outputs(self, round_number: int, train: NDArray[Any], validation: NDArray[Any]) -> None:
        """Keep the network's outputs at a blending checkpoint."""
        tensors = {"train": torch.from_numpy(train), "validation": torch.from_numpy(validation)}
        write_atomically(self._file("outputs", round_number), lambda path: torch.save(tensors, path))
        self._forget("outputs", round_number)

    def load_outputs(self, round_number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Training and validation outputs at a checkpoint, or None if this site did not see it."""
        path = self._file("outputs", round_number)
        if not path.exists():
            return None
        tensors = torch.load(path, weights_only=True)
        return tensors["train"].numpy(), tensors["validation"].numpy()

    def keep(self, kind: str, round_number: int, content: Any, *, every_round: bool = False) -> None:
        """Keep what the site made in a round: tensors and plain values; of every round, or the newest ones."""
        write_atomically(self._file(kind, round_number), lambda path: torch.save(content, path))
        self._forget(kind, round_number, kept=None if every_round else KEPT)

    def latest(self, kind: str, last_round: int) -> Any | None:
        """What the site kept in the last round of that kind up to `last_round`, or None if there was none."""
        files = [file for file in self._files(kind) if _round_of(file) <= last_round]
        return torch.load(files[-1], weights_only=True) if files else None

    def forget_but_latest(self, kind: str, last_round: int) -> None:
        """Keep of a kind only what `latest` gives."""
        wanted = [file for file in self._files(kind) if _round_of(file) <= last_round][-1:]
        for file in self._files(kind):
            if file not in wanted:
                file.unlink(missing_ok=True)

    def _file(self, kind: str, round_number: int) -> Path:
        return self.folder / f"fold-{self.fold}" / f"{kind}-{round_number:05d}.pt"

    def _files(self, kind: str) -> list[Path]:
        return sorted((self.folder / f"fold-{self.fold}").glob(f"{kind}-*.pt"))

    def _forget(self, kind: str, round_number: int, kept: int | None = KEPT) -> None:
        """Keep the newest `kept` files (all if None), and nothing of rounds that a resumed run does again."""
        files = self._files(kind)
        older = [file for file in files if _round_of(file) <= round_number]
        too_old = older[:-kept] if kept else []
        for file in [*too_old, *(file for file in files if _round_of(file) > round_number)]:
            file.unlink(missing_ok=True)


def _round_of(file: Path) -> int:
    match = re.search(r"-(\d+)\.pt$", file.name)
    assert match is not None
    return int(match.group(1))


def save_predictions(
    folder: Path,
    fold: int,
    outputs: NDArray[np.float64],
    *,
    patients: Sequence[str],
    heads: Sequence[str],
    endpoints: Sequence[str],
) -> None:
    """Keep the risks of test patients, shape (heads, patients, endpoints), in the site's folder."""
    rows = [
        {PATIENT_ID: patient, "head": head, **dict(zip(endpoints, outputs[k, i], strict=True))}
        for k, head in enumerate(heads)
        for i, patient in enumerate(patients)
    ]
    table = pd.DataFrame(rows, columns=[PATIENT_ID, "head", *endpoints])
    write_atomically(folder / f"predictions-{fold}.csv", lambda path: table.to_csv(path, index=False))


def load_predictions(
    folder: Path, folds: int, *, patients: Sequence[str], heads: Sequence[str], endpoints: Sequence[str]
) -> NDArray[np.float64]:
    """Risks of all tested patients, averaged over repeats; NaN where a patient was not tested by a head.

    Returns:
        Shape (heads, patients, endpoints).
    """
    tables = [
        pd.read_csv(
            folder / f"predictions-{fold}.csv",
            dtype={PATIENT_ID: str},
            float_precision="round_trip",
            keep_default_na=False,  # a patient may be called NA
            na_values={endpoint: [""] for endpoint in endpoints},
        )
        for fold in range(folds)
    ]
    everyone = pd.concat(tables).astype(dict.fromkeys(endpoints, float))  # a table without a patient has no type
    mean = everyone.groupby(["head", PATIENT_ID])[list(endpoints)].mean()
    return np.stack([mean.reindex([(head, patient) for patient in patients]).to_numpy() for head in heads])
