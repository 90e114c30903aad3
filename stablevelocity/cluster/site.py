"""What differs between clusters, read from config/site.yaml. Without that file the cluster's own defaults hold."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from stablevelocity.errors import UserError
from stablevelocity.study.reading import first_problem, read_yaml
from stablevelocity.study.settings import Section
from stablevelocity.study.values import NUMBER, Positive, PositiveFloat, Size

SITE_FILE = Path("config/site.yaml")

# They reach sbatch, as options and as lines of a script.
SlurmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,@+-]*$", max_length=200)]
Gres = Annotated[str, Field(pattern=r"^([A-Za-z0-9_.:,()-]|\{gpus\})+$", max_length=200)]
Constraint = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,&|*:()\[\]-]+$", max_length=200)]
Minutes = Annotated[int, Field(gt=0, le=525_600), NUMBER]  # a year
# SLURM takes 0 MiB for all of a node.
Memory = Annotated[float, Field(ge=0.01, le=1e6), NUMBER]
Line = Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"^[^\x00\n\r]*$")]


class Partitions(Section):
    """Partitions by role; null: the cluster's default partition."""

    cpu: SlurmName | None = None
    gpu: SlurmName | None = None


class TrainingJobs(Section):
    """The job of a training run."""

    nodes: Size = 1
    gpus: Annotated[int, Field(ge=0, le=1024), NUMBER] = Field(
        default=0, description="per node; one process each. 0: processes on CPUs"
    )
    processes: Size = Field(default=1, description="per node, where gpus is 0")
    cpus: Size = Field(default=1, description="per process")
    mem_gb: Memory = Field(default=4, description="per node")
    minutes: Minutes = Field(default=24 * 60, description="time limit of one job; a run takes as many as it needs")
    stop_seconds: Positive = Field(default=90, description="before the limit: save and queue again")
    max_requeues: Positive = Field(default=100, description="time limits that one job may reach")
    runs_per_job: Positive = Field(default=1, description="runs that one job trains, one after the other")

    @model_validator(mode="after")
    def _time_is_left_to_train(self) -> "TrainingJobs":
        if self.stop_seconds >= 60 * self.minutes:
            raise ValueError(f"stop_seconds: {self.stop_seconds}, but a job has {60 * self.minutes} s in all")
        return self


class Limits(Section):
    """Overrides for an ordinary rule, see stablevelocity/cluster/resources.py."""

    minutes: Minutes | None = None
    mem_gb: Memory | None = None
    cpus: Size | None = None
    gpus: Annotated[int, Field(ge=0, le=1024), NUMBER] | None = None


class Site(Section):
    launcher: Literal["local", "submitit-local", "slurm"] | None = Field(
        default=None, description="how training starts; null: slurm with the profile slurm, else local"
    )
    account: SlurmName | None = None
    qos: SlurmName | None = None
    partitions: Partitions = Partitions()
    gres: Gres | None = Field(default=None, description="such as gpu:a100:{gpus}; null: --gpus-per-node")
    constraint: Constraint | None = Field(default=None, description="of jobs with GPUs")
    setup: list[Line] = Field(default=[], description="lines of shell before every job, such as module load cuda/12.4")
    training: TrainingJobs = TrainingJobs()
    rules: dict[str, Limits] = Field(default={}, description="by rule: what differs from the built-in table")
    poll_seconds: PositiveFloat = Field(default=30, description="between looks at the queue and the files")


def load_site(path: Path | str = SITE_FILE) -> Site:
    """Read the site file; a missing one means all defaults. Raises UserError, one line that names the key."""
    path = Path(path)
    content = read_yaml(path) if path.exists() or path.is_symlink() else None
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of keys, given {type(content).__name__}")
    try:
        return Site.model_validate(content or {})
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error, Site)}") from None
