# One rule per training run: its outputs differ by the steps whose weights are kept. Checkpoints and the growing
# metrics lie in <run>/checkpoints/, undeclared, so that a job that starts again resumes.
from stablevelocity.study import Run


def needs_features(run: Run) -> bool:
    return run.alignment is not None or run.class_token


def weights(run: Run, step: int) -> str:
    return f"{OUT}/runs/{run.name}/weights/step-{step:08d}.safetensors"


for run in RUNS.values():

    rule:
        name:
            f"train_{run.name}"
        input:
            latents=f"{OUT}/data/latents/train.json",
            features=f"{OUT}/data/features/train.json" if needs_features(run) else [],
        output:
            [weights(run, step) for step in run.steps],
            metrics=f"{OUT}/runs/{run.name}/metrics.csv",
        log:
            f"{OUT}/logs/train-{run.name}.log",
        benchmark:
            f"{OUT}/benchmarks/train-{run.name}.tsv"
        params:
            run=run.name,
            folder=f"{OUT}/runs/{run.name}",
            settings=settings(run),
            code=code("training.trainer"),
        shell:
            "stablevelocity --log {log} train --study {STUDY_FILE} --run {params.run} --latents {input.latents}"
            " --features '{input.features}' --code {params.code} --folder {params.folder}"


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
        "stablevelocity --log {log} alignment-curve --weights {input.weights} --latents {input.latents}"
        " --features {input.features} --output {output}"
