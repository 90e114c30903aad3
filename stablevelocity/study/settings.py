"""Sections of a study file: the one source of defaults and checks.

Light on purpose (no torch): Snakemake reads it on every start. `study.py` puts the sections together.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
#: What the study, an arm or a sampler is called: part of paths, wildcards and job names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Images(Section):
    """Where the images come from and how they are cut into shards."""

    dataset: Literal["digits", "cifar10", "folder"] = "digits"
    path: Path | None = Field(default=None, description="folder of the data set; digits ship with scikit-learn")
    size: Positive = Field(default=16, description="side in pixels after the centre crop")
    held_out: Fraction = Field(default=0.2, description="share of digits kept out of training")
    seed: int = Field(default=0, description="of the split of the digits")
    count: Positive | None = Field(default=None, description="readable train images there must be; ImageNet: 1281167")
    shards: Positive = Field(default=2, description="shards of the train split; one job each")

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

    pretrained: str | None = Field(default=None, description="hub id or folder in diffusers format; none: train one")
    revision: str | None = Field(default=None, description="pinned revision of the hub id")
    decoder: str | None = Field(default=None, description="another autoencoder that decodes; none: the same")
    decoder_revision: str | None = None
    scale: PositiveFloat | None = Field(default=None, description="overrides the file's scaling_factor")
    widths: list[Positive] = Field(default=[16, 32], description="channels per level of the one trained here")
    channels: Positive = Field(default=4, description="latent channels")
    steps: Positive = 600
    batch: Positive = 64
    lr: PositiveFloat = 3e-3
    kl_weight: PositiveFloat = 1e-4
    seed: int = 0

    @model_validator(mode="after")
    def _hub_ids_are_pinned(self) -> "Autoencoder":
        for key, revision in (("pretrained", self.revision), ("decoder", self.decoder_revision)):
            value = getattr(self, key)
            if value is not None and not Path(value).is_dir():
                if value.startswith((".", "/")) or value.count("/") != 1:
                    raise ValueError(f"{key}: no folder {value!r}, and not a hub id (owner/name)")
                if revision is None:
                    raise ValueError(f"{key}: the hub id {value!r} needs a pinned revision")
        return self


class Encoder(Section):
    """The frozen encoder whose tokens the network is aligned with (docs/paper.md#va-repa)."""

    name: str = Field(
        default="digits-vit",
        description="digits-vit or, without labels, digits-vit-ssl (trained here), or a name of models/encoders.py",
    )
    path: Path | None = Field(default=None, description="file or folder with the weights of a pretrained encoder")
    online: bool = Field(
        default=False, description="run the encoder at every step instead of keeping its features on disk"
    )
    grid: Positive = Field(default=16, description="tokens per side; must be the network's, latent side / patch")
    steps: Positive = Field(default=400, description="training steps of one trained here")
    seed: int = 0


class Variance(Section):
    """Variance curves of mixtures, pixels and latents (figure 1; docs/paper.md#variance)."""

    gmm_dimensions: list[Positive] = [10, 100, 500]
    gmm_samples: Positive = Field(default=10_000, description="points of the empirical law of each mixture")
    gmm_times: Positive = 50
    exact_samples: Positive = Field(default=2000, description="noised samples of the exact law")
    data: list[Literal["pixels", "latents"]] = ["pixels", "latents"]
    data_samples: Positive = Field(default=50_000, description="at most this many images; fewer if there are fewer")
    data_times: Positive = 20
    reference_counts: list[Positive] = Field(
        default=[100, 1000, 10_000], description="sizes of the empirical law for the dependence on M"
    )
    seed: int = 42


class Toy(Section):
    """The toy experiment: a mixture whose velocity is known (docs/paper.md#toy)."""

    objectives: list[Literal["cfm", "stf", "stablevm"]] = ["cfm", "stf", "stablevm"]
    seeds: list[int] = [0, 1, 2, 3, 4]
    updates: Positive = 20_000
    batch: Positive = 256
    references: Positive = 2048
    lr: PositiveFloat = 1e-4
    ema: Fraction = 0.999
    evaluate_every: Positive = 500
    points: Positive = 10_000
    times: list[Fraction] = [0.2, 0.3, 0.4, 0.5]


class Model(Section):
    """SiT by its published name, or by its sizes."""

    name: str | None = Field(default=None, description="SiT-{S,B,L,XL}/{2,4,8}; none: by the sizes below")
    depth: Positive = 4
    width: Positive = 64
    heads: Positive = 4
    patch: Positive = 2
    encoder_depth: Positive | None = Field(
        default=None,
        description="the block, counted from 1, whose tokens are aligned; none: the paper's for a named model (4 in S "
        "and B, 8 in L and XL), 2 for one by its sizes",
    )
    projector_width: Positive = Field(default=2048, description="hidden width of the projector")

    @field_validator("name")
    @classmethod
    def _published(cls, name: str | None) -> str | None:
        names = [f"SiT-{size}/{patch}" for size in ("S", "B", "L", "XL") for patch in (2, 4, 8)]
        if name is not None and name not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return name


class Bank(Section):
    capacity: Positive = Field(default=256, description="references per class (K)")
    null_capacity: Positive | None = Field(default=None, description="of the null class; none: K times the classes")
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: Literal["accelerator", "host"] = Field(default="accelerator", description="host: pinned memory")


class StableVM(Section):
    """The StableVM target: from which time on, and its references (docs/paper.md#stablevm)."""

    t_min: Share = Field(default=0.5, description="below it the plain CFM target is used")
    bank: Bank = Bank()


class Alignment(Section):
    """REPA and its variance-aware weights (docs/paper.md#va-repa)."""

    schedule: Literal["hard", "hard_high", "sigmoid", "cosine", "snr", "uniform"] = "sigmoid"
    xi: Fraction = 0.7
    k: PositiveFloat = 20.0
    coefficient: PositiveFloat = Field(default=0.5, description="lambda")
    projector: Literal["mlp", "conv"] = Field(default="mlp", description="conv: iREPA")
    spatial_norm: Share | None = Field(default=None, description="gamma of iREPA's normalisation (0.6); none: off")


class Training(Section):
    """Network, optimiser and schedule; the defaults are the paper's (docs/paper.md#imagenet)."""

    model: Model = Model()
    seeds: list[int] = Field(default=[0, 1], min_length=1)
    steps: Positive = 400_000
    milestones: list[Positive] = Field(default=[], description="earlier steps whose weights are kept and evaluated")
    batch: Positive = Field(default=256, description="global batch")
    micro_batch: Positive | None = Field(default=None, description="largest batch on one device; none: no accumulation")
    lr: PositiveFloat = 1e-4
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: PositiveFloat = 1.0
    ema: Fraction = 0.9999
    label_drop: Share = 0.1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    gradient_checkpointing: bool = False
    checkpoint_every: Positive = 10_000
    log_every: Positive = 100
    threads: Positive | None = Field(default=None, description="CPU threads of a run; none: what the rule was given")

    @model_validator(mode="after")
    def _milestones_come_before_the_end(self) -> "Training":
        if any(step >= self.steps for step in self.milestones):
            raise ValueError(f"milestones: each must be below steps ({self.steps}), given {self.milestones}")
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch: {self.micro_batch} does not divide batch ({self.batch})")
        return self


class Arm(Section):
    """One row of the training tables: an objective, an alignment, and what differs from `training`."""

    label: str = Field(description="its name in tables and figures")
    objective: Literal["cfm", "stablevm"] = "cfm"
    stablevm: StableVM = StableVM()
    alignment: Alignment | None = None
    class_token: bool = Field(default=False, description="REG: the encoder's class token as an input token")
    training: dict[str, Any] = Field(default={}, description="keys of `training` that differ for this arm")


class Sampler(Section):
    """How images are sampled from a trained network (docs/evaluation.md#images-in-blocks)."""

    solver: Literal["euler", "heun", "euler_maruyama"] = "euler"
    steps: Positive = 50
    diffusion: Literal["t", "2t"] = Field(default="t", description="g(t) of Euler-Maruyama")
    last_time: Fraction = Field(default=0.04, description="Euler-Maruyama: where the one mean step to 0 starts")
    guidance: Annotated[float, Field(ge=1)] = 1.0
    guidance_interval: tuple[Share, Share] = (0.0, 1.0)
    labels: Literal["random", "balanced"] = "random"
    low_regime: Literal["none", "stablevs", "control"] = Field(
        default="none", description="below xi: StableVS on the thinned grid, or the base solver on that grid"
    )
    xi: Fraction = 0.85
    low_steps: Positive = 9
    noise_factor: Share = 0.0

    @field_validator("guidance_interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] >= interval[1]:
            raise ValueError(f"low must be below high, given {list(interval)}")
        return interval


class Sweep(Section):
    """Sweeps of trained runs with few steps and with the same noise (docs/evaluation.md#few-steps-same-noise)."""

    arms: list[Name] = Field(default=[], description="arms whose first seed is swept; empty: all")
    solvers: list[Literal["euler", "heun", "euler_maruyama"]] = ["euler", "heun", "euler_maruyama"]
    thinned: list[Literal["euler", "heun", "euler_maruyama"]] = Field(
        default=["euler"], description="solvers also run as StableVS and as its control arm, for each xi and low_steps"
    )
    steps: list[Positive] = [8, 12, 16, 20, 30]
    base_steps: Positive = Field(default=30, description="the grid that StableVS thins, and the same-noise reference")
    xi: list[Fraction] = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9]
    low_steps: list[Positive] = [3, 6, 9]
    images: Positive = 512


class Sampling(Section):
    """Named samplers; each is run for every arm, seed and milestone, or for the arms it names."""

    images: Positive = Field(default=50_000, description="images per set")
    shards: Positive = Field(default=1, description="jobs per set")
    block: Positive = Field(default=64, description="images generated together; part of the randomness")
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = Field(default=False, description="compile the network: other rounding, 1.6 times faster on an H100")
    samplers: dict[Name, Sampler] = Field(default={}, description="by name; one at least where there are arms")
    main: str = Field(default="", description="the sampler of the training tables")
    arms: dict[Name, list[Name]] = Field(default={}, description="sampler: the arms it is limited to")
    sweep: Sweep = Sweep()


class Evaluation(Section):
    """Feature extractor, reference and settings of the metrics (docs/evaluation.md#conventions)."""

    extractor: Literal["digits", "inception"] = "digits"
    weights: Path | None = Field(default=None, description="file of the Inception weights")
    reference: Path | None = Field(default=None, description="ADM reference batch (.npz); none: the train split")
    judge_steps: Positive = Field(default=400, description="training steps of the digit classifier")
    neighbours: Positive = 3
    bootstrap: Positive = 200
    seed: int = 0
