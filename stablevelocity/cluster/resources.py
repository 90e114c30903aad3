"""Time, memory, processors and accelerators of every ordinary rule: the one table.

Two sizes of study are known: one on small images, which runs on processors, and one on a folder of images such as
ImageNet, which wants accelerators. `rules` in config/site.yaml overrides the table by rule. Training jobs have their
own section there.
"""

from typing import Any, NamedTuple

from stablevelocity.cluster.site import Site
from stablevelocity.study import Study


class Need(NamedTuple):
    """What a job asks for: minutes, gigabytes, processors, accelerators."""

    minutes: int
    mem_gb: float
    cpus: int = 1
    gpus: int = 0


ORDINARY = Need(30, 4)  # tables, figures, manifests, and every stage of a small study
SMALL = {
    "toy": Need(12 * 60, 4),
    "autoencoder": Need(120, 4),
    "encoder": Need(120, 4),
    "judge": Need(120, 4),
    "sample_shard": Need(120, 4),
    "sweep": Need(240, 4),
}
LARGE = {
    "image_index": Need(60, 8),
    "image_shard": Need(120, 16, 8),
    "image_manifest": Need(240, 16),
    "autoencoder": Need(60, 32, 8, 1),
    "latent_shard": Need(60, 32, 8, 1),
    "latent_manifest": Need(120, 16),
    "encoder": Need(60, 32, 8, 1),
    "feature_shard": Need(120, 32, 8, 1),
    "feature_manifest": Need(240, 16),
    "gmm_variance": Need(120, 16, 8),
    "data_variance": Need(240, 32, 8),
    "variance_references": Need(120, 16, 8),
    "toy": Need(24 * 60, 8, 4),
    "reference": Need(240, 32, 8, 1),
    "sample_shard": Need(8 * 60, 32, 8, 1),
    "fidelity": Need(120, 64, 8, 1),
    "floor": Need(120, 64, 8, 1),
    "sweep": Need(24 * 60, 64, 8, 1),
    "alignment_curve": Need(60, 32, 8, 1),
}


def need(rule: str, study: Study, site: Site) -> Need:
    """What a job of `rule` asks for in this study on this site."""
    table = LARGE if study.images.dataset == "folder" else SMALL
    limits = site.rules.get(rule)
    changes = limits.model_dump(exclude_none=True) if limits else {}
    return table.get(rule, ORDINARY)._replace(**changes)


def training_resources(site: Site) -> dict[str, Any]:
    """What the job of a training run asks for, as its rule shows it; submitit asks for it, not Snakemake."""
    jobs = site.training
    return {
        "runtime": jobs.minutes,
        "mem_mb": round(jobs.mem_gb * 1000),
        "training_nodes": jobs.nodes,
        "training_gpus": jobs.gpus,
    }


def snakemake_resources(rule: str, study: Study, site: Site) -> dict[str, Any]:
    """The same, in the names of Snakemake's executor for SLURM."""
    wanted = need(rule, study, site)
    resources: dict[str, Any] = {
        "runtime": wanted.minutes,
        "mem_mb": round(wanted.mem_gb * 1000),
        "cpus_per_task": wanted.cpus,
        "slurm_account": site.account,
        "qos": site.qos,
        "slurm_partition": site.partitions.gpu if wanted.gpus else site.partitions.cpu,
    }
    if wanted.gpus:
        resources["constraint"] = site.constraint
        if site.gres:
            resources["gres"] = site.gres.format(gpus=wanted.gpus)
        else:
            resources["gpu"] = wanted.gpus
    return {name: value for name, value in resources.items() if value is not None}
