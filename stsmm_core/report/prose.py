"""The sentences of the report, written from the experiment and the numbers of the run."""

from collections.abc import Sequence

from stsmm_core.cohort.dictionary import ENDPOINTS, VARIABLES
from stsmm_core.config import ONE_VOTE_A_SITE, Blending, Experiment, Federation, Training
from stsmm_core.report.audit import left_out_sentences
from stsmm_core.report.history import FUSION
from stsmm_core.report.results import Concordance, Results
from stsmm_core.report.tables import total_of
from stsmm_core.training.rounds import LEAST_SELECTING_EVENTS

IMAGE_ENCODERS = {
    "densenet121": "3D DenseNet-121",
    "small_densenet": "small 3D DenseNet (three dense blocks)",
    "fine_densenet": "small 3D DenseNet (two dense blocks, first kernel of 3 voxels)",
}

RELIABLE_EVENTS = 100
"""Events that an external validation should have at least (Collins, Ogundimu and Altman, Stat Med 2016)."""


def subtitle(results: Results) -> str:
    """What was trained, at how many sites, on how many patients."""
    sites = len(results.metrics.cohorts)
    patients = total_of(results.metrics.cohorts).patients
    size = "number of patients not disclosed" if patients is None else f"{patients:,} patients"
    where = f"{sites} site{'s' if sites != 1 else ''}"
    joint = "Federated" if results.metrics.mode == "federated" else "Centralised"
    return f"{joint} training, {where}, {size}"


def scheme(experiment: Experiment) -> str:
    """How patients were divided, in a few words."""
    evaluation = experiment.evaluation
    ensemble = f", {evaluation.members} networks a test set" if evaluation.members > 1 else ""
    if evaluation.scheme == "cv":
        repeated = f", repeated {evaluation.repeats} times" if evaluation.repeats > 1 else ""
        return f"{evaluation.folds}-fold cross-validation{repeated}{ensemble}"
    train, validation = round(100 * evaluation.train_fraction), round(100 * evaluation.validation_fraction)
    return f"one split, {train} / {validation} / {100 - train - validation} % train / validation / test{ensemble}"


def duration(seconds: float) -> str:
    """A wall-clock time in the two units that matter."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def honest_numbers(results: Results) -> tuple[str, ...]:
    """What a reader must know before believing a number: how many patients, how wide, what it is not."""
    tests = {endpoint: results.metrics.test[endpoint].harrell_c for endpoint in results.endpoints}
    said = [_headline(ENDPOINTS[endpoint], concordance) for endpoint, concordance in tests.items()]
    measured = {endpoint: one for endpoint, one in tests.items() if one.value is not None}
    few = [endpoint for endpoint, one in measured.items() if one.events is None or one.events < RELIABLE_EVENTS]
    if few:
        said.append(
            f"Small test set: fewer than {RELIABLE_EVENTS} events are known for {_names(few)}, and an external "
            "validation should have at least that many (Collins, Ogundimu and Altman, Stat Med 2016). Read the "
            "interval, not the point."
        )
    unproven = [endpoint for endpoint, one in measured.items() if one.ci_low is not None and one.ci_low <= 0.5]
    if unproven:
        said.append(
            f"The interval for {_names(unproven)} reaches 0.5 or below: this run does not show that the model ranks "
            "patients better than chance there."
        )
    said.extend(_idle_training(results))
    said.extend(
        nothing_learned_from(
            results.experiment,
            [key for key in results.experiment.data.variables if _unknown_everywhere(results, key)],
        )
    )
    untested = [site.site for site in results.metrics.cohorts if site.site not in results.metrics.tested_sites]
    if untested:
        said.append(f"Not tested, and missing from every figure above: {', '.join(untested)}.")
    if not all(check.holds for check in results.metrics.certificate):
        said.append(
            "The exactness certificate fails: on the synthetic twin a figure over all sites differs from that of the "
            "pooled patients by more than is stated. Do not use the figures over all sites; report this run's versions."
        )
    said.extend(left_out_sentences(results.audit))
    if not measured:
        return tuple(said)
    said.append(
        "Intervals are 95 %, from bootstrap replicates of the test patients with the fitted "
        f"{'models' if results.folds > 1 else 'model'} held fixed: they hold the uncertainty of testing, not that of "
        "training again. They do not test one head against another."
    )
    return tuple(said)


def nothing_learned_from(experiment: Experiment, unknown: Sequence[str]) -> list[str]:
    """What a reader must know of variables that Methods lists and no patient has; nothing where there are none."""
    if not unknown or "clinical" not in experiment.data.modalities:
        return []
    names = ", ".join(VARIABLES[key].label for key in unknown)
    return [f"Not known of any patient, so the model learned nothing from it, whatever Methods lists: {names}."]


def _unknown_everywhere(results: Results, variable: str) -> bool:
    """Whether no patient has a value; a site that withholds the number (None) may have some."""
    numbers = [site.variables[variable].n for site in results.metrics.cohorts if variable in site.variables]
    return bool(numbers) and all(number == 0 for number in numbers)


def tested_and_used(experiment: Experiment) -> str:
    """Whether what was tested is what `stsmm predict` uses."""
    evaluation = experiment.evaluation
    over_sites = " (in a federated run within sites; its figures over all sites are means over single networks)"
    ensemble = f"ensembles of {evaluation.members} networks" if evaluation.members > 1 else "single networks"
    if evaluation.scheme == "cv":
        return (
            f"Tested are {ensemble}, one a fold{over_sites if evaluation.members > 1 else ''}; for a new patient stsmm "
            "predict averages the networks of all folds, an ensemble that was not itself tested."
        )
    if evaluation.members > 1:
        tested = f"Tested is the mean log hazard of {evaluation.members} networks{over_sites}"
        return f"{tested}; stsmm predict averages their curves."
    return "No ensemble: the network that was tested is the one that stsmm predict uses."


def selection(*, some_without_images: bool) -> str:
    """Which round's network was kept; `some_without_images` says that some sites have no image, and others have."""
    part = (
        f", of the sites with images (of all where these had fewer than {LEAST_SELECTING_EVENTS} validation events)"
        if some_without_images
        else ""
    )
    return f"The network of the round with the lowest unweighted validation loss of the fusion head was kept{part}."


