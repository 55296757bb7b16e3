"""What tells pictures apart: heads on features, and networks for a phone."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

from tasks.features.kinds import ExtractorSpec
from tasks.spec.base import IN_A_RECIPE, LocalPath, Name, Once, Seed, Spec, Truth, are_apart, doubled, is_full
from tasks.spec.views import View, is_none, is_one

# The experiment's own linear SVM: the teacher that is no network, and the first project's rows.
SVM_TEACHER = "svm"
# What the name of a student without its teacher ends in.
ALONE = "-alone"


# What a linear head minimises: beside |w|^2 / 2 the hinge loss of an SVM or the logistic loss of logistic regression;
# or the spread within the classes, against the distance of their means, of Fisher's discriminant.
Loss = Literal["hinge", "logistic", "discriminant"]


def is_constant(schedule: str) -> bool:
    return schedule == "constant"


def is_hinge(loss: Loss) -> bool:
    return loss == "hinge"


class SvmSpec(Spec):
    """How a linear head is fitted: C among candidates by validation, features scaled or not, calibrated or not.

    A discriminant has no C: its candidates are strengths of shrinkage, at most 1, of which large ones fit less closely.
    The seed protocol's is `SvmSpec(c_values=(1.0,), standardise=False, calibrate=False)`: threshold decision > 0.
    """

    c_values: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Once] = Field(
        default=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0), min_length=1
    )
    standardise: Truth = True
    calibrate: Truth = True

    @property
    def looks_at_val(self) -> bool:
        """Whether val rows decide anything: C, or the calibration."""
        return self.calibrate or len(self.c_values) > 1


Role = Literal["detector", "probe"]


class Fit(Spec):
    """Which detector it is, and which fit of it: what tables tell one set of scores from another by.

    `seed` is the training seed. `fitted_on` names the only generator that it was fitted on, `without` the only one that
    it was not, or the only family of them or source of photographs; both are None for a fit on all of them. A `probe`
    should be at chance: it sees no content.
    """

    detector: Name
    seed: Seed = 0
    fitted_on: Name | None = None
    without: Name | None = None
    role: Role = "detector"

    @property
    def is_whole(self) -> bool:
        """Whether it is the detector itself: fitted on all generators, with the first training seed."""
        return self.seed == 0 and self.fitted_on is None and self.without is None

    @property
    def label(self) -> str:
        """Its name in places of the store and for people, such as `svm`, `svm-1`, `svm-gan` or `dense-without-gan`."""
        absent = f"without-{self.without}" if self.without else None
        return "-".join(str(part) for part in (self.detector, self.seed or None, self.fitted_on, absent) if part)

    @model_serializer(mode="wrap")
    def _in_a_recipe(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        """Recipes have one text in its place, as they had before it had fields; nobody reads it."""
        if info.context != IN_A_RECIPE:
            return write(self)
        return self.recipe_name if self.role == "detector" else f"{self.recipe_name} as {self.role}"

    @property
    def recipe_name(self) -> str:
        """What it was called in recipes, whatever its role, before it had fields."""
        seed = f"#{self.seed}" if self.seed else ""
        only = f"@{self.fitted_on}" if self.fitted_on else ""
        absent = f"@without-{self.without}" if self.without else ""
        return f"{self.detector}{seed}{only}{absent}"


class HeadSpec(Spec):
    """One head: a linear SVM, a logistic regression or a linear discriminant on features of some views and sources.

    A fit with seed 0 takes all training rows, one with another seed a bootstrap sample of the training groups.
    """

    fit: Fit
    extractor: ExtractorSpec
    views: Annotated[tuple[View, ...], Once] = Field(min_length=1)
    real: Annotated[tuple[Name, ...], Once] = Field(min_length=1)
    fakes: Annotated[tuple[Name, ...], Once] = Field(min_length=1)
    svm: SvmSpec = SvmSpec()
    # Left out where it is the default, so that recipes from before it was a choice stay what they are.
    loss: Loss = Field(default="hinge", exclude_if=is_hinge)

    @model_serializer(mode="wrap")
    def _in_a_recipe(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        if info.context == IN_A_RECIPE:
            # What is fitted does not depend on its role, which is therefore said beside the head where it matters.
            del document["fit"]
            document |= {"name": self.fit.recipe_name, "seed": self.fit.seed}
        return document


class Training(Spec):
    """How a network is trained: Adam, early stopping on the validation loss, the best epoch's weights restored.

    `balanced` weighs photographs and fakes alike, and within each the sources; else every picture counts once.
    `augmented` draws a view of the experiment's grid for each picture and epoch. `random_windows`, of the crop path
    alone, draws for each picture and epoch a window, a mirroring, for every second one a JPEG quality of 30 to 100, and
    of what that leaves a part of so many pixels a side: alike for photographs and fakes. The rate of `one-cycle` rises
    to `learning_rate` and falls to nothing over all epochs (Smith & Topin 2018, arXiv 1708.07120). With `precision`
    bfloat16 layers are computed in it, and weights, sums and losses kept in float32. `compile` compiles the network on
    a GPU, for speed alone, so that no recipe contains it.
    """

    epochs: int = Field(default=5, ge=1)
    batch: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    patience: int = Field(default=5, ge=1)
    balanced: Truth = True
    augmented: Truth = False
    # Left out where it is the default, so that recipes from before it was a choice stay what they are.
    precision: Literal["float32", "bfloat16"] = Field(default="float32", exclude_if=is_full)
    random_windows: Annotated[int, Field(ge=32, le=512, multiple_of=8)] | None = Field(default=None, exclude_if=is_none)
    schedule: Literal["constant", "one-cycle"] = Field(default="constant", exclude_if=is_constant)
    compile: Truth = Field(default=False, exclude=True)


class NetworkBase(Spec):
    """What all networks share. With more than one of `seeds`, the spread over training seeds is reported."""

    name: Name
    seeds: int = Field(default=1, ge=1, le=20)

    @model_validator(mode="before")
    @classmethod
    def _trains_as_its_kind_does(cls, document: Any) -> Any:
        """Of a training that is named in part, the rest is the kind's own, not that of any training."""
        field = cls.model_fields.get("training")
        named = document.get("training") if isinstance(document, dict) else None
        if field is None or not isinstance(named, dict):
            return document
        own = field.get_default(call_default_factory=True)
        return document | {"training": own.model_dump(mode="json", exclude_unset=True) | named}


