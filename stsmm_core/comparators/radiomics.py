"""Which radiomics the comparators of a fold may see."""

import numpy as np
import pandas as pd

from stsmm_core.comparators.study import Study
from stsmm_core.errors import CohortError
from stsmm_core.imaging.radiomics import reproducible_features


def agreed_features(study: Study, first: pd.DataFrame, second: pd.DataFrame, minimum: float) -> list[pd.DataFrame]:
    """The first reader's features that both readers agree on, a table a fold.

    Agreement is looked at in the fold's development patients alone.

    Args:
        first, second: features of two readers' outlines, indexed like the study's clinical table; the first has every
            patient with images.
        minimum: least ICC(A,1) of a feature.

    Raises:
        CohortError: when the readers have no patient in common.
    """
    if second.index.intersection(first.index).empty:
        raise CohortError(
            "second reader: none of its patients is in the cohorts; site and patient_id must be the same in both"
        )
    tables = []
    for fold in study.folds:
        development = study.data.clinical.index[np.concatenate([fold.train, fold.validation])]
        own, other = (table.loc[table.index.intersection(development)] for table in (first, second))
        tables.append(first[reproducible_features(own, other, minimum)])
    return tables
