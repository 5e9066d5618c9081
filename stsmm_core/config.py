"""The experiment: one validated tree, read from configs/*.toml."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stsmm_core.cohort.dictionary import ENDPOINTS, PAPER_VARIABLES, VARIABLES
from stsmm_core.errors import ConfigError

Endpoint = Literal["os", "dm"]
Modality = Literal["image", "clinical"]
assert get_args(Endpoint) == tuple(ENDPOINTS)

Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Widths = Annotated[tuple[Annotated[int, Field(ge=2, le=1024, strict=True)], ...], Field(max_length=10)]


class Section(BaseModel):
    """A block of the experiment file: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """Which outcomes are predicted from what."""

    endpoints: tuple[Endpoint, ...] = ("os", "dm")
    modalities: tuple[Modality, ...] = ("image", "clinical")
    variables: tuple[str, ...] = tuple(PAPER_VARIABLES)

    @field_validator("endpoints", "modalities", "variables")
    @classmethod
    def _not_empty_not_twice(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("must name at least one entry, and none twice")
        return value

    @field_validator("variables")
    @classmethod
    def _known_variables(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in VARIABLES]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} not in the data dictionary; choose from {', '.join(VARIABLES)}")
        return value


class Augmentation(Section):
    """Random geometry, the same for all channels of a patient."""

    flip: Annotated[bool, Field(strict=True)] = True
    rotation_degrees: Annotated[float, Field(ge=0, le=180, strict=True)] = 15.0
    zoom: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.1
    """Largest relative change of size: 0.1 draws from 0.9 to 1.1."""


class BiasCorrection(Section):
    """N4: the slow shading of an MRI."""

    channels: tuple[str, ...] = ("t1", "t2")
    """Which channels are MRI and not corrected yet; a PET has no bias field."""
    shrink: Count = 3
    """The field is fitted to every n-th voxel along each axis."""
    iterations: tuple[Count, ...] = Field(default=(50, 50, 50, 50), min_length=1)
    """At most so many at each resolution of the field, the coarsest first."""
    convergence: Positive = 1e-3


class Registration(Section):
    """Rigid registration of channels to the first one."""

    channels: tuple[str, ...] = ()
    """Which channels are moved; none where they share a frame of reference and the patient lay still."""
    bins: Annotated[int, Field(ge=8, strict=True)] = 32
    """Of the joint histogram."""
    sampling: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.25
    """Share of the voxels that the histogram counts, drawn by `seed`."""
    seed: Count = 1
    """From 1: the library takes 0 for the clock."""
    iterations: Count = 100
    """At most so many at each of three resolutions."""


Step = Literal["bias_correction", "registration", "resampling", "zscore", "masking"]
STEPS: tuple[Step, ...] = get_args(Step)


