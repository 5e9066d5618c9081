"""Each model of a comparison on the test patients of every site."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from stsmm_core.run_folder import CHECKPOINTS_FOLDER, SITES_FOLDER
from stsmm_core.survival.concordance import PairCounts
from stsmm_core.training.centre import Centre
from stsmm_core.training.experiment import load_progress

Chosen = Literal["selected", "final"]
"""Weights of the round with the least validation loss, or of the last round."""
Tests = dict[str, list[PairCounts]]
"""By site: of the fusion head, an endpoint each."""


def seen_without_images(centres: Sequence[Centre]) -> list[Centre]:
    """The centres, tested on patients of whom a clinical variable is known: a network without images sees no others.

    Models are compared on the same patients, so that where one has no images the others are tested on these too.
    """
    variables = centres[0].experiment.data.variables
    return [replace(centre, data=centre.data.tested_on(centre.data.has_clinical(variables))) for centre in centres]


def count_everywhere(centres: Sequence[Centre], run: Path, chosen: Chosen, store: Path) -> Tests:
    """Test a run's weights at every centre, also at those that it never saw.

    Args:
        store: where predictions are kept by centre (they name patients); what is there is not made again.
    """
    _predict(centres, run, chosen, store)
    return {centre.site: replace(centre, folder=store / centre.site).count_pairs()[0] for centre in centres}


def count_by_sites(centres: Sequence[Centre], run: Path) -> Tests:
    """What the sites of a federation predicted themselves, with layers of their own where they keep any."""
    return {
        centre.site: replace(centre, folder=run / SITES_FOLDER / centre.site).count_pairs()[0] for centre in centres
    }


def _predict(centres: Sequence[Centre], run: Path, chosen: Chosen, store: Path) -> None:
    channels = max(centre.data.channels for centre in centres)
    for fold in range(centres[0].experiment.evaluation.runs):
        todo = [centre for centre in centres if not (store / centre.site / f"predictions-{fold}.csv").exists()]
        if not todo:
            continue
        progress = load_progress(run / CHECKPOINTS_FOLDER / f"fold-{fold}.pt")
        weights = progress.selected if chosen == "selected" else progress.weights
        for centre in todo:
            trainer = centre.trainer(fold, progress.encoding, channels=channels)
            replace(centre, folder=store / centre.site).keep_predictions(fold, trainer, weights)
