"""Time, memory, processors and accelerators of every rule that becomes a job: the one table.

Two sizes of study are known: one on small images, which runs on processors, and one on a folder of images such as
ImageNet, which wants accelerators. Pretrained models are tiny or the originals. `rules` in config/site.yaml overrides
the table by rule. Training jobs have their own section there. Tables, figures and the report are made where Snakemake
runs.
"""

import difflib
from typing import Any, NamedTuple

from stablevelocity.cluster.costs import estimated_seconds
from stablevelocity.cluster.site import SITE_FILE, Site
from stablevelocity.errors import UserError
from stablevelocity.study import Study
from stablevelocity.study.reading import shown
from stablevelocity.study.settings import Training


class Need(NamedTuple):
    """What a job asks for: minutes, gigabytes, processors, accelerators."""

    minutes: int
    mem_gb: float
    cpus: int = 1
    gpus: int = 0


MIB_PER_GB = 1024
ORDINARY = Need(30, 4)
HOURS_2 = Need(120, 4)
# Of a small study, what differs from ORDINARY.
SMALL = {
    "toy": Need(12 * 60, 4),
    "sweep": Need(240, 4),
    **dict.fromkeys(("autoencoder", "encoder", "judge", "sample_shard"), HOURS_2),
}
LARGE = {
    "image_index": Need(60, 8),
    "image_shard": Need(60, 16, 8),
    "image_manifest": Need(240, 16),
    "autoencoder": Need(60, 32, 8, 1),
    "latent_shard": Need(60, 32, 8, 1),
    "latent_manifest": Need(120, 16),
    "encoder": Need(60, 32, 8, 1),
    "feature_shard": Need(120, 32, 8, 1),
    "feature_manifest": Need(240, 16),
    "online_features": Need(120, 16),
    "gmm_variance": Need(120, 16, 8),
    "data_variance": Need(240, 32, 8),
    "variance_curves": ORDINARY,
    "variance_references": Need(120, 16, 8),
    "exact_flow": Need(120, 8, 1),
    "latent_spectrum": Need(60, 8, 1),
    "toy": Need(24 * 60, 8, 4),
    "alignment_curve": Need(60, 32, 8, 1),
    "gradient_variance": Need(120, 32, 8, 1),
    "sample_shard": Need(8 * 60, 32, 8, 1),
    "sample_manifest": ORDINARY,
    "judge": Need(120, 32, 8, 1),
    "reference": Need(240, 32, 8, 1),
    "fidelity": Need(120, 64, 8, 1),
    "floor": Need(120, 64, 8, 1),
    "sweep": Need(24 * 60, 64, 8, 1),
}
TINY_MODELS = {
    "tiny_model": Need(4 * 60, 8, 2),
    "prompts": ORDINARY,
    "generate_arms": Need(4 * 60, 8, 2),
    "score_family": Need(60, 8, 2),
    "compare_videos": Need(60, 8),
    "judge_accuracy": Need(60, 4),
    "scheduler_errors": Need(60, 4),
}
# A job of pictures that runs out of time goes on where it was when the study is started again.
ORIGINALS = TINY_MODELS | {
    "generate_arms": Need(24 * 60, 96, 8, 1),
    "score_family": Need(8 * 60, 64, 8, 1),
    "compare_videos": Need(60, 16),
}
RULES = LARGE | TINY_MODELS  # each name once

# Rules whose jobs are packed into one job of SLURM, which runs them one after the other. With {run} only those of one
# run: another may fail, and what follows from this one does not wait for it.
PACKS = {
    "image_shard": "images",
    "latent_shard": "latents",
    "feature_shard": "features",
    "sample_shard": "samples-{run}",
    **dict.fromkeys(("sample_manifest", "fidelity", "alignment_curve"), "evaluation-{run}"),
}
PACK_SECONDS, PACK_MINUTES = 3600, 24 * 60  # estimated work of a packed job, and its time limit, at most


def need(rule: str, study: Study, site: Site) -> Need:
    """What a job of `rule` asks for in this study on this site; those of one pack ask for the same machine."""
    families = study.pretrained.families.values() if study.pretrained else []
    table = LARGE if study.images.dataset == "folder" else SMALL
    table = table | (TINY_MODELS if all(family.tiny for family in families) else ORIGINALS)

    def own(rule: str) -> Need:
        limits = site.rules.get(rule)
        return table.get(rule, ORDINARY)._replace(**limits.model_dump(exclude_none=True) if limits else {})

    _, *machine = zip(*map(own, packed_with(rule)), strict=True)
    return Need(own(rule).minutes, *map(max, machine))


def packed_with(rule: str) -> list[str]:
    """The rules of a pack, or this one alone."""
    return [mate for mate in PACKS if PACKS[mate] == PACKS.get(rule)] or [rule]


def units_per_job(rule: str, study: Study, site: Site, training: Training) -> int:
    """How many jobs of a rule of a pack, of a run with this training, make one job of SLURM."""
    work = sum(estimated_seconds(mate, study, training) for mate in packed_with(rule))
    return max(1, min(int(PACK_SECONDS / work), PACK_MINUTES // pack_minutes(rule, study, site)))


def pack_minutes(rule: str, study: Study, site: Site) -> int:
    """The time limit of one job of each rule of a pack, one after the other."""
    return sum(need(mate, study, site).minutes for mate in packed_with(rule))


def check_rules(site: Site) -> None:
    """Raises UserError when the site file names a rule that does not become a job."""
    for rule in site.rules:
        if rule not in RULES:
            close = difflib.get_close_matches(rule, RULES, 1)
            meant = f"did you mean {close[0]!r}?" if close else "they are in stablevelocity/cluster/resources.py"
            raise UserError(f"{SITE_FILE}: rules.{shown(rule)}: no such rule; {meant}")


def check_processes(site: Site, study: Study) -> None:
    """Raises UserError when a batch does not divide over the processes of a training job."""
    jobs = site.training
    processes = jobs.nodes * (jobs.gpus or jobs.processes)
    for run in study.runs().values():
        if run.training.batch % processes:
            raise UserError(
                f"{SITE_FILE}: training: {processes} processes, but the batch of arm {run.arm} ({run.training.batch}) "
                "does not divide over them"
            )


def training_resources(site: Site) -> dict[str, Any]:
    """What the job of a training run asks for, as its rule shows it; submitit asks for it, not Snakemake."""
    jobs = site.training
    return {
        "runtime": jobs.minutes,
        "mem_mb": round(jobs.mem_gb * MIB_PER_GB),
        "training_nodes": jobs.nodes,
        "training_gpus": jobs.gpus,
    }


def snakemake_resources(rule: str, study: Study, site: Site) -> dict[str, Any]:
    """What a job of `rule` asks for, in the names of Snakemake's executor for SLURM."""
    wanted = need(rule, study, site)
    resources: dict[str, Any] = {
        "packed": 1,  # in the profile: at most one of a packed job at a time
        "runtime": wanted.minutes,
        "mem_mb": round(wanted.mem_gb * MIB_PER_GB),
        "cpus_per_task": wanted.cpus,
        "slurm_account": site.account,
        "qos": site.qos,
        "slurm_partition": site.partitions.gpu if wanted.gpus else site.partitions.cpu,
    }
    if wanted.gpus:
        resources["constraint"] = site.constraint
        gres = site.gres.format(gpus=wanted.gpus) if site.gres else None
        resources |= {"gres": gres} if gres else {"gpu": wanted.gpus}
    return {name: value for name, value in resources.items() if value is not None}