def net_risk(endpoints: Sequence[str]) -> str:
    """What the absolute risk of metastasis is; empty without that endpoint."""
    if "dm" not in endpoints:
        return ""
    return (
        "For distant metastasis the absolute risk is that of a world without death (cause-specific: a death counts as "
        "censoring), higher than the share of patients who will be seen to metastasise where some die first."
    )


def trained_unit(experiment: Experiment) -> str:
    """What a number in the column `fold` of history.csv counts: folds, or the networks of an ensemble, fold by fold."""
    return "network" if experiment.evaluation.members > 1 else "fold"


def _idle_training(results: Results) -> list[str]:
    """Where training did not lower the validation loss; a model without rounds of training has no history."""
    if results.history.empty:
        return []
    losses = [results.series(fold, FUSION)["validation_loss"] for fold in range(results.folds)]
    selected = results.metrics.selected_rounds
    idle = sum(loss[number] >= loss[0] for loss, number in zip(losses, selected, strict=True))
    if not idle:
        return []
    which = "" if results.folds == 1 else f" in {idle} of {results.folds} {trained_unit(results.experiment)}s"
    scope = " over all sites" if _some_without_images(results) else ""
    return [
        f"The network that was kept has no lower validation loss{scope} than the untrained one{which}: "
        "training did not help."
    ]


def methods(results: Results) -> tuple[str, ...]:
    """Paragraphs for a methods section, true of this run."""
    experiment = results.experiment
    paragraphs = [network(experiment), _fitting(results), blending(experiment), _testing(results)]
    return tuple(paragraphs)


def _headline(name: str, concordance: Concordance) -> str:
    size = f"{number_of(concordance.n, 'test patient')} with {number_of(concordance.events, 'event')}"
    if concordance.value is None:
        return f"{name.capitalize()}: no C-index on {size}; {(concordance.reason or '').rstrip('.')}."
    if concordance.ci_low is None or concordance.ci_high is None:
        interval = "no interval could be computed"
    else:
        interval = f"95 % CI {concordance.ci_low:.2f} to {concordance.ci_high:.2f}"
    return f"{name.capitalize()}: C-index {concordance.value:.2f} ({interval}) on {size}."


