"""The methods of a Cox regression in sentences, true of the run."""

from stsmm_core.cohort.dictionary import ENDPOINTS
from stsmm_core.report.cox import CoxRecord
from stsmm_core.report.prose import scheme
from stsmm_core.report.results import Results


def methods(results: Results, cox: CoxRecord) -> tuple[str, ...]:
    """Model, how it was fitted over the sites, and how it was tested."""
    return (_model(results), _fitting(results, cox), _testing(results))


def _model(results: Results) -> str:
    settings = results.experiment.cox
    strata = (
        "stratified by site: patients are compared within a site, and each site has a baseline hazard of its own"
        if settings.stratified
        else "of all patients, whatever their site, with one baseline hazard"
    )
    ridge = (
        f"a ridge penalty of {settings.ridge:g} / 2 times the sum of the squared coefficients of standardised columns; "
        "the intervals come from the curvature of the penalised likelihood, which takes the penalty for knowledge, and "
        "are narrower than those of an unpenalised fit"
        if settings.ridge > 0
        else "no penalty"
    )
    return (
        f"The model is a Cox regression on the clinical variables, {strata}, with {settings.ties.capitalize()}'s "
        f"treatment of ties and {ridge}. A number enters by its standardised value, missing ones as the mean with an "
        "indicator beside it; of a category the most common level is the reference, and missing is a level."
    )


def _fitting(results: Results, cox: CoxRecord) -> str:
    if results.metrics.mode == "centralised":
        return "The patients of all sites lay in one place."
    rounds = max(model.rounds for model in cox.endpoints.values())
    what = "their own log likelihood with its derivatives" if results.experiment.cox.stratified else "risk-set sums"
    moved = max(model.largest_move_days for model in cox.endpoints.values())
    exact = (
        "The result is that of the pooled patients, exactly."
        if moved == 0
        else f"Sites moved times by up to {moved:.0f} days, so that as many patients leave together as they must "
        "before a site tells of them; the result is that of pooled patients with these times."
    )
    return (
        f"The coefficients were found by Newton's method in at most {rounds} rounds, in each of which the "
        f"{len(results.metrics.tested_sites)} sites sent {what}, no patient record. {exact}"
    )


def _testing(results: Results) -> str:
    names = " and ".join(ENDPOINTS[endpoint] for endpoint in results.endpoints)
    return (
        f"Patients were divided within each site: {scheme(results.experiment)}, seed {results.experiment.seed}; "
        "training and validation patients were fitted together, as nothing is selected. The C-index is that of the "
        "patients tested by models that had not seen them, pairs compared within a site only; the table of hazard "
        f"ratios is of a final model for {names} fitted to all patients, which no patient is left to test."
    )
