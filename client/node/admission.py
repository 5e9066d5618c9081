"""Whether a run may work here: its code and its configuration against what the site decided."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from flwr.common.config import get_fab_config, get_fused_config_from_fab, get_metadata_from_config
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run

from client.node.ledger import Ledger
from client.node.reviewers import read_reviewers, signing_sites
from client.node.settings import Policy
from stsmm_core import protocol
from stsmm_core.config import Experiment, parse_experiment
from stsmm_core.errors import ConfigError, StsmmError
from stsmm_core.protocol import refusals

CLIENT_APP = "client.app:app"


class NotAdmittedError(StsmmError):
    """The site does not take part; the message is one of the fixed sentences, which both ends read."""


@dataclass(frozen=True, eq=False)
class Admitted:
    """A run that may work here.

    Attributes:
        name: of the run: what rounds are counted under.
        code, config: sha256 of the app and of the experiment's text.
    """

    experiment: Experiment
    name: str
    code: str
    config: str


def admit(run: Run, fab: Fab, *, kit: Path, ledger: Ledger, policy: Policy) -> Admitted:
    """Judge a run; approvals and keys are read anew each time, so that taking one back works at once.

    Raises:
        NotAdmittedError: with the sentence for both ends.
    """
    code = hashlib.sha256(fab.content).hexdigest()
    _check_code(run, fab, code, kit, ledger, policy.required_signatures)
    config = get_fused_config_from_fab(fab.content, run)
    text, name = config.get(protocol.EXPERIMENT), config.get(protocol.RUN)
    try:
        if not isinstance(text, str) or not isinstance(name, str):
            raise ConfigError("no experiment")
        if not protocol.run_name(name):
            raise ConfigError("no name")  # a simulation's; here it would mix the states of all runs without one
        experiment = parse_experiment(text, source="the run's experiment")
    except (ConfigError, protocol.ProtocolError):
        raise NotAdmittedError(refusals.BAD_CONFIGURATION) from None
    if experiment.model.kind not in policy.models:
        raise NotAdmittedError(refusals.OTHER_MODEL)
    if not set(experiment.data.endpoints) <= set(policy.endpoints):
        raise NotAdmittedError(refusals.OTHER_ENDPOINT)
    if policy.require_secure_aggregation:
        raise NotAdmittedError(refusals.SECURE_AGGREGATION)
    config_sha256 = hashlib.sha256(text.encode()).hexdigest()
    if ledger.other_configuration(name, config_sha256):
        raise NotAdmittedError(refusals.OTHER_RUN)  # the site's state of the earlier run would mix with this one's
    return Admitted(experiment, name, code, config_sha256)


def _check_code(run: Run, fab: Fab, code: str, kit: Path, ledger: Ledger, required: int) -> None:
    if ledger.is_revoked(code):
        raise NotAdmittedError(refusals.NOT_APPROVED)
    if run.primary_task_type not in ("", TaskType.SERVER_APP):
        raise NotAdmittedError(refusals.OTHER_TASK)
    if required and len(signing_sites(bytes.fromhex(code), fab.verifications, read_reviewers(kit))) < required:
        raise NotAdmittedError(refusals.NOT_SIGNED)
    if not required and not ledger.is_approved(code):
        raise NotAdmittedError(refusals.NOT_APPROVED)
    # The app is loaded from a folder that these name: they must be those of the code that was judged.
    parsed = get_fab_config(fab.content)
    if not code == fab.hash_str == run.fab_hash or get_metadata_from_config(parsed) != (run.fab_id, run.fab_version):
        raise NotAdmittedError(refusals.OTHER_CODE)
    if parsed["tool"]["flwr"]["app"]["components"].get("clientapp") != CLIENT_APP:
        raise NotAdmittedError(refusals.OTHER_CODE)
