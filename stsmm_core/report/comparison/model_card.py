"""The model card: what the model is for, what it is not for, and how far it was tested."""

import html
from collections.abc import Mapping
from dataclasses import dataclass

from stsmm_core.cohort.dictionary import ENDPOINTS, years_in_words
from stsmm_core.report.comparison import prose
from stsmm_core.report.comparison.reading import Comparison
from stsmm_core.report.comparison.table import minus
from stsmm_core.report.prose import net_risk

NOT_FOR_DECISIONS = "Research software. Not for clinical decisions."


@dataclass(frozen=True)
class Section:
    """A heading and its statements."""

    heading: str
    statements: tuple[str, ...]


def model_card(comparison: Comparison, facts: Mapping[str, str | None]) -> tuple[Section, ...]:
    """The card of the first model, after Mitchell et al., FAT* 2019, doi 10.1145/3287560.3287596."""
    endpoints = prose.join(ENDPOINTS[endpoint] for endpoint in comparison.endpoints)

    def known(*names: str) -> tuple[str, ...]:
        return tuple(text for text in (facts[name] for name in names) if text)

    return (
        Section("Model", (f"{comparison.first.label}: {comparison.first.estimator}.", *known("network", "software"))),
        Section(
            "Intended use",
            (
                f"Research on the prediction of {endpoints} in adults with soft-tissue sarcoma, from what is known "
                "when the primary tumour is treated.",
                "Users: researchers with knowledge of survival analysis and of the images.",
                NOT_FOR_DECISIONS,
            ),
        ),
        Section(
            "Out of scope",
            (
                "Decisions about a patient; other tumours; children; retroperitoneal sarcoma; recurrent disease; "
                "images taken after treatment began; scanners and sequences unlike those of the training data.",
            ),
        ),
        Section("Training data", known("sample", "flow", "sizes", "follow_up", "missing", "predictors")),
        Section("Performance", (*_performance(comparison), *known("networks", "subgroups", "uncertainty"))),
        Section("Limits", _limits(comparison)),
        Section(
            "Ethical considerations",
            (
                "The model learns the care of its time and place: where treatment was withheld or delayed for a group "
                "of patients, it predicts their outcome under that care.",
                "A low predicted risk is no reason to withhold treatment: the model does not estimate what treatment "
                "would change.",
                "Run folder: predictions and heat maps by patient lie in its private part and stay at the site.",
                *(known("fairness") or ("Performance by sex and age was not examined.",)),
            ),
        ),
    )


def as_markdown(sections: tuple[Section, ...], *, title: str) -> str:
    """The card as a Markdown file; mark-up in names is made harmless."""
    lines = [f"# Model card: {_plain(title)}", "", f"**{NOT_FOR_DECISIONS}**", ""]
    for section in sections:
        lines += [f"## {section.heading}", "", *(f"- {_plain(text)}" for text in section.statements), ""]
    return "\n".join(lines)


def _performance(comparison: Comparison) -> tuple[str, ...]:
    said = []
    for endpoint in comparison.endpoints:
        said.append(prose.performance(comparison, endpoint))
        metrics = comparison.record.results[comparison.first.key][endpoint]
        for years in comparison.horizons(endpoint):
            ipa = metrics.get(f"ipa_{years:g}")
            if ipa is not None and ipa.value is not None and ipa.low is not None and ipa.high is not None:
                text = f"{ipa.value:.2f} (95 % CI {ipa.low:.2f} to {ipa.high:.2f})"
                name = f"{ENDPOINTS[endpoint].capitalize()} at {years_in_words(years)}"
                said.append(f"{name}: index of prediction accuracy {minus(text)}.")
    return tuple(said)


def _limits(comparison: Comparison) -> tuple[str, ...]:
    limits = [
        "Tested on patients of the same sites as it was trained on; performance elsewhere is unknown and likely lower."
    ]
    if comparison.record.synthetic:
        limits.insert(0, "Trained on synthetic patients: it knows nothing about real ones.")
    if len(comparison.record.sites) == 1:
        limits.append("All patients come from one site.")
    figures = [comparison.record.results[comparison.first.key][endpoint] for endpoint in comparison.endpoints]
    events = min(metrics["harrell_c"].events for metrics in figures)
    limits.append(f"Tested on as few as {events:,} events: the intervals are part of the result.")
    if "radiotherapy" in comparison.experiment.data.variables:
        limits.append(
            "Postoperative radiotherapy is known only after surgery, of patients who lived to receive it (immortal "
            "time): the model may see less risk in them than there is, and before surgery the value is not known."
        )
    limits += [said] if (said := net_risk(comparison.endpoints)) else []
    limits.append("The outline of the tumour is a person's; how far another one changes the risk was not tested.")
    return tuple(limits)


def _plain(text: str) -> str:
    escaped = html.escape(text, quote=False)
    for sign in "\\`*_[]|":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped
