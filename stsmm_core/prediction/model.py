"""The networks of a finished run, put together again to predict."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.config import Experiment, read_experiment
from stsmm_core.errors import ConfigError, RunError
from stsmm_core.model.mmnn import ModalityBatch, MultimodalNetwork, build_network, set_weights
from stsmm_core.run_folder import (
    BLENDED,
    CHECKPOINTS_FOLDER,
    COMPARISON_FILE,
    CONFIG_FILE,
    METRICS_FILE,
    NETWORKS_FOLDER,
)
from stsmm_core.seeds import derive_seed
from stsmm_core.training.experiment import load_progress
from stsmm_core.training.fitted import FittedNetwork, load_fitted
from stsmm_core.training.site_data import SiteData


@dataclass(frozen=True)
class FoldModel:
    """One fold's network with what describes its fit."""

    network: MultimodalNetwork
    encoding: ClinicalEncoding
    fitted: FittedNetwork


@dataclass(frozen=True)
class RunModel:
    """All networks of a run; several where it was cross-validated."""

    experiment: Experiment
    folds: tuple[FoldModel, ...]

    @property
    def channels(self) -> tuple[str, ...]:
        """Image channels that the networks were trained on."""
        return self.folds[0].fitted.channels


def load_model(run: Path) -> RunModel:
    """The networks of a run of `stsmm train`, or the blended network of a run of `stsmm compare`.

    Raises:
        RunError: when the folder is no such run, the run has not finished, it keeps no baseline hazard, or its sites
            kept a part of the model.
    """
    folder = run / NETWORKS_FOLDER / BLENDED if (run / NETWORKS_FOLDER).is_dir() else run
    if (run / COMPARISON_FILE).is_file() and (run / "federated").is_dir():
        raise RunError(f"{run}: a comparison of stsmm simulate --compare; give one of its runs, as {run / 'federated'}")
    if not (folder / METRICS_FILE).is_file():
        raise RunError(f"{run}: no finished run of stsmm train, stsmm simulate or stsmm compare; give its --out folder")
    try:
        experiment = read_experiment(folder / CONFIG_FILE)
    except ConfigError as error:
        raise RunError(f"{error}\n  restore the file that the run wrote, or run again") from None
    if experiment.model.kind == "cox":
        raise RunError(f"{run}: a Cox regression, which has no network to predict with; its model is in cox.json")
    own = experiment.federation.keeps_layers_at_sites
    if own and json.loads((folder / METRICS_FILE).read_text(encoding="utf-8")).get("mode") == "federated":
        raise RunError(
            f"{run}: the sites kept normalisation layers or heads of their own, without which the weights in the run "
            "are no model; train without federation.local_normalisation and federation.personal_epochs to predict"
        )
    folds = []
    for fold in range(experiment.evaluation.runs):
        checkpoint = folder / CHECKPOINTS_FOLDER / f"fold-{fold}.pt"
        fitted = load_fitted(checkpoint.with_suffix(".json"))
        if not checkpoint.is_file():
            raise RunError(f"{checkpoint}: missing; restore the file that the run wrote, or run again")
        progress = load_progress(checkpoint)
        network = build_network(
            experiment, channels=len(fitted.channels), clinical_inputs=progress.encoding.width, fold=fold
        )
        set_weights(network, progress.selected)
        folds.append(FoldModel(network.eval(), progress.encoding, fitted))
    return RunModel(experiment, tuple(folds))


def modality_batch(data: SiteData, row: int, model: FoldModel, experiment: Experiment) -> dict[str, ModalityBatch]:
    """One patient as the network takes it."""
    encoded = torch.from_numpy(model.encoding.encode(data.clinical.iloc[[row]]))
    values = {"image": data.images[[row]], "clinical": encoded}
    present = {"image": data.has_image[[row]], "clinical": data.has_clinical(model.encoding.variables)[[row]]}
    return {name: ModalityBatch(values[name], torch.from_numpy(present[name])) for name in experiment.data.modalities}


@torch.no_grad()
def risk_and_features(
    model: FoldModel, batch: dict[str, ModalityBatch]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log hazards (endpoints,) of one patient relative to the training mean, and the fused features (features,)."""
    features = model.network.fused(batch)
    risk = model.network.heads["fusion"](features)[0].double().numpy() - np.array(model.fitted.reference)
    return risk, features[0].double().numpy()


@torch.no_grad()
def dropout_risks(model: FoldModel, batch: dict[str, ModalityBatch], *, draws: int, seed: int) -> NDArray[np.float64]:
    """Log hazards with dropout at work, shape (draws, endpoints) (Gal and Ghahramani, ICML 2016)."""
    dropouts = [module for module in model.network.modules() if isinstance(module, nn.Dropout | nn.Dropout3d)]
    for module in dropouts:
        module.train()
    risks = []
    for draw in range(draws):
        torch.manual_seed(derive_seed(seed, "dropout", draw))
        features = model.network.fused(batch)
        risks.append(model.network.heads["fusion"](features)[0].double().numpy())
    for module in dropouts:
        module.eval()
    return np.array(risks) - np.array(model.fitted.reference)
