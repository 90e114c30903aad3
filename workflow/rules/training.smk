# One rule per training run: its outputs differ by the steps whose weights are kept. Checkpoints and the growing
# metrics lie in <run>/checkpoints/, undeclared, so that a job that starts again resumes.
from stablevelocity.cluster.tasks import batches


def last_weights(run):
    return LAYOUT.weights(run, RUNS[run].training.steps)


# Runs that one job trains: one each, unless the site file says otherwise.
BATCHES = batches(list(RUNS.values()), SITE.training.runs_per_job)


for batch in BATCHES:

    rule:
        name:
            f"train_{batch[0].name}"
        input:
            latents=LAYOUT.latents,
            features=LAYOUT.features if any(map(needs_features, batch)) else [],
            # Of numbers that the study leaves to its variance curve: the jobs read them from beside study.json.
            split_point=LAYOUT.variance_split_point("latents") if any(run.waits_for_curve for run in batch) else [],
        output:
            [LAYOUT.weights(run.name, step) for run in batch for step in run.steps],
            [LAYOUT.training_metrics(run.name) for run in batch],
        log:
            LAYOUT.log(f"train-{batch[0].name}"),
        # The longest jobs before the many short ones, so that no processor waits for the last of them.
        priority: 10
        # With a cluster, this submits a job that may take many turns, and waits for it.
        localrule: True
        resources:
            **training_resources(SITE),
            launcher=launcher,
        params:
            runs=[word for run in batch for word in ("--run", run.name)],
            folder=LAYOUT.runs,
            remake=lambda wildcards, output: [w for name in REMADE_RUNS for w in ("--remake", name)],
        shell:
            "stablevelocity --log {log:q} train --study {STUDY_FILE:q} {params.runs:q} --latents {input.latents:q}"
            " --features={input.features:q} --folder {params.folder:q} {params.remake:q}"
            " --launcher {resources.launcher:q} --site {SITE_FILE:q}"


rule alignment_curve:
    input:
        weights=lambda wildcards: last_weights(wildcards.run),
        latents=LAYOUT.latents,
        features=LAYOUT.features,
    output:
        LAYOUT.alignment_curve(),
    log:
        LAYOUT.log("alignment_curve-{run}"),
    resources:
        **needs("alignment_curve"),
    params:
        **stage("training.alignment_curve"),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " alignment-curve --study {STUDY_FILE:q} --weights {input.weights:q}"
        " --latents {input.latents:q} --features {input.features:q} --output {output:q}"


rule gradient_variance:
    input:
        weights=lambda wildcards: [LAYOUT.weights(wildcards.run, step) for step in RUNS[wildcards.run].steps],
        latents=LAYOUT.latents,
    output:
        LAYOUT.gradient_variance(),
    log:
        LAYOUT.log("gradient_variance-{run}"),
    resources:
        **needs("gradient_variance"),
    params:
        **stage("training.gradient_variance", settings=settings(STUDY.gradient_variance)),
        weights=lambda wildcards, input: [word for file in input.weights for word in ("--weights", file)],
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " gradient-variance --study {STUDY_FILE:q} {params.weights:q} --latents {input.latents:q} --output {output:q}"


PRODUCTS += [LAYOUT.gradient_variance(run) for run in STUDY.gradient_runs()]
for run in RUNS.values():
    PRODUCTS += [LAYOUT.training_metrics(run.name), *(LAYOUT.weights(run.name, step) for step in run.steps)]
    if run.alignment:
        PRODUCTS.append(LAYOUT.alignment_curve(run.name))