class FineTuned(NetworkBase):
    """MobileNetV2 with a new head (`v1` pool-256-128-k, `v2` pool-128-k, `v3` pool-k), its last layers unlocked.

    `unlocked` counts layers from the end of the trunk as Keras lists them: a convolution, its batch norm and its
    activation are one each. `weights` is `imagenet` (torchvision's own download), `random:<seed>`, or a path or URL of
    safetensors with torchvision's names.
    """

    kind: Literal["fine-tuned"] = "fine-tuned"
    head: Literal["v1", "v2", "v3"] = "v3"
    unlocked: Annotated[int, Field(ge=0, le=200)] | Literal["all"] = 8
    width: float = Field(default=1.0, ge=0.1, le=1.4)
    weights: LocalPath = "imagenet"
    side: int = Field(default=224, ge=32, le=512)
    training: Training = Training()


# What a network sees in a picture's place: how far each pixel is from what its neighbours say.
FrontEnd = Literal["median", "wavelet", "nearest"]


class Residual(NetworkBase):
    """A small network that sees no picture, only what its front end leaves of one; it begins with random weights.

    The front end is how far each pixel is from the median of its eight neighbours (as in FerretNet: Liang et al. 2025,
    arXiv 2509.20890), the diagonal detail of a Haar wavelet at every pixel (as in SAFE: Li et al. 2024, arXiv
    2408.06741), or the difference from the nearest pixel of a picture of half the size (NPR: Tan et al. 2024, arXiv
    2312.10461). Behind it are the first, finest stages of a MobileNetV2 of a `width`. With `left_out` it is trained
    without each family of generators, too, and evaluated on it.
    """

    kind: Literal["residual"] = "residual"
    front_end: FrontEnd = "median"
    width: float = Field(default=1.0, ge=0.25, le=2.0)
    side: int = Field(default=256, ge=32, le=512, multiple_of=8)
    left_out: Truth = False
    training: Training = Training(epochs=30, patience=30, learning_rate=2e-3, random_windows=128, schedule="one-cycle")


class MagnitudePruned(NetworkBase):
    """Small weights of another network set to zero, ever more of them while it is trained on (Zhu & Gupta 2017)."""

    kind: Literal["magnitude-pruned"] = "magnitude-pruned"
    of: Name
    first_sparsity: float = Field(default=0.10, ge=0, lt=1)
    last_sparsity: float = Field(default=0.40, gt=0, lt=1)
    training: Training = Training(learning_rate=1e-4)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.first_sparsity > self.last_sparsity:
            raise ValueError(f"sparsity falls from {self.first_sparsity} to {self.last_sparsity}: it has to rise")
        return self