def number_of(value: int | None, thing: str) -> str:
    """A count with its noun, "1 event" or "2 events"."""
    if value is None:
        return f"an undisclosed number of {thing}s"
    return f"{value:,} {thing}{'s' if value != 1 else ''}"


def _names(endpoints: list[str]) -> str:
    return " and ".join(ENDPOINTS[endpoint] for endpoint in endpoints)


def network(experiment: Experiment) -> str:
    """The network in a few sentences."""
    model, modalities = experiment.model, experiment.data.modalities
    encoders = []
    if "image" in modalities:
        kind = IMAGE_ENCODERS[model.image_encoder]
        shape = " \u00d7 ".join(str(size) for size in experiment.imaging.shape)
        encoders.append(
            f"The tumour volume, with a margin of {experiment.imaging.margin_mm:g} mm and resized to {shape} voxels, "
            f"goes through a {kind}."
        )
    if "clinical" in modalities:
        names = [VARIABLES[key].label for key in experiment.data.variables]
        labels = ", ".join(name if name.split()[0].isupper() else name[0].lower() + name[1:] for name in names)
        layers = "a multilayer perceptron" if model.clinical_widths else "a linear layer"
        encoders.append(f"The clinical variables ({labels}) go through {layers}.")
    hidden = (
        f" In training the fusion head is shown {100 * model.modality_dropout:g} % of the patients who have several "
        "modalities, drawn anew at each step, without one of these."
        if model.modality_dropout and len(modalities) > 1
        else ""
    )
    norm = f"{model.norm} normalisation and dropout {model.dropout:g}"
    linear = "clinical" in modalities and not model.clinical_widths
    inside = (f", the image encoder with {norm}" if "image" in modalities else "") if linear else f", with {norm}"
    return (
        " ".join(encoders)
        + f" Each encoder gives {model.features} features{inside}. A fusion head on the concatenated features gives "
        f"one log relative hazard for each endpoint ({_names(list(experiment.data.endpoints))}); each modality also "
        f"has a head of its own, used in training only.{hidden} A higher risk is worse."
    )


def loss(experiment: Experiment, *, strata: str) -> str:
    """Loss and optimiser; `strata` says whose patients share a risk set."""
    training = experiment.training
    optimizer = _sgd(training) if training.optimizer == "sgd" else "AdamW"
    schedule = "a one-cycle schedule" if training.schedule == "one_cycle" else "a constant rate"
    factor = training.clinical_decay_factor
    shown = factor != 1 and "clinical" in experiment.data.modalities
    clinical = (
        f" ({training.weight_decay * factor:g} for the clinical encoder, its head and what stands for its absence)"
        if shown
        else ""
    )
    return (
        "The loss is the negative log partial likelihood of the Cox model per event, summed over endpoints and "
        f"{strata}, with {training.ties.capitalize()}'s treatment of ties; risk sets are formed within "
        f"windows of {training.risk_window} patients, in batches of {training.batch_size}. The optimiser is "
        f"{optimizer}, learning rate {training.learning_rate:g} with {schedule}, weight decay "
        f"{training.weight_decay:g}{clinical}, for {training.epochs} epochs."
    )


def _sgd(training: Training) -> str:
    return f"SGD with Nesterov momentum {training.momentum:g}" if training.momentum else "SGD"


def centralised_fitting(experiment: Experiment) -> str:
    """How a network is fitted where the patients of all sites lie in one place."""
    strata = "not stratified by site"
    return f"The network was trained in one place, with the patients of all sites. {loss(experiment, strata=strata)}"


def _fitting(results: Results) -> str:
    experiment = results.experiment
    if results.metrics.mode == "centralised":
        return centralised_fitting(experiment)
    training, federation = experiment.training, experiment.federation
    sites = len(results.metrics.cohorts)
    epochs = f"{training.local_epochs} local epoch{'s' if training.local_epochs > 1 else ''}"
    return (
        f"{loss(experiment, strata='stratified by site')} "
        f"In each of {results.metrics.rounds} rounds the {sites} sites trained for {epochs} on their own patients "
        f"and sent network weights, loss sums and counts, no patient record; {_COMBINED[federation.strategy]}"
        f"{_weighting(federation)}.{_own(experiment)} A round needed at least {federation.min_sites} "
        f"site{'s' if federation.min_sites > 1 else ''}."
    )