class Imaging(Section):
    """From volumes to one tensor a patient (needs no population statistics)."""

    steps: tuple[Step, ...] = STEPS
    """What is done, in this order; what is left out is not done."""
    bias_correction: BiasCorrection = BiasCorrection()
    registration: Registration = Registration()
    shape: tuple[Count, Count, Count] = (64, 64, 64)
    """Voxels along depth, height, width."""
    margin_mm: Annotated[float, Field(ge=0, strict=True)] = 5.0
    """Perilesional tissue kept around the tumour."""
    augmentation: Augmentation = Augmentation()

    @field_validator("steps")
    @classmethod
    def _possible_order(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        if len(set(steps)) != len(steps) or "resampling" not in steps:
            raise ValueError("must name 'resampling', which makes the tensor's grid, and no step twice")
        turn = steps.index("resampling")
        late = [step for step in steps[turn:] if step in ("bias_correction", "registration")]
        early = [step for step in steps[:turn] if step in ("zscore", "masking")]
        if late or early:
            raise ValueError(
                "'bias_correction' and 'registration' work on whole volumes, before 'resampling'; "
                "'zscore' and 'masking' on the tumour's grid, after it"
            )
        return steps


class Radiomics(Section):
    """Hand-crafted features of each channel within the tumour, as IBSI asks (doi 10.1148/radiol.2020191145)."""

    spacing_mm: Positive = 2.0
    """Isotropic, so that a texture has no direction: between the pixels and the slices of a usual MRI of a limb."""
    interpolation: Literal["linear", "bspline"] = "linear"
    """Of intensities: linear never gives a value beyond those measured. The mask always takes the nearest voxel."""
    normalised: tuple[str, ...] = ("t1", "t2")
    """Which channels have arbitrary units and are z-scored within the tumour's box; an uptake of PET has its own."""
    bin_count: Annotated[int, Field(ge=2, strict=True)] = 32
    """Grey levels of the textures between least and largest in the tumour: no width of a bin suits arbitrary units."""
    distance: Count = 1
    """Voxels between neighbours of a texture."""
    min_voxels: Count = 27
    """Of the tumour at `spacing_mm`; fewer have no texture."""
    min_icc: Annotated[float, Field(ge=0, le=1, strict=True)] = 0.8
    """Least ICC(A,1) between two readers' outlines for a feature to be used."""


class Comparators(Section):
    """The classical models that the network is compared with."""

    min_events: Count = 5
    """Fewer events of an endpoint among the development patients, and no comparator is fitted and nobody predicted."""
    inner_folds: Annotated[int, Field(ge=2, strict=True)] = 5
    """Of the cross-validation that chooses a penalty's strength; each needs an event."""
    inner_repeats: Count = 1
    """Divisions into inner folds that choose a strength together: one (the paper's) is chance."""
    cox_penalty: Annotated[float, Field(gt=0, strict=True)] = 0.1
    """Ridge of the Cox models that are not named ridge: a normal prior of variance 10 on a log hazard ratio. It leaves
    estimates as they are, but keeps one finite where a level of a few patients has no event."""
    strengths: Annotated[int, Field(ge=2, strict=True)] = 30
    """Strengths tried, evenly spaced on a log scale."""
    l1_ratio: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.5
    """Share of the lasso in the elastic net."""
    trees: Count = 500
    min_leaf: Count = 5
    """Least patients in a leaf of a tree."""


class Explain(Section):
    """The heat maps of a comparison's report."""

    method: Literal["grad_cam", "hires_cam"] = "hires_cam"
    """HiResCAM finds the planted cause of synthetic tumours, Grad-CAM, the paper's, does not (docs/explain.md)."""
    block: Count = 1
    """Dense block of the image encoder whose features are shown; each further block halves the map."""


ModelKind = Literal["mmnn", "cox"]
DENSE_BLOCKS = {"densenet121": 4, "small_densenet": 3, "fine_densenet": 2}
"""Of an image encoder: it halves the image once more than it has blocks."""


class Model(Section):
    """The model: the multimodal network, whose settings these are, or a Cox regression (section `cox`)."""

    kind: ModelKind = "mmnn"
    image_encoder: Literal["densenet121", "small_densenet", "fine_densenet"] = "densenet121"
    features: Count = 12
    """Length of each encoder's feature vector."""
    clinical_widths: Widths = (32, 16, 8, 8, 8)
    """Hidden layers of the clinical encoder, Fig. 4A of the paper; none makes it linear."""
    norm: Literal["batch", "group"] = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.2
    modality_dropout: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    """Share of the training patients with several modalities of whom the fusion head is not shown one, drawn anew each
    time, so that it leans less on any one. Near 1 it hardly sees a whole patient, and absolute risks suffer."""
    pretrained: str = ""
    """Checkpoint file that the image encoder starts from; empty for random weights. Relative to the experiment file."""

    @model_validator(mode="after")
    def _pretrained_weights_fit(self) -> "Model":
        if not self.pretrained:
            return self
        if self.norm != "batch":
            raise ValueError(
                f"pretrained weights come with batch statistics, which norm = '{self.norm}' has no place for; "
                "set norm = 'batch', or leave pretrained empty"
            )
        if self.image_encoder != "densenet121":
            raise ValueError(f"pretrained weights are for 'densenet121', not for '{self.image_encoder}'")
        return self


class Cox(Section):
    """Cox regression on the clinical variables, exact over sites."""

    ties: Literal["breslow", "efron"] = "breslow"
    """Efron's treatment needs sums over the patients whose events fall on one day, which tell more of them."""
    ridge: Annotated[float, Field(ge=0, strict=True)] = 0.1
    """Weight of half the sum of squared coefficients, of standardised columns, against the log likelihood."""
    stratified: Annotated[bool, Field(strict=True)] = False
    """Compare patients within a site only, each site with a baseline hazard of its own."""


class Training(Section):
    """How a site fits the network to its training set."""

    epochs: Count = 200
    local_epochs: Count = 1
    """Epochs a round; in centralised training, epochs between two validations."""
    batch_size: Annotated[int, Field(ge=2, strict=True)] = 8
    risk_window: Annotated[int, Field(ge=2, strict=True)] = 64
    """Patients that share one Cox risk set and one optimiser step."""
    ties: Literal["breslow", "efron"] = "breslow"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, strict=True)] = 1e-4
    clinical_decay_factor: Annotated[float, Field(ge=0, strict=True)] = 1.0
    """Times weight_decay for the clinical encoder, its head and what stands for its absence: they learn a few hundred
    patients by heart before the images are learned."""
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    device: str = "cpu"

    @model_validator(mode="after")
    def _rounds_are_whole(self) -> "Training":
        if self.epochs % self.local_epochs:
            raise ValueError(f"epochs ({self.epochs}) must be a multiple of local_epochs ({self.local_epochs})")
        factor = self.clinical_decay_factor
        if factor > 1 and self.learning_rate * self.weight_decay * factor >= 1:
            raise ValueError(
                "learning_rate times weight_decay times clinical_decay_factor must be below 1: a step would take more "
                "than all of a weight away"
            )
        if self.risk_window < self.batch_size:
            raise ValueError(f"risk_window ({self.risk_window}) must not be below batch_size ({self.batch_size})")
        return self

    @property
    def rounds(self) -> int:
        """Rounds in the whole training."""
        return self.epochs // self.local_epochs


