"""What a site answers in an exact Cox regression: records in, records out."""

from typing import Any, cast

from flwr.app import MetricRecord, RecordDict

from client.site import PolicyError, RiskSetsNotSharedError, Site
from stsmm_core import protocol
from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.cohort.covariates import ColumnSums, sum_columns
from stsmm_core.protocol import cox
from stsmm_core.protocol.rounds import encoding_from_numbers
from stsmm_core.training.centre import Centre
from stsmm_core.training.cox import ColumnAnswer
from stsmm_core.training.cox_site import (
    CoxPatients,
    CoxTerm,
    cox_patients,
    development_rows,
    keep_risks,
    own_baseline,
    own_likelihood,
    risk_set_sums,
)


def columns(content: RecordDict, site: Site, centre: Centre) -> RecordDict:
    """Sums of the columns and the distinct event times, moved to be shareable."""
    _check_risk_sets(site, centre)
    patients = _patients(content, site, centre)
    return _reply(
        cox.columns_to_numbers(
            ColumnAnswer(
                _column_sums(patients, site, centre),
                int(patients.event.sum()),
                patients.event_times,
                patients.largest_move_days,
            )
        )
    )


def sums(content: RecordDict, site: Site, centre: Centre) -> RecordDict:
    """Risk-set sums at the server's coefficients and event times."""
    _check_risk_sets(site, centre)
    patients, term = _question(content, site, centre)
    times = cox.times_from_numbers(_config(content))
    return _reply(
        cox.sums_to_numbers(risk_set_sums(patients, term, times, ties=centre.experiment.cox.ties), centre.experiment)
    )


def likelihood(content: RecordDict, site: Site, centre: Centre) -> RecordDict:
    """This site's own partial likelihood, for a model stratified by site."""
    patients, term = _question(content, site, centre)
    return _reply(cox.likelihood_to_numbers(own_likelihood(patients, term, ties=centre.experiment.cox.ties)))


def baseline(content: RecordDict, site: Site, centre: Centre) -> RecordDict:
    """This site's own baseline hazard, for a model stratified by site."""
    patients, term = _question(content, site, centre)
    return _reply(cox.baseline_to_numbers(own_baseline(patients, term, ties=centre.experiment.cox.ties)))


def risks(content: RecordDict, centre: Centre) -> RecordDict:
    """Keep the risks of this site's test patients at the site; only how many there are goes back."""
    terms: dict[str, CoxTerm] = {
        endpoint: cox.term_from_numbers(_config(content), endpoint, centre.experiment)
        for endpoint in centre.experiment.data.endpoints
    }
    fold = _number(content, protocol.FOLD)
    return _reply({"patients": keep_risks(centre, fold, _encoding(content, centre), terms)})


def _question(content: RecordDict, site: Site, centre: Centre) -> tuple[CoxPatients, CoxTerm]:
    patients = _patients(content, site, centre)
    endpoint = centre.experiment.data.endpoints[_number(content, cox.ENDPOINT)]
    term = cox.term_from_numbers(_config(content), endpoint, centre.experiment)
    if _column_sums(patients, site, centre).withheld[list(term.design.columns)].any():
        raise PolicyError("the server asks for sums of a column that this site withholds")
    return patients, term


def _patients(content: RecordDict, site: Site, centre: Centre) -> CoxPatients:
    """The patients of the question, if every sum over them, and what it leaves out, is over enough of them.

    Raises:
        PolicyError: when it is not.
    """
    fold, endpoint = _number(content, protocol.FOLD), _number(content, cox.ENDPOINT)
    _check_cells(site, centre, fold, endpoint)
    patients = cox_patients(centre, fold, _encoding(content, centre), endpoint, minimum=site.min_cell_size)
    if centre.experiment.cox.ties == "efron":
        tied = [int(patients.event[patients.time == time].sum()) for time in patients.event_times]
        if any(count < site.min_cell_size for count in tied):
            raise PolicyError(
                "Efron's ties need sums over the patients whose events fall on one time, and a time has fewer than "
                f"min_cell_size = {site.min_cell_size} of them; cox.ties = 'breslow' needs no such sums"
            )
    return patients


def _check_risk_sets(site: Site, centre: Centre) -> None:
    """Risk-set sums of a fold and of all patients differ by rows of single patients, whatever the minimum.

    Raises:
        RiskSetsNotSharedError: when an unstratified fit would need them of a site that does not give them.
    """
    if not centre.experiment.cox.stratified and site.min_cell_size > 1 and not site.share_risk_sets:
        raise RiskSetsNotSharedError(
            "an unstratified Cox regression needs sums over risk sets, which tell rows of single patients "
            "(docs/wire.md); cox.stratified = true does without them, share_risk_sets = true in site.toml allows them"
        )


def _check_cells(site: Site, centre: Centre, fold: int, endpoint: int) -> None:
    event = centre.data.outcomes[development_rows(centre, fold)].event[:, endpoint]
    events, censored = int((event == 1).sum()), int((event == 0).sum())
    if any(0 < count < site.min_cell_size for count in (events, censored)):
        raise PolicyError(
            f"{events} of this site's patients have an event of {centre.experiment.data.endpoints[endpoint]} and "
            f"{censored} have none; sums over so few (below min_cell_size = {site.min_cell_size}) would tell of them"
        )


def _column_sums(patients: CoxPatients, site: Site, centre: Centre) -> ColumnSums:
    return sum_columns(patients.candidates, centre.experiment.data.variables, minimum=site.min_cell_size)


def _encoding(content: RecordDict, centre: Centre) -> ClinicalEncoding:
    return encoding_from_numbers(_config(content), centre.experiment)


def _config(content: RecordDict) -> dict[str, Any]:
    return dict(content.config_records[protocol.CONFIG])


def _number(content: RecordDict, key: str) -> int:
    return int(cast(int, content.config_records[protocol.CONFIG][key]))


def _reply(numbers: protocol.Numbers) -> RecordDict:
    return RecordDict({protocol.METRICS: MetricRecord(numbers)})
