"""What can be known to fail before anything is submitted, said in one line each.

`sbatch --test-only` asks SLURM itself whether it would take a job: partition, account, memory, time limit.
"""

import shutil
import subprocess
from typing import Any

from stablevelocity.cluster.backends import NO_SLURM, Slurm, clean_environment, one_line
from stablevelocity.cluster.resources import check_processes
from stablevelocity.cluster.site import SITE_FILE, Site
from stablevelocity.errors import UserError
from stablevelocity.study import Study

# What both kinds of jobs may ask for, as submitit names it; sbatch's options have dashes.
OPTIONS = ("account", "constraint", "cpus_per_task", "gpus_per_node", "gres", "mem", "nodes", "ntasks_per_node")
OPTIONS += ("partition", "qos", "time")
SUBMITIT_NAMES = {"runtime": "time", "mem_mb": "mem", "gpu": "gpus_per_node"}
SUBMITIT_NAMES |= {"slurm_account": "account", "slurm_partition": "partition"}


def check_slurm(site: Site, rules: dict[str, dict[str, Any]]) -> None:
    """Ask SLURM whether it would take the training jobs, and the jobs of each of `rules` (by name: their resources).

    Raises UserError for the first that it refuses.
    """
    for command in ("sbatch", "srun", "squeue"):
        if shutil.which(command) is None:
            raise UserError(NO_SLURM.format(command))
    wanted = {"training": Slurm(site).parameters()}
    for rule, resources in rules.items():
        wanted[rule] = {SUBMITIT_NAMES.get(name, name): value for name, value in resources.items()}
    asked: set[tuple[str, ...]] = set()
    for jobs, parameters in wanted.items():
        options = tuple(f"--{name.replace('_', '-')}={parameters[name]}" for name in OPTIONS if name in parameters)
        if options in asked:
            continue
        asked.add(options)
        with clean_environment():
            try:
                command = ["sbatch", "--test-only", *options, "--wrap", "true"]
                done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            except subprocess.TimeoutExpired:
                raise UserError("SLURM does not answer: sbatch --test-only took more than 60 s") from None
        if done.returncode != 0:
            said = one_line(done.stderr).replace("allocation failure: ", "")
            raise UserError(f"SLURM refuses the jobs of {jobs} ({' '.join(options)}): {said}")


def check_training(site: Site, study: Study) -> None:
    """Refuse to train a network for ImageNet on what a job gets when the site file does not say what it needs.

    And any network in processes that its batch does not divide over.
    """
    check_processes(site, study)
    if study.arms and study.images.dataset == "folder" and "training" not in site.model_fields_set:
        raise UserError(
            f"{SITE_FILE}: training: missing, so each run would train on 1 processor and {site.training.mem_gb:g} GB;"
            " expected gpus and mem_gb, see config/site.example.yaml"
        )