class Blending(Section):
    """Gradient blending: how the heads' losses are weighted."""

    method: Literal["robust", "simplex", "softmax", "uniform", "none"] = "robust"
    scope: Literal["global", "site", "mean"] = "global"
    """Whose losses the weights rest on: all sites' together, each site's own, or the mean of the sites' own weights."""
    interval: Count = 5
    """Epochs between two checkpoints of the overfitting-to-generalisation ratio."""
    z: Annotated[float, Field(ge=0, strict=True)] = 0.5
    """Standard errors by which generalisation must exceed zero (robust)."""
    tau: Annotated[float, Field(ge=0, strict=True)] = 0.01
    """Floor of the overfitting denominator, in units of the loss (robust)."""
    shrink: Fraction = 0.3
    """Share of the uniform weights (robust)."""
    floor: Fraction = 0.1
    ceiling: Fraction = 0.8
    smoothing: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.5
    """Share of the previous weights kept at an update (robust)."""
    eps: Positive = 1e-6
    """Added to the squared overfitting (simplex, softmax)."""
    bootstrap_replicates: Annotated[int, Field(ge=20, strict=True)] = 100

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> "Blending":
        if self.floor > self.ceiling:
            raise ValueError(f"floor ({self.floor}) must not be above ceiling ({self.ceiling})")
        return self


ONE_VOTE_A_SITE = ("fedmedian", "fedtrimmedavg", "krum")
"""Strategies that do not weight sites."""


