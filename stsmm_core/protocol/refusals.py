"""The fixed sentences with which a site refuses: the only free text that ever leaves it."""

UNEXPECTED = "an unexpected error; the site's log holds it"
COHORT = "the site's cohort cannot be used as it is; `stsmm cohort check` at the site says why"
SETTINGS = "the site's settings or the experiment are not valid; the site's log says why"
NO_RISK_SETS = "the site gives no risk-set sums: cox.stratified = true does without them, or its site.toml allows them"
SMALL_SET = "the experiment leaves a set of fewer patients than the site's minimum cell size"
CANNOT = "the site cannot do this work; the site's log says why"
LAYOUT = "the message does not have the agreed layout; do site and server run one version?"
BY_APP = frozenset({UNEXPECTED, COHORT, SETTINGS, NO_RISK_SETS, SMALL_SET, CANNOT, LAYOUT})
"""What an app may say. The gate lets no other sentence of an app pass."""

HELD_BACK = "the site's gate held the answer back; the site's log says why"
GATE_FAILED = "the site's gate could not judge the message; the site's log says why"
INTERRUPTED = "the site's node was ended while it worked on the message"
NO_SPACE = "the site's disk is full"
NOT_APPROVED = "the site has not approved this code"
NOT_SIGNED = "the code does not carry the signatures that the site asks for"
OTHER_CODE = "the code is not the one that the run names"
OTHER_TASK = "the site takes part in runs of the client app only"
BAD_CONFIGURATION = "the run's configuration is not valid"
OTHER_RUN = "the site knows a run of this name with another configuration; choose another name"
OTHER_MODEL = "the site's policy does not allow this kind of model"
OTHER_ENDPOINT = "the site's policy does not allow an endpoint of the experiment"
SECURE_AGGREGATION = "the site asks for secure aggregation, which this version does not have"
ROUNDS_A_DAY = "the site's limit of rounds a day is reached"
UNKNOWN_MESSAGE = "the site does not know this kind of message"
BY_GATE = frozenset(
    {
        HELD_BACK,
        GATE_FAILED,
        INTERRUPTED,
        NO_SPACE,
        NOT_APPROVED,
        NOT_SIGNED,
        OTHER_CODE,
        OTHER_TASK,
        BAD_CONFIGURATION,
        OTHER_RUN,
        OTHER_MODEL,
        OTHER_ENDPOINT,
        SECURE_AGGREGATION,
        ROUNDS_A_DAY,
        UNKNOWN_MESSAGE,
    }
)
"""What a site's gate says in the app's place."""
