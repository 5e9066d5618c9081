"""The sentences of a comparison's report: what to read first, the methods, and the facts that fill the checklists."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from stsmm_core.cohort.dictionary import DAYS_PER_YEAR, ENDPOINTS, VARIABLES, years_in_words
from stsmm_core.config import DENSE_BLOCKS, Experiment, Imaging
from stsmm_core.report import prose
from stsmm_core.report.comparison.reading import Comparison
from stsmm_core.report.comparison.record import Estimate, Model
from stsmm_core.run_folder import REFERENCE

NOT_REACHED = "not reached"

STEP_WORDS = {
    "bias_correction": "N4 bias correction",
    "registration": "rigid registration to the first channel",
    "resampling": "resampling of all channels and the mask to one grid",
    "zscore": "z-score within the tumour region",
    "masking": "masking",
}


HEAT_MAP_TRUST = {
    "grad_cam": "Checked with small networks on synthetic tumours whose dangerous part is known, Grad-CAM did not find "
    "it reliably.",
    "hires_cam": "Checked with small networks on synthetic tumours whose dangerous part is known, such maps at block 1 "
    "fall on it; but those of a network with random weights do so nearly as much, for the tumour is what stands out.",
}


def title(comparison: Comparison) -> str:
    """What was compared, for which outcomes."""
    names = join(ENDPOINTS[endpoint] for endpoint in comparison.endpoints)
    return f"{len(comparison.record.models)} models of {names} in soft-tissue sarcoma"


def honest_sentences(comparison: Comparison) -> tuple[str, ...]:
    """What a reader must know before believing a number."""
    record = comparison.record
    said = [f"Data: {sample(comparison)}; {record.scheme}."]
    for endpoint in comparison.endpoints:
        said.append(performance(comparison, endpoint))
    heads = {endpoint: record.results[comparison.first.key][endpoint]["harrell_c"] for endpoint in comparison.endpoints}
    few = [endpoint for endpoint, figure in heads.items() if figure.events < prose.RELIABLE_EVENTS]
    if few:
        said.append(
            f"Small test set: {comparison.first.label} is tested on fewer than {prose.RELIABLE_EVENTS} events for "
            f"{_names(few)}, and a validation should have at least that many (Collins, Ogundimu and Altman, Stat Med "
            "2016). Read the interval, not the point."
        )
    unproven = [endpoint for endpoint, figure in heads.items() if figure.low is not None and figure.low <= 0.5]
    if unproven:
        said.append(
            f"The interval for {_names(unproven)} reaches 0.5 or below: this run does not show that "
            f"{comparison.first.label} ranks patients better than chance there."
        )
    unknown = [key for key in comparison.experiment.data.variables if record.missing.get(key) == comparison.patients]
    said += prose.nothing_learned_from(comparison.experiment, unknown)
    said += [_against_reference(comparison, endpoint) for endpoint in comparison.endpoints]
    for endpoint in comparison.endpoints:
        for years, reason in comparison.without_figures(endpoint).items():
            said.append(f"No figures for {ENDPOINTS[endpoint]} at {years_in_words(years)}: {reason}.")
    said.append(
        "Intervals are 95 %, from a bootstrap over the test patients with the fitted models held fixed: they hold the "
        "uncertainty of testing, not that of training again. Models are compared by paired differences on the same "
        "patients (Table 4); two intervals that overlap say nothing about a difference."
    )
    return tuple(sentence for sentence in said if sentence)


def methods(comparison: Comparison) -> tuple[str, ...]:
    """Paragraphs for a methods section, true of this comparison."""
    known = facts(comparison)
    paragraphs = (
        *("network", "imaging", "augmentation", "initial", "fitting", "selection", "blending", "models"),
        *("radiomics", "agreement", "missing", "absolute_risk", "evaluation"),
    )
    return tuple(text for text in (known[name] for name in paragraphs) if text)


def facts(comparison: Comparison) -> dict[str, str | None]:
    """Sentences by name for the checklists and the methods; None where the run does not know."""
    record, experiment = comparison.record, comparison.experiment
    images = "image" in experiment.data.modalities
    variables = [VARIABLES[key].label for key in experiment.data.variables]
    subgroups = {subgroup.variable for rows in record.subgroups.values() for subgroup in rows}
    with_differences = any(record.differences.get(endpoint) for endpoint in comparison.endpoints)
    inputs = f"{join(record.channels)} images and clinical variables" if images else "clinical variables"
    return {
        "title": title(comparison),
        "sample": f"{_upper(sample(comparison))}.",
        "flow": flow(comparison),
        "division": f"Patients were divided within each site: {record.scheme}, seed {record.seed}.",
        "sizes": _sizes(comparison),
        "sets": _sets(comparison),
        "endpoints": f"Endpoints, as time in days and event: {_names(comparison.endpoints)}.",
        "horizons": f"Absolute risk at {join(f'{years:g}' for years in record.horizons_years)} years.",
        "follow_up": follow_up(comparison),
        "predictors": f"Clinical variables: {', '.join(variables)}. Inputs of the model: {inputs}.",
        "missing": _missing(comparison),
        "imaging": _imaging(experiment.imaging, record.channels) if images else None,
        "augmentation": _augmentation(experiment.imaging) if images else None,
        "network": prose.network(experiment),
        "fitting": prose.centralised_fitting(experiment),
        "selection": _selection(comparison),
        "absolute_risk": _absolute_risk(comparison),
        "blending": prose.blending(experiment),
        "initial": _initial(experiment, images=images),
        "networks": prose.tested_and_used(experiment),
        "models": _models(comparison),
        "evaluation": evaluation(comparison),
        "uncertainty": "SD and 95 % intervals: "
        f"{experiment.evaluation.bootstrap_replicates} bootstrap replicates over patients.",
        "differences": "Paired bootstrap of differences on the same test patients; results in Table 4."
        if with_differences
        else None,
        "performance": " ".join(performance(comparison, endpoint) for endpoint in comparison.endpoints),
        "subgroups": f"Table 7 shows discrimination by {join(sorted(_lower_label(name) for name in subgroups))}."
        if subgroups
        else None,
        "fairness": "Discrimination by sex and age is in Table 7." if {"sex", "age"} <= subgroups else None,
        "sites": f"Sites: {', '.join(record.sites)}. Table 1 and Table 7 show them apart."
        if len(record.sites) > 1
        else None,
        "heat_maps": _heat_maps_made(comparison),
        "sanity": "Sanity checks of the heat maps are in Table 9."
        if any(comparison.explanations.sanity.values())
        else None,
        "attributions": "Attributions of the clinical variables are in Fig. 5."
        if comparison.explanations.clinical
        else None,
        "radiomics": _radiomics(comparison),
        "agreement": _agreement(comparison),
        "software": "Software: "
        + ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
        + ".",
    }


def sample(comparison: Comparison) -> str:
    """How many patients from where, with how many events."""
    sites = comparison.record.sites
    where = f"{len(sites)} sites ({', '.join(sites)})" if len(sites) > 1 else f"one site ({sites[0]})"
    everyone = next(column for column in comparison.record.cohort_by if column.column == "all")
    events = join(
        f"{everyone.events.get(name, 0):,} events for {ENDPOINTS[name]}"
        if everyone.at_risk.get(name)
        else f"{ENDPOINTS[name]} not recorded"
        for name in comparison.endpoints
    )
    return f"{comparison.patients:,} patients of {where}, {events}"


def performance(comparison: Comparison, endpoint: str) -> str:
    """The model's C-index for one endpoint with its interval, patients and events."""
    figure = comparison.record.results[comparison.first.key][endpoint]["harrell_c"]
    name = _upper(ENDPOINTS[endpoint])
    size = f"{prose.number_of(figure.n, 'test patient')} with {prose.number_of(figure.events, 'event')}"
    if figure.value is None:
        return f"{name}: no C-index of {comparison.first.label} on {size}; {(figure.reason or '').rstrip('.')}."
    return f"{name}: C-index of {comparison.first.label} {figure.value:.2f} ({_interval(figure)}) on {size}."


