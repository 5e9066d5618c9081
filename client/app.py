"""The Flower ClientApp: routes the server's messages to the site's answers. Wiring only."""

import os
from collections.abc import Callable
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import answers, cox, evaluation
from client.site import PolicyError, RiskSetsNotSharedError, Site
from client.work import open_site, site_log
from stsmm_core import protocol
from stsmm_core.errors import CohortError, ConfigError, RunError
from stsmm_core.protocol import refusals
from stsmm_core.protocol.cox import (
    COX_BASELINE_ACTION,
    COX_COLUMNS_ACTION,
    COX_LIKELIHOOD_ACTION,
    COX_RISKS_ACTION,
    COX_SUMS_ACTION,
)
from stsmm_core.protocol.time_counts import TIME_COUNTS_ACTION
from stsmm_core.training.centre import Centre

_SAFE_SENTENCES: tuple[tuple[type[Exception], str], ...] = (
    (CohortError, refusals.COHORT),
    (ConfigError, refusals.SETTINGS),
    (RiskSetsNotSharedError, refusals.NO_RISK_SETS),
    (PolicyError, refusals.SMALL_SET),
    (RunError, refusals.CANNOT),
    (protocol.ProtocolError, refusals.LAYOUT),
)

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Before a fold: who the site is and its sums for the encoding."""
    return _answer(message, context, lambda site, centre: answers.describe(message.content, site, centre))


@app.train()
def train(message: Message, context: Context) -> Message:
    """A round of training."""
    return _answer(message, context, lambda _, centre: answers.train(message.content, centre))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss sums after a round."""
    return _answer(message, context, lambda _, centre: answers.evaluate(message.content, centre))


@app.evaluate(protocol.PREDICT_ACTION)
def predict(message: Message, context: Context) -> Message:
    """After a fold: predict the test patients."""
    return _answer(message, context, lambda _, centre: answers.predict(message.content, centre))


@app.evaluate(protocol.PAIRS_ACTION)
def count_pairs(message: Message, context: Context) -> Message:
    """At the end: concordance counts."""
    return _answer(message, context, answers.count_pairs)


@app.evaluate(TIME_COUNTS_ACTION)
def count_times(message: Message, context: Context) -> Message:
    """At the end: counts for the survival curves."""
    return _answer(message, context, answers.count_times)


@app.evaluate(COX_COLUMNS_ACTION)
def cox_columns(message: Message, context: Context) -> Message:
    """Before a Cox regression: sums of the columns and event times."""
    return _answer(message, context, lambda site, centre: cox.columns(message.content, site, centre))


@app.evaluate(COX_SUMS_ACTION)
def cox_sums(message: Message, context: Context) -> Message:
    """A step of a Cox regression: risk-set sums."""
    return _answer(message, context, lambda site, centre: cox.sums(message.content, site, centre))


@app.evaluate(COX_LIKELIHOOD_ACTION)
def cox_likelihood(message: Message, context: Context) -> Message:
    """A step of a Cox regression stratified by site: the site's own likelihood."""
    return _answer(message, context, lambda site, centre: cox.likelihood(message.content, site, centre))


@app.evaluate(COX_BASELINE_ACTION)
def cox_baseline(message: Message, context: Context) -> Message:
    """After a Cox regression stratified by site: the site's own baseline hazard."""
    return _answer(message, context, lambda site, centre: cox.baseline(message.content, site, centre))


@app.evaluate(COX_RISKS_ACTION)
def cox_risks(message: Message, context: Context) -> Message:
    """After a Cox regression: predict the test patients."""
    return _answer(message, context, lambda _, centre: cox.risks(message.content, centre))


@app.evaluate(protocol.SCALE_ACTION)
def tell_scale(message: Message, context: Context) -> Message:
    """At the end: sums of the outputs, for a reference that all sites share."""
    return _answer(message, context, evaluation.tell_scale)


@app.evaluate(protocol.DEVELOPMENT_ACTION)
def tell_development(message: Message, context: Context) -> Message:
    """At the end: development patients by time, for baseline hazard and censoring curve."""
    return _answer(message, context, lambda site, centre: evaluation.tell_development(message.content, site, centre))


@app.evaluate(protocol.TEST_ACTION)
def tell_test(message: Message, context: Context) -> Message:
    """At the end: what the figures over all sites are made of."""
    return _answer(message, context, lambda site, centre: evaluation.tell_test(message.content, site, centre))


def _answer(message: Message, context: Context, answer: Callable[[Site, Centre], RecordDict]) -> Message:
    """Answer, or refuse with a sentence that carries nothing of the site; the reason stays in the site's log."""
    try:
        site_file = _site_file(context)
        try:
            experiment, run = (str(context.run_config[key]) for key in (protocol.EXPERIMENT, protocol.RUN))
            content = answer(*open_site(site_file, experiment, run))
        except Exception as error:
            # Every error ends here: Flower would send its text, which may name a patient or a path, to the server.
            known = next((said for kind, said in _SAFE_SENTENCES if isinstance(error, kind)), None)
            content = _refusal(known or refusals.UNEXPECTED)
            site_log(site_file).error("refused: %s", error, exc_info=known is None)
    except Exception:
        # Not even the log could be written. The text of the error may name a patient or a path: it stays here.
        content = _refusal(refusals.UNEXPECTED)
    return Message(content=content, reply_to=message)


def _refusal(sentence: str) -> RecordDict:
    return RecordDict({protocol.REFUSAL: ConfigRecord({"reason": sentence})})


def _site_file(context: Context) -> Path:
    """A hospital's node names its file in its own configuration; a virtual one has a number."""
    if "site-file" in context.node_config:
        return Path(str(context.node_config["site-file"]))
    return Path(os.environ[protocol.SITES_VARIABLE]) / f"{context.node_config['partition-id']}.toml"
