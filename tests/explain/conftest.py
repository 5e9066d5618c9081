import numpy as np
import pandas as pd
import pytest
import torch

from stsmm_core.cohort.clinical import fit_encoding, summarise
from stsmm_core.cohort.cohort import Outcomes
from stsmm_core.config import parse_experiment
from stsmm_core.model.mmnn import ModalityBatch, build_network
from stsmm_core.training.site_data import SiteData

PATIENTS, SIDE = 6, 32
VARIABLES = ("age", "grade", "depth")


@pytest.fixture(scope="session")
def experiment():
    return parse_experiment(
        f"""
        imaging.shape = [{SIDE}, {SIDE}, {SIDE}]
        data.variables = {list(VARIABLES)}
        model = {{ image_encoder = "small_densenet" }}
        training.batch_size = 4
        """,
        source="test",
    )


@pytest.fixture(scope="session")
def data():
    rng = np.random.default_rng(4)
    clinical = pd.DataFrame(
        {
            "age": rng.uniform(20, 90, PATIENTS),
            "grade": rng.choice(["low", "intermediate", "high"], PATIENTS),
            "depth": rng.choice(["superficial", "deep"], PATIENTS),
        }
    )
    clinical.loc[5] = np.nan
    images = torch.from_numpy(rng.normal(size=(PATIENTS, 2, SIDE, SIDE, SIDE)).astype(np.float32))
    has_image = np.array([True, True, False, True, True, True])
    outcomes = Outcomes(rng.uniform(100, 2000, (PATIENTS, 2)), rng.integers(0, 2, (PATIENTS, 2)).astype(float))
    return SiteData("a", tuple(map(str, range(PATIENTS))), clinical, outcomes, images, has_image)


@pytest.fixture(scope="session")
def encoding(data):
    return fit_encoding(summarise(data.clinical, VARIABLES), VARIABLES)


@pytest.fixture
def network(experiment, encoding):
    """Untrained, with batch statistics that are not the initial ones."""
    network = build_network(experiment, channels=2, clinical_inputs=encoding.width, fold=0)
    torch.manual_seed(5)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.3 * torch.randn_like(buffer))
    return network.eval()


@pytest.fixture
def batch(data, encoding):
    """The patients who have both modalities."""
    rows = [0, 1, 3, 4]
    everybody = torch.ones(len(rows), dtype=torch.bool)
    return {
        "image": ModalityBatch(data.images[rows], everybody),
        "clinical": ModalityBatch(torch.from_numpy(encoding.encode(data.clinical))[rows], everybody),
    }
