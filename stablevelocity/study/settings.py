"""Sections of a study file: the one source of defaults and checks. `study.py` puts the sections together."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from stablevelocity.architectures import ENCODER_NAMES, SIT_NAMES, SIZES
from stablevelocity.study.values import (
    NUMBER,
    Distinct,
    Flag,
    Fraction,
    FractionOrAuto,
    Label,
    Location,
    Name,
    Positive,
    PositiveFloat,
    Seed,
    SeedOrByRun,
    Shards,
    Share,
    ShareBelow1,
    ShareOrAuto,
    Size,
    Some,
    Steps,
    Text,
    one_of,
)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Images(Section):
    """Where the images come from and how they are cut into shards."""

    dataset: Literal["digits", "cifar10", "folder"] = "digits"
    path: Location | None = Field(default=None, description="folder of the data set; digits ship with scikit-learn")
    size: Annotated[int, Field(gt=0, le=4096), NUMBER] = Field(
        default=16, description="side in pixels after the centre crop"
    )
    held_out: Fraction = Field(default=0.2, description="share of digits kept out of training")
    seed: Seed = Field(default=0, description="of the split of the digits")
    count: Positive | None = Field(default=None, description="readable train images there must be; ImageNet: 1281167")
    shards: Shards = Field(default=2, description="shards of the train split; one job each")

    @model_validator(mode="after")
    def _path_fits(self) -> "Images":
        if self.dataset == "digits":
            if self.path is not None:
                raise ValueError("path: digits ship with scikit-learn; leave it out")
        elif self.path is None:
            # Whether it is there is checked when it is read: a study can be planned without its data.
            raise ValueError(f"path: {self.dataset} needs the folder of the data set")
        return self


class Autoencoder(Section):
    """A small AutoencoderKL trained here, or a pretrained one by id."""

    pretrained: Text | None = Field(default=None, description="hub id or folder in diffusers format; none: train one")
    revision: Text | None = Field(default=None, description="pinned revision of the hub id")
    decoder: Text | None = Field(default=None, description="another autoencoder that decodes; none: the same")
    decoder_revision: Text | None = None
    scale: PositiveFloat | None = Field(default=None, description="overrides the file's scaling_factor")
    widths: list[Size] = Field(
        default=[16, 32], min_length=1, max_length=8, description="channels per level of the one trained here"
    )
    channels: Size = Field(default=4, description="latent channels")
    steps: Steps = 600
    batch: Size = 64
    lr: PositiveFloat = 3e-3
    kl_weight: PositiveFloat = 1e-4
    seed: Seed = 0

    @model_validator(mode="after")
    def _hub_ids_are_pinned(self) -> "Autoencoder":
        for key, revision in (("pretrained", self.revision), ("decoder", self.decoder_revision)):
            value = getattr(self, key)
            if value is not None and not Path(value).is_dir():
                if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", value):
                    raise ValueError(f"{key}: no folder {value!r}, and not a hub id (owner/name)")
                if revision is None:
                    raise ValueError(f"{key}: the hub id {value!r} needs a pinned revision")
        return self


class Encoder(Section):
    """The frozen encoder whose tokens the network is aligned with (docs/paper.md#va-repa)."""

    name: Annotated[str, one_of(ENCODER_NAMES)] = Field(
        default="digits-vit",
        description="digits-vit or, without labels, digits-vit-ssl (trained here), or a name of architectures.py",
    )
    path: Location | None = Field(default=None, description="file or folder with the weights of a pretrained encoder")
    online: Flag = Field(
        default=False, description="run the encoder at every step instead of keeping its features on disk"
    )
    grid: Size = Field(default=16, description="tokens per side; must be the network's, latent side / patch")
    steps: Steps = Field(default=400, description="training steps of one trained here")
    seed: Seed = 0


class Sizes(NamedTuple):
    depth: int
    width: int
    heads: int
    patch: int


class Model(Section):
    """SiT by its published name, or by its sizes."""

    name: Annotated[str, one_of(SIT_NAMES)] | None = Field(
        default=None, description="SiT-{S,B,L,XL}/{2,4,8}; none: by the sizes below"
    )
    depth: Size = 4
    width: Size = 64
    heads: Size = 4
    patch: Size = 2
    encoder_depth: Size | None = Field(
        default=None,
        description="the block, counted from 1, whose tokens are aligned; none: the paper's for a named model (4 in S "
        "and B, 8 in L and XL), 2 for one by its sizes",
    )
    projector_width: Size = Field(default=2048, description="hidden width of the projector")

    @property
    def sizes(self) -> Sizes:
        if self.name is None:
            return Sizes(self.depth, self.width, self.heads, self.patch)
        size, patch = self.name.removeprefix("SiT-").split("/")
        return Sizes(SIZES[size]["depth"], SIZES[size]["width"], SIZES[size]["heads"], int(patch))


class Bank(Section):
    capacity: Size = Field(default=256, description="references per class (K)")
    null_capacity: Positive | None = Field(default=None, description="of the null class; none: K times the classes")
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: Literal["accelerator", "host"] = Field(default="accelerator", description="host: pinned memory")


class BySplitPoint(Section):
    """A section of which one number may be "auto": the split point of the study's own latents (`load.resolve`)."""

    number: ClassVar[str]
    _interval: tuple[float, float] | None = PrivateAttr(default=None)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of a number that the variance curve gave; none for one that the study file gives."""
        return self._interval

    @property
    def is_auto(self) -> bool:
        return self._interval is not None or getattr(self, self.number) == "auto"

    def resolved(self, value: float, low: float, high: float) -> Self:
        """With the number in place of "auto"."""
        made = self.model_copy(update={self.number: value})
        made._interval = low, high
        return made


class StableVM(BySplitPoint):
    """The StableVM target: from which time on, and its references (docs/paper.md#stablevm)."""

    number = "t_min"
    t_min: ShareOrAuto = Field(
        default=0.5, description="below it the plain CFM target is used; auto: the split point of the study's latents"
    )
    bank: Bank = Bank()


class Alignment(BySplitPoint):
    """REPA and its variance-aware weights (docs/paper.md#va-repa)."""

    number = "xi"
    schedule: Literal["hard", "hard_high", "sigmoid", "cosine", "snr", "uniform"] = "sigmoid"
    xi: FractionOrAuto = Field(default=0.7, description="auto: the split point of the study's latents")
    k: PositiveFloat = 20.0
    coefficient: PositiveFloat = Field(default=0.5, description="lambda")
    projector: Literal["mlp", "conv"] = Field(default="mlp", description="conv: iREPA")
    spatial_norm: Share | None = Field(default=None, description="gamma of iREPA's normalisation (0.6); none: off")


class Training(Section):
    """Network, optimiser and schedule; the defaults are the paper's (docs/paper.md#imagenet)."""

    model: Model = Model()
    seeds: Some[Seed] = [0, 1]
    steps: Steps = 400_000
    milestones: list[Steps] = Field(default=[], description="earlier steps whose weights are kept and evaluated")
    batch: Size = Field(default=256, description="global batch")
    micro_batch: Size | None = Field(default=None, description="largest batch on one device; none: no accumulation")
    lr: PositiveFloat = 1e-4
    betas: tuple[ShareBelow1, ShareBelow1] = (0.9, 0.999)
    weight_decay: Share = 0.0
    clip: PositiveFloat = 1.0
    ema: Fraction = 0.9999
    label_drop: Share = Field(default=0.1, description="labels replaced by the null class; 1: no label is seen")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: Flag = False
    gradient_checkpointing: Flag = False
    checkpoint_every: Positive = 10_000
    log_every: Positive = 100
    threads: Size | None = Field(default=None, description="CPU threads of a run; none: what the rule was given")

    @model_validator(mode="after")
    def _milestones_come_before_the_end(self) -> "Training":
        if any(step >= self.steps for step in self.milestones):
            raise ValueError(f"milestones: each must be below steps ({self.steps}), given {self.milestones}")
        if any(later <= step for step, later in pairwise(self.milestones)):
            raise ValueError(f"milestones: each must be above the one before, given {self.milestones}")
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch: {self.micro_batch} does not divide batch ({self.batch})")
        return self


class Arm(Section):
    """One row of the training tables: an objective, an alignment, and what differs from `training`."""

    label: Label = Field(description="its name in tables and figures")
    objective: Literal["cfm", "stf", "stablevm"] = "cfm"
    stablevm: StableVM = StableVM()
    alignment: Alignment | None = None
    class_token: Flag = Field(default=False, description="REG: the encoder's class token as an input token")
    training: dict[str, Any] = Field(default={}, description="keys of `training` that differ for this arm")

    def by_split_point(self) -> dict[str, BySplitPoint]:
        """The sections that the arm uses and of which a number may be "auto"."""
        used = {"stablevm": self.stablevm if self.objective != "cfm" else None, "alignment": self.alignment}
        return {name: section for name, section in used.items() if section is not None}


class Sampler(Section):
    """How images are sampled from a trained network (docs/evaluation.md#images-in-blocks)."""

    solver: Literal["euler", "heun", "euler_maruyama"] = "euler"
    steps: Steps = 50
    shift: PositiveFloat = Field(default=1.0, description="times become s t/(1 + (s - 1) t); not Euler-Maruyama's")
    diffusion: Literal["t", "2t"] = Field(default="t", description="g(t) of Euler-Maruyama")
    last_time: Fraction = Field(default=0.04, description="Euler-Maruyama: where the one mean step to 0 starts")
    guidance: Annotated[float, Field(ge=1, le=1000), NUMBER] = 1.0
    guidance_interval: tuple[Share, Share] = (0.0, 1.0)
    labels: Literal["random", "balanced", "none"] = "random"
    low_regime: Literal["none", "stablevs", "control"] = Field(
        default="none", description="below xi: StableVS on the thinned grid, or the base solver on that grid"
    )
    xi: Fraction = 0.85
    low_steps: Steps = 9
    noise_factor: Share = 0.0

    @field_validator("guidance_interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] >= interval[1]:
            raise ValueError(f"low must be below high, given {list(interval)}")
        return interval

    @model_validator(mode="after")
    def _shift_fits(self) -> "Sampler":
        if self.shift != 1 and self.solver == "euler_maruyama":
            raise ValueError(f"shift: {self.shift:g}, but Euler-Maruyama has a grid of its own; leave it out")
        return self


class Sweep(Section):
    """Sweeps of trained runs with few steps and with the same noise (docs/evaluation.md#few-steps-same-noise)."""

    arms: Distinct[Name] = Field(default=[], description="arms whose first seed is swept; empty: all")
    solvers: Some[Literal["euler", "heun", "euler_maruyama"]] = ["euler", "heun", "euler_maruyama"]
    thinned: Distinct[Literal["euler", "heun", "euler_maruyama"]] = Field(
        default=["euler"], description="solvers also run as StableVS and as its control arm, for each xi and low_steps"
    )
    steps: Distinct[Steps] = [8, 12, 16, 20, 30]
    shift: PositiveFloat = Field(default=1.0, description="of the times of Euler and Heun; the large models: 3")
    base_steps: Steps = Field(default=30, description="the grid that StableVS thins, and the same-noise reference")
    xi: Distinct[Fraction] = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9]
    low_steps: Distinct[Steps] = [3, 6, 9]
    images: Positive = 512


class Sampling(Section):
    """Named samplers; each is run for every arm, seed and milestone, or for the arms it names."""

    images: Positive = Field(default=50_000, description="images per set")
    shards: Shards = Field(default=1, description="jobs per set")
    block: Size = Field(default=64, description="images generated together; part of the randomness")
    seed: SeedOrByRun = Field(
        default=0, description="by_run: a run's own, so that its seeds differ in their samples too"
    )
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: Flag = Field(default=False, description="compile the network: other rounding, 1.6 times faster on an H100")
    samplers: dict[Name, Sampler] = Field(default={}, description="by name; one at least where there are arms")
    main: str = Field(default="", max_length=64, description="the sampler of the training tables")
    arms: dict[Name, Some[Name]] = Field(default={}, description="sampler: the arms it is limited to")
    sweep: Sweep = Sweep()


class Evaluation(Section):
    """Feature extractor, reference and settings of the metrics (docs/evaluation.md#conventions)."""

    extractor: Literal["digits", "inception"] = "digits"
    weights: Location | None = Field(default=None, description="file of the Inception weights")
    reference: Location | None = Field(default=None, description="ADM reference batch (.npz); none: the train split")
    judge_steps: Steps = Field(default=400, description="training steps of the digit classifier")
    neighbours: Positive = 3
    bootstrap: Annotated[int, Field(gt=0, le=1_000_000), NUMBER] = 200
    seed: Seed = 0