class Federation(Section):
    """How the sites' updates become one model."""

    strategy: Literal["fedavg", "fedprox", "fedadam", "fedyogi", "fedavgm", "fedmedian", "fedtrimmedavg", "krum"] = (
        "fedavg"
    )
    weighted_by: Literal["events", "patients"] = "patients"
    """What a site counts by; not used by fedmedian, fedtrimmedavg and krum, in which every site has one vote."""
    site_factor: Literal["none", "generalisation"] = "none"
    """Whether a site whose updates overfit lowers its own weight."""
    proximal_mu: Positive = 0.01
    """Pull of the local weights towards those that were sent (fedprox)."""
    server_learning_rate: Positive = 1.0
    """Share of the mean update that is taken (fedavgm)."""
    server_momentum: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.9
    """Share of the earlier updates that is kept (fedavgm; first moment of fedadam and fedyogi)."""
    adaptive_learning_rate: Positive = 0.01
    """About the largest change of a weight in a round (fedadam, fedyogi)."""
    second_momentum: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.99
    """Share of the earlier squared updates that is kept (fedadam, fedyogi)."""
    adaptivity: Positive = 1e-3
    """Added to the root of the second moment: updates well below it move in proportion (fedadam, fedyogi)."""
    trim_fraction: Annotated[float, Field(gt=0, lt=0.5, strict=True)] = 0.34
    """Share of the sites cut off at each end of every weight, rounded down: one of three (fedtrimmedavg)."""
    malicious_sites: Annotated[int, Field(ge=0, strict=True)] = 1
    """Sites that may send anything (krum); 2 more than twice as many must be honest."""
    local_normalisation: Annotated[bool, Field(strict=True)] = False
    """FedBN: normalisation layers stay at their site."""
    personal_epochs: Annotated[int, Field(ge=0, strict=True)] = 0
    """At most so many epochs in which a site fits the heads of the final model to itself; 0 for none."""
    min_sites: Count = 1
    """Sites without which a round cannot go on."""
    timeout_s: Positive = 3600.0
    """Seconds to wait for the slowest site of a round."""
    largest_update: Annotated[float, Field(gt=1, strict=True)] = 30.0
    """Times the median size of the other sites' updates; a larger one is left out."""

    @model_validator(mode="after")
    def _votes_have_no_factor(self) -> "Federation":
        if self.site_factor != "none" and self.strategy in ONE_VOTE_A_SITE:
            raise ValueError(
                f"site_factor = '{self.site_factor}' has no effect with strategy = '{self.strategy}', in which every "
                "site has one vote; leave one of them out"
            )
        return self

    def weight_of(self, *, patients: int, events: int) -> int:
        """What a site with so many training patients and events counts in the average; nothing where none taught it."""
        return events if self.weighted_by == "events" or events == 0 else patients

    @property
    def keeps_layers_at_sites(self) -> bool:
        """Whether the weights at the server are no model: sites test, and use, layers or heads of their own."""
        return self.local_normalisation or self.personal_epochs > 0


class Evaluation(Section):
    """How the model is tested."""

    scheme: Literal["split", "cv"] = "split"
    train_fraction: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.70
    validation_fraction: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.15
    """Of the whole in a split; in cross-validation its ratio to train_fraction divides each training part."""
    folds: Annotated[int, Field(ge=2, le=100, strict=True)] = 5
    repeats: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    members: Annotated[int, Field(ge=1, le=100, strict=True)] = 1
    """Networks of an ensemble: each divides the patients outside the test set anew, and their mean risk is tested."""
    bootstrap_replicates: Annotated[int, Field(ge=100, le=20_000, strict=True)] = 1000
    horizons_years: tuple[Positive, ...] = Field(default=(2.0, 5.0, 10.0), min_length=1)
    """Years after time zero at which absolute risks are given and tested, increasing."""

    @model_validator(mode="after")
    def _something_left_to_test(self) -> "Evaluation":
        if self.train_fraction + self.validation_fraction >= 1:
            raise ValueError("train_fraction + validation_fraction must leave patients to test (sum below 1)")
        if list(self.horizons_years) != sorted(set(self.horizons_years)):
            raise ValueError("horizons_years must increase")
        return self

    @property
    def tests(self) -> int:
        """Test sets of one evaluation."""
        return self.folds * self.repeats if self.scheme == "cv" else 1

    @property
    def runs(self) -> int:
        """Models trained for one evaluation."""
        return self.tests * self.members

    @property
    def models_a_patient(self) -> int:
        """Models that test one patient."""
        return self.members * (self.repeats if self.scheme == "cv" else 1)


