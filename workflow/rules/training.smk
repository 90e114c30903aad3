# One rule per training run: its outputs differ by the steps whose weights are kept. Checkpoints and the growing
# metrics lie in <run>/checkpoints/, undeclared, so that a job that starts again resumes.
from stablevelocity.cluster.tasks import batches
from stablevelocity.study import Run


def needs_features(run: Run) -> bool:
    return run.alignment is not None or run.class_token


def weights(run: Run, step: int) -> str:
    return f"{OUT}/runs/{run.name}/weights/step-{step:08d}.safetensors"


# Runs that one job trains: one each, unless the site file says otherwise.
BATCHES = batches(list(RUNS.values()), SITE.training.runs_per_job)


for batch in BATCHES:

    rule:
        name:
            f"train_{batch[0].name}"
        input:
            latents=f"{OUT}/data/latents/train.json",
            features=f"{OUT}/data/features/train.json" if any(map(needs_features, batch)) else [],
        output:
            [weights(run, step) for run in batch for step in run.steps],
            [f"{OUT}/runs/{run.name}/metrics.csv" for run in batch],
        log:
            f"{OUT}/logs/train-{batch[0].name}.log",
        benchmark:
            f"{OUT}/benchmarks/train-{batch[0].name}.tsv"
        # The longest jobs before the many short ones, so that no processor waits for the last of them.
        priority: 10
        # With a cluster, this submits a job that may take many turns, and waits for it.
        localrule: True
        resources:
            launcher=launcher,
        params:
            runs=[word for run in batch for word in ("--run", run.name)],
            folder=f"{OUT}/runs",
            settings=settings(*batch),
            code=code("training.trainer"),
        shell:
            "stablevelocity --log {log:q} train --study {STUDY_FILE:q} {params.runs:q} --latents {input.latents:q}"
            " --features={input.features:q} --code {params.code:q} --folder {params.folder:q}"
            " --launcher {resources.launcher:q} --site {SITE_FILE:q}"


rule alignment_curve:
    input:
        weights=lambda wildcards: weights(RUNS[wildcards.run], RUNS[wildcards.run].training.steps),
        latents=f"{OUT}/data/latents/train.json",
        features=f"{OUT}/data/features/train.json",
    output:
        f"{OUT}/runs/{{run}}/alignment.csv",
    log:
        f"{OUT}/logs/alignment_curve-{{run}}.log",
    params:
        code=code("training.alignment_curve"),
    shell:
        "stablevelocity --log {log:q} alignment-curve --study {STUDY_FILE:q} --weights {input.weights:q}"
        " --latents {input.latents:q} --features {input.features:q} --output {output:q}"


for run in RUNS.values():
    PRODUCTS += [f"{OUT}/runs/{run.name}/metrics.csv", *(weights(run, step) for step in run.steps)]
    if run.alignment:
        PRODUCTS += expand(rules.alignment_curve.output, run=run.name)