def follow_up(comparison: Comparison) -> str | None:
    """Median follow-up by endpoint, in years."""
    said = []
    for endpoint in comparison.endpoints:
        known = comparison.record.follow_up_days.get(endpoint)
        if known is None or known.median is None:
            continue
        ends = [NOT_REACHED if end is None else f"{end / DAYS_PER_YEAR:.1f}" for end in (known.low, known.high)]
        said.append(
            f"{known.median / DAYS_PER_YEAR:.1f} years (95 % CI {ends[0]} to {ends[1]}) for {ENDPOINTS[endpoint]}"
        )
    return f"Median follow-up by the reverse Kaplan-Meier method: {join(said)}." if said else None


def flow(comparison: Comparison) -> str:
    """The flow of patients in one sentence."""
    steps = comparison.record.flow
    known = join(f"{steps.with_outcome.get(name, 0):,} for {ENDPOINTS[name]}" for name in comparison.endpoints)
    return (
        f"{steps.recorded:,} patients recorded, {steps.with_image:,} with images; outcome known of {known}; "
        f"{metastatic(comparison)}."
    )


def metastatic(comparison: Comparison) -> str:
    """How many had metastases before they could be at risk of one."""
    number = comparison.record.flow.metastatic_at_presentation
    if number is None:
        return "metastasis at presentation not recorded"
    return f"{number:,} metastatic at presentation, not at risk of distant metastasis"