class StructurePruned(NetworkBase):
    """Channels of another network removed in `steps` until `macs` of its multiply-accumulates are left.

    After each step but the last it is trained for `epochs_between`, after the last as `training` says.
    """

    kind: Literal["structure-pruned"] = "structure-pruned"
    of: Name
    macs: float = Field(default=0.5, gt=0.02, lt=1)
    steps: int = Field(default=3, ge=1)
    epochs_between: int = Field(default=1, ge=0)
    training: Training = Training(learning_rate=1e-4)


class Distilled(NetworkBase):
    """A student trained on a teacher's probabilities beside the labels (Hinton, Vinyals & Dean 2015).

    The student starts from the network `of`, or as a narrow MobileNetV2 of `width` with random weights. `teachers` are
    networks, or `svm` for the experiment's linear SVM; the probabilities of several are averaged. The same student
    without a teacher is always trained beside it, as `<name>-alone`.
    """

    kind: Literal["distilled"] = "distilled"
    of: Name | None = None
    width: float | None = Field(default=None, ge=0.1, le=1.4)
    side: int = Field(default=224, ge=32, le=512)
    teachers: Annotated[tuple[Name, ...], Once] = Field(min_length=1)
    temperature: float = Field(default=4.0, ge=1)
    weight: float = Field(default=0.7, gt=0, le=1)
    seeds: int = Field(default=3, ge=1, le=20)
    training: Training = Training(learning_rate=1e-4)

    @model_validator(mode="after")
    def _has_one_student(self) -> Self:
        if (self.of is None) == (self.width is None):
            raise ValueError("a student is either another network (of) or a narrow one (width): name one of them")
        return self


class Quantized(NetworkBase):
    """Another network with 8-bit weights and activations, calibrated on train pictures.

    Where it loses more than `tolerance` points of accuracy on val, and more than chance explains, the layers that lose
    most stay in float.
    """

    kind: Literal["quantized"] = "quantized"
    of: Name
    calibration_pictures: int = Field(default=128, ge=8)
    tolerance: float = Field(default=1.0, ge=0)


NetworkSpec = Annotated[
    FineTuned | Residual | MagnitudePruned | StructurePruned | Distilled | Quantized, Field(discriminator="kind")
]


class Rejection(Spec):
    """When a network should answer "unknown source": its score of familiarity lies below what val pictures have.

    `kept` is the share of known val pictures that are answered. `bounds` are constant lower bounds on the maximum
    probability, as the second project had them.
    """

    score: Literal["max-probability", "energy", "distance"] = "distance"
    kept: float = Field(default=0.95, gt=0, lt=1)
    bounds: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Once] = (0.6, 0.7)
    # Sources with `evaluated: false` that no network is trained on: unknown generators, and known ones that changed.
    unknown: Annotated[tuple[Name, ...], Once] = ()
    shifted: Annotated[tuple[Name, ...], Once] = ()

    @model_validator(mode="after")
    def _has_each_source_once(self) -> Self:
        for name in doubled((*self.unknown, *self.shifted)):
            raise ValueError(f"{name} is unknown or shifted, not both")
        return self


class Mobile(Spec):
    """Networks for a phone. Each after the first is compared with the first: what it costs, and what it saves.

    On the crop path a network forms one opinion of so many `windows` of a picture.
    """

    networks: Annotated[tuple[NetworkSpec, ...], Once] = Field(min_length=1)
    windows: int = Field(default=1, ge=1, le=25, exclude_if=is_one)
    rejection: Rejection = Rejection()

    @model_validator(mode="after")
    def _is_a_chain(self) -> Self:
        known: dict[str, str] = {}
        for network in self.networks:
            if network.name == SVM_TEACHER or network.name.endswith(ALONE):
                raise ValueError(f"{network.name}: a network's name is not {SVM_TEACHER} and does not end in {ALONE}")
            origin: str | None = getattr(network, "of", None)
            teachers: tuple[str, ...] = getattr(network, "teachers", ())
            for parent in (*([origin] if origin else []), *(name for name in teachers if name != SVM_TEACHER)):
                if parent not in known:
                    raise ValueError(f"{network.name}: unknown network {parent!r}, expected one before it: {[*known]}")
                if known[parent] == "quantized":
                    raise ValueError(f"{network.name}: {parent!r} is quantized, which nothing can be made from")
            known[network.name] = network.kind
        are_apart("networks", known)
        if not isinstance(self.networks[0], FineTuned | Residual):
            raise ValueError(f"the first network must be fine-tuned or residual, got {self.networks[0].kind}")
        return self
