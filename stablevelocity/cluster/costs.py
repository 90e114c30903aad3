"""What the jobs of a study cost, roughly: for the progress line, and to pack small ones into one job of SLURM."""

from stablevelocity.study import Study
from stablevelocity.study.settings import Training

# Operations per second that a network reaches: a slow core; an H100 (benchmarks/GPU.md).
CORE, ACCELERATOR = 3.6e10, 4e14
# Seconds of work on a folder of images such as ImageNet: a pass over one of 256 shards, or over 50,000 samples.
LARGE = {"image_shard": 60, "latent_shard": 60, "feature_shard": 60, "alignment_curve": 120, "fidelity": 300}


def estimated_seconds(rule: str, study: Study, training: Training | None = None) -> float:
    """What a job costs: at the start all that is known, later scaled by what was measured. `training`: of its run."""
    large = study.images.dataset == "folder"
    training, variance, sweep = training or study.training, study.variance, study.sampling.sweep
    sizes = training.model.sizes
    halvings = 3 if study.autoencoder.pretrained else len(study.autoencoder.widths) - 1
    tokens = (study.images.size / 2**halvings / sizes.patch) ** 2
    # One forward and backward pass of one image.
    image = 72 * sizes.depth * sizes.width**2 * tokens / (ACCELERATOR if large else CORE)
    draw = image / 3 * study.sampler(study.sampling.main).steps if study.sampling.samplers else 0.0
    mixture = 4e-11 * variance.gmm_times * variance.gmm_samples**2
    table: dict[str, float] = {
        "train": training.steps * training.batch * image,
        "sample_shard": draw * study.sampling.images / study.sampling.shards,
        "sweep": draw * sweep.images * len(sweep.solvers) * (len(sweep.steps) + 1) if sweep else 0.0,
        "gmm_variance": mixture * (100 + max(variance.gmm_dimensions, default=0) / 2),
        "toy": 6e-3 * study.toy.updates * len(study.toy.seeds) if study.toy else 0.0,
        "autoencoder": 0.025 * study.autoencoder.steps,
        "encoder": 0.035 * study.encoder.steps,
        "judge": 0.02 * study.evaluation.judge_steps,
    }
    return 0.5 + table.get(rule, 0.0) + (LARGE.get(rule, 0.0) if large else 0.0)