PAIRS = "C-index and AUC compare patients of one site and one test fold only."


def evaluation(comparison: Comparison) -> str:
    """How the models were tested."""
    pooled = (
        " Each patient was tested with models that had not seen them; the folds are reported together."
        if comparison.experiment.evaluation.scheme == "cv"
        else ""
    )
    return (
        f"Patients were divided within each site: {comparison.record.scheme}. All models were developed on the same "
        f"patients and tested on the same others.{pooled} {PAIRS} Discrimination is Harrell's and Uno's C-index and "
        "the time-dependent AUC, accuracy the Brier score beside that of a Kaplan-Meier curve, calibration O/E, slope, "
        "ICI, E50 and E90. Intervals come from "
        f"{comparison.experiment.evaluation.bootstrap_replicates} bootstrap replicates over patients."
    )


def join(words: Iterable[str]) -> str:
    """A list in prose: "a, b and c"."""
    listed = list(words)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}" if listed else ""


def _against_reference(comparison: Comparison, endpoint: str) -> str:
    """Whether the model beats the reference bar, from their paired difference; empty where it was not computed."""
    for pair in comparison.record.differences.get(endpoint, ()):
        if pair.against != REFERENCE or pair.difference.value is None:
            continue
        beats = pair.difference.low is not None and pair.difference.low > 0
        verdict = "the interval lies above 0" if beats else "no gain over it is shown"
        bar = comparison.record.results[REFERENCE][endpoint]["harrell_c"]
        if bar.low is None or bar.low <= 0.5:
            verdict += f", and {comparison.label(REFERENCE)} itself is not shown to rank better than chance"
        return (
            f"{_upper(ENDPOINTS[endpoint])}: C-index of {comparison.label(pair.model)} minus that of "
            f"{comparison.label(REFERENCE)} {pair.difference.value:+.2f} ({_interval(pair.difference, signed=True)}): "
            f"{verdict}."
        ).replace(" -", " \u2212")
    return ""


def _interval(figure: Estimate, *, signed: bool = False) -> str:
    if figure.low is None or figure.high is None:
        return "no interval could be computed"
    sign = "+" if signed else ""
    return f"95 % CI {figure.low:{sign}.2f} to {figure.high:{sign}.2f}"


def _sizes(comparison: Comparison) -> str | None:
    steps = comparison.record.flow
    if steps.test is None:
        return None
    if steps.train is None or steps.validation is None:
        anew = f"divided anew for each of {comparison.experiment.evaluation.members} networks"
        return f"{steps.development or 0:,} patients for training and validation, {anew}, {steps.test:,} for testing."
    return f"{steps.train:,} patients for training, {steps.validation:,} for validation, {steps.test:,} for testing."


def _sets(comparison: Comparison) -> str:
    if comparison.experiment.evaluation.scheme == "cv":
        return "Both come from the same cohort: in cross-validation every patient is in both in turn."
    return "Both come from the same cohort; Table 1 compares them."


def _initial(experiment: Experiment, *, images: bool) -> str:
    """The name of a file of weights is said, the user's folders are not."""
    unit = prose.trained_unit(experiment)
    seed = f"drawn from the seed of the experiment ({experiment.seed}) and the number of the {unit}."
    if experiment.model.pretrained and images:
        name = Path(experiment.model.pretrained).name
        return f"The image encoder starts from pretrained weights ({name}); all others are random, {seed}"
    return f"Initial weights are random, {seed}"


def heat_maps(experiment: Experiment) -> str:
    """What the heat maps are and of which layer."""
    method = "3D Grad-CAM" if experiment.explain.method == "grad_cam" else "3D HiResCAM, up or down,"
    blocks = DENSE_BLOCKS[experiment.model.image_encoder]
    return f"Heat maps ({method} at dense block {experiment.explain.block} of {blocks})"


def _heat_maps_made(comparison: Comparison) -> str | None:
    if comparison.pictures:
        return f"{heat_maps(comparison.experiment)} of right and wrong cases are in Fig. 3."
    if any(comparison.explanations.sanity.values()):
        return f"{heat_maps(comparison.experiment)}; of no patient can it be said whether the model was right."
    return None


