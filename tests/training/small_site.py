"""A site of thirty made-up patients, and a trainer for it."""

import numpy as np
import pandas as pd
import torch

from stsmm_core.cohort.clinical import fit_encoding, summarise
from stsmm_core.cohort.cohort import Outcomes
from stsmm_core.cohort.dictionary import PAPER_VARIABLES, VARIABLES, Number
from stsmm_core.cohort.splits import Fold
from stsmm_core.config import parse_experiment
from stsmm_core.training.site_data import SiteData
from stsmm_core.training.state import SiteState
from stsmm_core.training.trainer import Trainer

PATIENTS = 30


def make_data(seed=0):
    rng = np.random.default_rng(seed)
    clinical = pd.DataFrame(
        {
            key: rng.uniform(variable.low, variable.high, PATIENTS)
            if isinstance(variable, Number)
            else rng.choice(np.array(variable.levels, dtype=object), PATIENTS)
            for key, variable in VARIABLES.items()
        }
    )
    time = rng.integers(1, 15, (PATIENTS, 2)).astype(float)
    event = rng.integers(0, 2, (PATIENTS, 2)).astype(float)
    time[3, 1] = event[3, 1] = np.nan
    images = torch.from_numpy(rng.normal(size=(PATIENTS, 2, 16, 16, 16)).astype(np.float32))
    has_image = np.arange(PATIENTS) % 5 != 2
    images[~has_image] = 0
    return SiteData("a", tuple(map(str, range(PATIENTS))), clinical, Outcomes(time, event), images, has_image)


def make_trainer(folder, data=None, *, modality_dropout=0.0, **training):
    data = data or make_data()
    given = {"epochs": 2, "batch_size": 8, "risk_window": 30} | training
    experiment = parse_experiment(
        "imaging.shape = [16, 16, 16]\nmodel.image_encoder = 'small_densenet'\n"
        + f"model.modality_dropout = {modality_dropout}\n"
        + f"blending.interval = {given.get('local_epochs', 1)}\n"
        + "\n".join(f"training.{key} = {value!r}" for key, value in given.items()),
        source="test",
    )
    encoding = fit_encoding(summarise(data.clinical, PAPER_VARIABLES), PAPER_VARIABLES)
    fold = Fold(np.arange(20), np.arange(20, 26), np.arange(26, PATIENTS))
    return Trainer(experiment, data, fold, encoding, channels=2, state=SiteState(folder, 0))