class Experiment(Section):
    """A whole experiment."""

    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    data: Data = Data()
    imaging: Imaging = Imaging()
    model: Model = Model()
    cox: Cox = Cox()
    training: Training = Training()
    blending: Blending = Blending()
    federation: Federation = Federation()
    evaluation: Evaluation = Evaluation()
    radiomics: Radiomics = Radiomics()
    comparators: Comparators = Comparators()
    explain: Explain = Explain()

    @model_validator(mode="after")
    def _sections_agree(self) -> "Experiment":
        if self.blending.interval % self.training.local_epochs:
            raise ValueError(
                f"blending.interval ({self.blending.interval}) must be a multiple of "
                f"training.local_epochs ({self.training.local_epochs})"
            )
        adaptive = self.blending.method not in ("uniform", "none")
        if adaptive and self.blending.interval > self.training.epochs:
            raise ValueError(
                f"blending.interval ({self.blending.interval}) is above training.epochs ({self.training.epochs}): "
                f"'{self.blending.method}' would never blend; shorten it, or choose 'uniform' or 'none'"
            )
        heads = 1 + len(self.data.modalities)
        if self.blending.method == "robust" and not self.blending.floor * heads <= 1 <= self.blending.ceiling * heads:
            raise ValueError(
                f"blending.floor and blending.ceiling must allow {heads} weights to sum to 1: "
                f"floor at most {1 / heads:.2f}, ceiling at least {1 / heads:.2f}"
            )
        blocks = DENSE_BLOCKS[self.model.image_encoder]
        smallest = 2 ** (blocks + 1)
        if "image" in self.data.modalities and min(self.imaging.shape) < smallest:
            raise ValueError(
                f"imaging.shape must be at least {smallest} voxels along each axis for {self.model.image_encoder}"
            )
        if self.explain.block > blocks:
            raise ValueError(
                f"explain.block must be at most {blocks}: {self.model.image_encoder} has no more dense blocks"
            )
        if self.model.kind == "cox" and self.data.modalities != ("clinical",):
            raise ValueError("a Cox model takes clinical variables alone; set data.modalities = ['clinical']")
        if self.model.pretrained and "image" not in self.data.modalities:
            raise ValueError("model.pretrained is for the image encoder, but data.modalities has no 'image'")
        return self

    def with_pretrained(self, path: str) -> "Experiment":
        """The same with other pretrained weights.

        A path means something on one machine only: sites get the experiment without it, for the server makes the first
        weights; a report names the file alone.
        """
        return self.model_copy(update={"model": self.model.model_copy(update={"pretrained": path})})

    def with_kind(self, kind: ModelKind) -> "Experiment":
        """The same with another kind of model.

        Raises:
            ConfigError: when that kind does not fit the rest.
        """
        model = self.model.model_copy(update={"kind": kind})
        return parse_experiment(
            to_toml(self.model_copy(update={"model": model})), source=f"the experiment with model.kind = '{kind}'"
        )

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the output layers, the multimodal one first; a Cox model is one of its own."""
        if self.model.kind == "cox":
            return ("cox",)
        return ("fusion", *self.data.modalities)

    @property
    def checkpoint_rounds(self) -> int:
        """Rounds between two checkpoints of gradient blending."""
        return self.blending.interval // self.training.local_epochs

    def is_checkpoint(self, round_number: int) -> bool:
        """Whether blending looks at both losses after this round (round 0 is the untrained network)."""
        return round_number % self.checkpoint_rounds == 0


def read_experiment(path: Path, *, kind: ModelKind | None = None) -> Experiment:
    """Read and validate an experiment file; a path in it becomes absolute.

    Args:
        kind: of the model, in place of the file's.

    Raises:
        ConfigError: naming the file, every wrong key and the allowed choices.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such experiment file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; name an experiment file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save the experiment file as UTF-8") from None
    experiment = parse_experiment(text, source=str(path))
    if kind is not None:
        experiment = experiment.with_kind(kind)
    if not experiment.model.pretrained:
        return experiment
    return experiment.with_pretrained(str((path.parent / Path(experiment.model.pretrained).expanduser()).resolve()))


def parse_experiment(text: str, *, source: str) -> Experiment:
    """Validate the TOML text of an experiment; `source` names it in error messages."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from None
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        faults = "\n".join(f"  {_explain(fault)}" for fault in error.errors())
        raise ConfigError(f"{source}: the experiment is not valid\n{faults}") from None


def to_toml(experiment: Experiment) -> str:
    """The resolved experiment, every default spelled out."""
    return tomli_w.dumps(experiment.model_dump(mode="json"))


def _explain(fault: Any) -> str:
    """One line for one fault: the key, what is wrong, the choices."""
    location = [str(part) for part in fault["loc"]]
    key = ".".join(location)
    if fault["type"] == "extra_forbidden":
        section = _section_at(location[:-1])
        return f"{key}: unknown key; choose from {', '.join(section.model_fields)}"
    if fault["type"] == "missing" and location[-1].isdigit():
        return f"{'.'.join(location[:-1])}: its value number {int(location[-1]) + 1} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("value_error", "missing"):
        return f"{key}: {message}" if key else message
    return f"{key} = {fault['input']!r}: {message[0].lower()}{message[1:]}"


def _section_at(location: list[str]) -> type[BaseModel]:
    section: type[BaseModel] = Experiment
    for name in location:
        annotation = section.model_fields[name].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        section = annotation
    return section