def _selection(comparison: Comparison) -> str:
    images = [column.with_image for column in comparison.record.cohort_by if column.column in comparison.record.sites]
    said = prose.selection(some_without_images=0 in images and any(images))
    anew = " Each network of an ensemble divides the patients outside the test set anew into training and validation."
    return said + (anew if comparison.experiment.evaluation.members > 1 else "")


def _absolute_risk(comparison: Comparison) -> str:
    """How a risk becomes a probability, and how such a probability is tested."""
    said = (
        "The risk of a network or a Cox model becomes a survival curve by Breslow's baseline hazard of the development "
        "patients, training and validation together; that of a forest is the mean over its trees. Figures at a horizon "
        "weight test patients by the censoring of the development patients."
    )
    return f"{said} {prose.net_risk(comparison.endpoints)}".rstrip()


def _missing(comparison: Comparison) -> str:
    lacking = {key: number for key, number in comparison.record.missing.items() if number}
    measured = (
        " Diameter and volume that the table lacked were measured in the outline where there is one, and do not count "
        "as missing."
        if comparison.record.flow.with_image and {"size_cm", "volume_cm3"} & set(comparison.record.missing)
        else ""
    )
    if not lacking:
        return f"No value is missing.{measured}"
    worst = max(lacking, key=lambda key: lacking[key])
    share = 100 * lacking[worst] / max(comparison.patients, 1)
    most = f"{_lower_label(worst)} ({lacking[worst]:,}, {share:.1f} %)"
    return f"Values are missing, most often {most}; Table 8 lists them and how they are handled.{measured}"


def _imaging(imaging: Imaging, channels: Sequence[str]) -> str:
    touched = {"bias_correction": imaging.bias_correction.channels, "registration": imaging.registration.channels}
    done = [step for step in imaging.steps if set(touched.get(step, channels)) & set(channels)]
    steps = ", ".join(STEP_WORDS[step] for step in done)
    shape = " \u00d7 ".join(str(size) for size in imaging.shape)
    return f"Image steps, in order: {steps}; {imaging.margin_mm:g} mm of perilesional tissue kept, {shape} voxels."


def _augmentation(imaging: Imaging) -> str:
    drawn = imaging.augmentation
    flips = "flips, " if drawn.flip else ""
    return (
        f"Augmentation, the same for all channels: {flips}rotation up to {drawn.rotation_degrees:g} degrees, zoom "
        f"up to {100 * drawn.zoom:g} %."
    )


def _models(comparison: Comparison) -> str:
    listed = "; ".join(_model(model) for model in comparison.record.models)
    penalty = comparison.experiment.comparators.cox_penalty
    return (
        f"Models compared: {listed}. Cox models not named ridge or elastic net have a slight fixed ridge (penalty "
        f"{penalty:g}), which keeps a coefficient finite where a level of a few patients has no event."
    )


def _radiomics(comparison: Comparison) -> str | None:
    """The models that see radiomics and how their features were measured; None without such a model."""
    models = [model.label for model in comparison.record.models if "radiomics" in f"{model.key} {model.inputs}".lower()]
    if not models:
        return None
    settings = comparison.experiment.radiomics
    return (
        f"Radiomics models: {', '.join(models)}. Features of shape, first order and texture (GLCM, GLRLM, GLSZM, GLDM, "
        f"NGTDM at a distance of {settings.distance}) of each channel by pyradiomics, without a filter, at "
        f"{settings.spacing_mm:g} mm with {settings.interpolation} interpolation and {settings.bin_count} grey levels"
        f"{_normalised(comparison)}."
    )


def _normalised(comparison: Comparison) -> str:
    channels = [name for name in comparison.record.channels if name in comparison.experiment.radiomics.normalised]
    return f"; {join(channels)} z-scored within the tumour's box before" if channels else ""


def _agreement(comparison: Comparison) -> str | None:
    """What became of the features on which two readers do not agree; None without a second reader."""
    features = comparison.record.radiomics
    if features is None or not features.second_reader:
        return None
    fewest, most = min(features.used), max(features.used)
    used = f"{fewest}" if fewest == most else f"{fewest} to {most} a fold"
    return (
        f"Features with an ICC(A,1) below {comparison.experiment.radiomics.min_icc:g} between two readers' outlines of "
        f"development patients were left out: {used} of {features.measured} were used."
    )


def _model(model: Model) -> str:
    return f"{model.label} ({model.estimator}; {model.inputs})"


def _lower_label(key: str) -> str:
    label = VARIABLES[key].label if key in VARIABLES else key.replace("_", " ")
    return label if label.split()[0].isupper() else label[0].lower() + label[1:]


def _names(endpoints: Iterable[str]) -> str:
    return join(ENDPOINTS[endpoint] for endpoint in endpoints)


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
