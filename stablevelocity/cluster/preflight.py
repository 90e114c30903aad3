"""What can be known to fail before anything is submitted, said in one line each.

`sbatch --test-only` asks SLURM itself whether it would take a job: partition, account, memory, time limit.
"""

import shutil
import subprocess
from typing import Any

from stablevelocity.cluster.backends import NO_SLURM, Slurm, clean_environment, one_line
from stablevelocity.cluster.site import SITE_FILE, Site
from stablevelocity.errors import UserError
from stablevelocity.study import Study

OPTIONS = {
    "account": "account",
    "constraint": "constraint",
    "cpus_per_task": "cpus-per-task",
    "gpus_per_node": "gpus-per-node",
    "gres": "gres",
    "mem": "mem",
    "nodes": "nodes",
    "ntasks_per_node": "ntasks-per-node",
    "partition": "partition",
    "qos": "qos",
    "time": "time",
}
FROM_SNAKEMAKE = {
    "runtime": "time",
    "mem_mb": "mem",
    "slurm_account": "account",
    "slurm_partition": "partition",
    "gpu": "gpus_per_node",
}


def check_slurm(site: Site, ordinary: dict[str, dict[str, Any]]) -> None:
    """Ask SLURM whether it would take the training jobs, and the jobs of each rule in `ordinary` (rule: resources).

    Raises UserError for the first that it refuses.
    """
    for command in ("sbatch", "srun", "squeue"):
        if shutil.which(command) is None:
            raise UserError(NO_SLURM.format(command))
    asked: set[tuple] = set()
    wanted = {"training": Slurm(site).parameters()}
    for rule, resources in ordinary.items():
        wanted[rule] = {FROM_SNAKEMAKE.get(name, name): value for name, value in resources.items()}
    for what, parameters in wanted.items():
        options = tuple(f"--{OPTIONS[name]}={parameters[name]}" for name in sorted(OPTIONS) if name in parameters)
        if options not in asked:
            asked.add(options)
            _ask(what, options)


def check_training(site: Site, study: Study) -> None:
    """Refuse to train a network for ImageNet on what a job gets when nobody says what it needs."""
    if study.arms and study.images.dataset == "folder" and "training" not in site.model_fields_set:
        raise UserError(
            f"{SITE_FILE}: training: missing, so each run would train on 1 processor and {site.training.mem_gb:g} GB;"
            " expected gpus and mem_gb, see config/site.example.yaml"
        )


def _ask(what: str, options: tuple[str, ...]) -> None:
    command = ["sbatch", "--test-only", *options, "--wrap", "true"]
    with clean_environment():
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            raise UserError("SLURM does not answer: sbatch --test-only took more than 60 s") from None
    if done.returncode != 0:
        said = one_line(done.stderr).replace("allocation failure: ", "")
        raise UserError(f"SLURM refuses the jobs of {what} ({' '.join(options)}): {said}")
