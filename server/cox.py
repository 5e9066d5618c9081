"""An exact Cox regression over Flower nodes: questions as messages, sums of the answers."""

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import Any, TypeVar

from flwr.app import MetricRecord

from server.consortium import FlowerConsortium
from stsmm_core.cohort.clinical import ClinicalEncoding
from stsmm_core.config import Experiment
from stsmm_core.errors import RunError
from stsmm_core.protocol import FOLD, cox, read_count
from stsmm_core.survival.baseline import BaselineHazard
from stsmm_core.survival.risk_set_sums import Floats, PartialLikelihood, RiskSetSums
from stsmm_core.training.cox import ColumnAnswer, SitesChanged
from stsmm_core.training.cox_site import CoxTerm

Reading = TypeVar("Reading")


class FlowerCox:
    """The sites of a consortium in a Cox regression (`training.cox.CoxSites`).

    The likelihood needs the same sites in every round of a fit: one that stops answering leaves the fold, and the fit
    begins again.
    """

    def __init__(self, consortium: FlowerConsortium, experiment: Experiment) -> None:
        self._consortium = consortium
        self._experiment = experiment
        self._members: frozenset[str] = frozenset()

    def begin_fold(self, fold: int) -> ClinicalEncoding:
        """Ask every node who it is, and fit the encoding to the sum of what they say."""
        return self._consortium.begin_fold(fold, None)

    def columns(self, fold: int, endpoint: int) -> ColumnAnswer:
        """Who answers is a member of the fit.

        Raises:
            RunError: when fewer sites than `federation.min_sites` do.
        """
        answers = self._consortium.ask(
            cox.COX_COLUMNS_ACTION,
            f"columns of {self._name(endpoint)}",
            self._question(fold, endpoint),
            lambda numbers, most: cox.columns_from_numbers(numbers, self._experiment, most=most),
        )
        if len(answers) < self._experiment.federation.min_sites:
            raise RunError(
                f"{len(answers)} sites can take part, federation.min_sites asks for "
                f"{self._experiment.federation.min_sites}; audit.jsonl says why the others cannot"
            )
        self._members = frozenset(answers)
        return reduce(add, answers.values())

    def sums(self, fold: int, endpoint: int, term: CoxTerm, times: Floats) -> RiskSetSums:
        """Risk-set sums of all members."""
        shape = {"times": len(times), "columns": len(term.design.columns)}
        question = self._question(fold, endpoint, term) | cox.times_to_numbers(times)
        answers = self._of_members(
            cox.COX_SUMS_ACTION,
            endpoint,
            question,
            lambda numbers, most: cox.sums_from_numbers(numbers, self._experiment, most=most, **shape),
        )
        return reduce(add, answers.values())

    def likelihood(self, fold: int, endpoint: int, term: CoxTerm) -> PartialLikelihood:
        """The sum of the members' own partial likelihoods."""
        answers = self._of_members(
            cox.COX_LIKELIHOOD_ACTION,
            endpoint,
            self._question(fold, endpoint, term),
            lambda numbers, _: cox.likelihood_from_numbers(numbers, columns=len(term.design.columns)),
        )
        return reduce(add, answers.values())

    def baselines(self, fold: int, endpoint: int, term: CoxTerm) -> Mapping[str, BaselineHazard]:
        """Each member's own baseline hazard."""
        question = self._question(fold, endpoint, term)
        return self._of_members(
            cox.COX_BASELINE_ACTION,
            endpoint,
            question,
            lambda numbers, most: cox.baseline_from_numbers(numbers, most=most),
        )

    def keep_risks(self, fold: int, terms: Mapping[str, CoxTerm]) -> None:
        """Let every site of the fold keep the risks of its test patients, whether it could be fitted to or not."""
        numbers: dict[str, Any] = {FOLD: fold}
        for endpoint, term in terms.items():
            numbers |= cox.term_to_numbers(term, endpoint)
        self._consortium.ask(cox.COX_RISKS_ACTION, "predict", numbers, _count)

    def _of_members(
        self, action: str, endpoint: int, question: Mapping[str, Any], read: Callable[[MetricRecord, int], Reading]
    ) -> dict[str, Reading]:
        stage = f"fit of {self._name(endpoint)}"
        answers = self._consortium.ask(action, stage, question, read, sites=self._members)
        lost = sorted(self._members - set(answers))
        if lost:
            self._consortium.leave_out(lost, "it stopped answering while a Cox model was fitted, which began again")
            raise SitesChanged(f"{', '.join(lost)} stopped answering")
        return answers

    def _question(self, fold: int, endpoint: int, term: CoxTerm | None = None) -> dict[str, Any]:
        question = {FOLD: fold, cox.ENDPOINT: endpoint}
        return question if term is None else question | cox.term_to_numbers(term, self._name(endpoint))

    def _name(self, endpoint: int) -> str:
        return self._experiment.data.endpoints[endpoint]


def _count(numbers: MetricRecord, most: int) -> int:
    return read_count(numbers, "patients", most=most)
