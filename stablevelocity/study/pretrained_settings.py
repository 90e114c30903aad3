"""The `pretrained` section of a study: large models, or tiny ones of the same classes, under StableVS."""

from typing import Annotated, Literal

from pydantic import Field

from stablevelocity.study.settings import Section
from stablevelocity.study.values import (
    NUMBER,
    Distinct,
    Fraction,
    Location,
    Name,
    PositiveFloat,
    Seed,
    Shards,
    Share,
    Size,
    Steps,
)

FamilyName = Literal["sd35", "flux", "qwen-image", "wan22"]

#: The paper's base steps of each model (docs/paper.md#stablevs): long, short.
BASE_STEPS: dict[str, tuple[int, int]] = {"sd35": (30, 20), "flux": (30, 20), "qwen-image": (30, 17), "wan22": (30, 20)}
#: Base solvers, the paper's main one first.
SOLVERS = {"sd35": ("euler", "dpm"), "flux": ("euler",), "qwen-image": ("euler",), "wan22": ("unipc",)}
VIDEO = ("wan22",)
#: Tiny autoencoders that come from another family's where the study has it: flux has sd35's class, and wan22's is
#: qwen-image's with time.
AUTOENCODER_FROM = {"flux": "sd35", "wan22": "qwen-image"}


class TinyTraining(Section):
    """How a tiny model is trained on captioned digits."""

    scenes: Annotated[int, Field(gt=0, le=1_000_000), NUMBER] = 8192
    autoencoder_steps: Steps = 600
    autoencoder_batch: Size = 32
    steps: Steps = 2000
    batch: Size = 64
    lr: PositiveFloat = Field(default=2e-3, description="peak; linear warm-up, then half a cosine")
    drop_prompt: Fraction = Field(default=0.1, description="share of prompts dropped, for guidance")
    time_shift: PositiveFloat = Field(default=3.0, description="moves the logit-normal times towards noise")
    ema: Fraction = 0.998
    seed: Seed = 0


class PretrainedFamily(Section):
    """One model of tables 4 and 5."""

    tiny: TinyTraining | None = Field(
        default=None, description="train a tiny model of the real classes; none: the original"
    )
    folder: Location | None = Field(default=None, description="pipeline folder of the original; none: the hub's cache")
    prompts: Location | None = Field(default=None, description="GenEval's metadata file, or T2V-CompBench's prompts")
    category: Name = Field(default="consistent_attr", description="of T2V-CompBench's prompt file")
    prompts_per_task: Annotated[int, Field(gt=0, le=10_000), NUMBER] = Field(
        default=20, description="digit prompts: of each of six tasks; videos: in all"
    )
    images: Size = Field(default=4, description="pictures per prompt")
    batch: Size = Field(default=1, description="pictures per call of the pipeline")
    shards: Shards = Field(default=1, description="jobs, each with every arm on its share of the prompts")
    offload: Literal["none", "model", "sequential"] = "none"


class Pretrained(Section):
    """StableVS beside long, short and control runs, from the same noise."""

    families: dict[FamilyName, PretrainedFamily] = Field(min_length=1)
    xi: Fraction = 0.85
    low_steps: Steps = 9
    xi_sweep: Distinct[Fraction] = Field(default=[0.70, 0.80, 0.85, 0.90], description="of the main base solver")
    noise_factor: Share = 0.0
    seed: Seed = 0
    gmm_dimensions: Distinct[Size] = Field(default=[16, 512], description="mixtures of the schedulers' error table")
    gmm_points: Size = 256

    @property
    def tiny(self) -> list[str]:
        """Families whose models are trained here."""
        return [name for name, family in self.families.items() if family.tiny]

    def control_equals_stablevs(self, family: str) -> bool:
        """Whether the control arm of a family's main solver makes the very pictures of StableVS.

        Without added noise the closed form on the linear path is the Euler step, and it is computed as that.
        """
        return SOLVERS[family][0] == "euler" and self.noise_factor == 0

    def arm_names(self, family: str) -> list[str]:
        """Arms of a family in the order of its table, then the other values of xi.

        Where control equals StableVS it is drawn at the table's xi only; the report shows it beside each row of the
        sweep all the same.
        """
        main = SOLVERS[family][0]
        table = [f"{solver}-{kind}" for solver in SOLVERS[family] for kind in ("long", "short", "stablevs", "control")]
        kinds = ("stablevs",) if self.control_equals_stablevs(family) else ("stablevs", "control")
        # Written so that the arm reads back the very number.
        sweep = [f"{main}-{kind}-xi{xi!r}" for xi in self.xi_sweep if xi != self.xi for kind in kinds]
        return [*table, *sweep]