_COMBINED = {
    "fedavg": "the server averaged the networks (FedAvg)",
    "fedprox": "the sites were held to the weights that were sent (FedProx) and the server averaged the networks",
    "fedadam": "the server took the mean update as a gradient of Adam (FedAdam)",
    "fedyogi": "the server took the mean update as a gradient of Yogi (FedYogi)",
    "fedavgm": "the server took the mean update with momentum (FedAvgM)",
    "fedmedian": "the server took the median of each weight over the sites (FedMedian)",
    "fedtrimmedavg": "the server took the trimmed mean of each weight over the sites (FedTrimmedAvg)",
    "krum": "the server took the network nearest to the others (Krum)",
}


def _weighting(federation: Federation) -> str:
    if federation.strategy in ONE_VOTE_A_SITE:
        return ", one vote a site"
    factor = "" if federation.site_factor == "none" else " and a factor from 0.5 to 2 by how its update generalised"
    return f", weighted by {federation.weighted_by}{factor}"


def _own(experiment: Experiment) -> str:
    """What the sites did not share."""
    sentences = []
    if experiment.blending.scope == "site":
        sentences.append(" Each site blended its heads by its own losses.")
    if experiment.blending.scope == "mean":
        sentences.append(" The blending weights were the mean of the sites' own, by events.")
    if experiment.federation.local_normalisation:
        sentences.append(" Normalisation layers stayed at their site (FedBN).")
    if experiment.federation.personal_epochs:
        sentences.append(" For its own predictions each site fitted the heads of the final network to its patients.")
    return "".join(sentences)


def blending(experiment: Experiment) -> str:
    """How the losses of the heads are weighted."""
    settings = experiment.blending
    if settings.method == "none":
        return "Gradient blending was off: the fusion head alone was trained, and the unimodal heads are untrained."
    if settings.method == "uniform":
        return "All heads' losses had the same weight throughout (uniform blending, a control)."
    return (
        "The heads' losses were combined by gradient blending (Wang, Tran and Feiszli, CVPR 2020; Bozzo et al., npj "
        f"Precision Oncology 2024). Every {settings.interval} epochs the whole training and validation sets were "
        "evaluated; with dG the fall of a head's validation loss since the last checkpoint and dO the growth of its "
        f"gap to the training loss, {_rule(settings)}"
    )


def _rule(blending: Blending) -> str:
    if blending.method == "softmax":
        return f"the weights are the softmax of dG / (dO² + {blending.eps:g}) over the heads, as in the published code."
    if blending.method == "simplex":
        return f"the weights are proportional to max(dG, 0) / (dO² + {blending.eps:g}), sum 1."
    return (
        f"the weights are proportional to max(dG - {blending.z:g} se, 0) / (dO² + se² + {blending.tau:g}²), with "
        f"standard errors from {blending.bootstrap_replicates} bootstrap replicates over patients, shrunk by "
        f"{blending.shrink:g} towards equal weights, kept between {blending.floor:g} and {blending.ceiling:g} and "
        f"smoothed ({blending.smoothing:g} of the old weights kept); where no head generalised the old weights stayed."
    )


def _some_without_images(results: Results) -> bool:
    """Whether the round may have been selected by a part of the sites (`training.rounds.selecting_losses`)."""
    images = [site.with_image for site in results.metrics.cohorts]
    return 0 in images and images.count(0) < len(images)


def _testing(results: Results) -> str:
    evaluation = results.experiment.evaluation
    divided = (
        f"Patients were divided within each site: {scheme(results.experiment)}, seed {results.experiment.seed}. "
        f"{selection(some_without_images=_some_without_images(results))} "
    )
    pooled = (
        "Each fold's patients were tested with the network that had not seen them; the folds are reported together. "
        if evaluation.scheme == "cv"
        else ""
    )
    return (
        divided
        + pooled
        + "Discrimination is Harrell's C-index, stratified by site: a patient is compared with patients of the same "
        f"site only. Intervals come from {evaluation.bootstrap_replicates} bootstrap replicates."
    )
