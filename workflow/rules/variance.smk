# V_CFM(t) of Gaussian mixtures, pixels and latents; the split point of each; the toy experiment.
VARIANCE_SOURCES = [f"gmm-{dimension}" for dimension in STUDY.variance.gmm_dimensions] + list(STUDY.variance.data)


rule gmm_variance:
    output:
        curve=f"{OUT}/variance/gmm-{{dimension}}.csv",
        split_point=f"{OUT}/variance/gmm-{{dimension}}.split_point.csv",
    log:
        f"{OUT}/logs/gmm_variance-{{dimension}}.log",
    benchmark:
        f"{OUT}/benchmarks/gmm_variance-{{dimension}}.tsv"
    wildcard_constraints:
        dimension=r"\d+",
    priority: 1  # long and needed late: started first, so that no core waits for it at the end
    params:
        settings=settings(STUDY.variance),
        code=code("experiments.variance_study"),
    shell:
        "stablevelocity --log {log:q} gmm-variance --study {STUDY_FILE:q} --dimension {wildcards.dimension:q}"
        " --curve {output.curve:q} --split-point {output.split_point:q}"


rule data_variance:
    input:
        lambda wildcards: f"{OUT}/data/{'images' if wildcards.source == 'pixels' else 'latents'}/train.json",
    output:
        curve=f"{OUT}/variance/{{source}}.csv",
        split_point=f"{OUT}/variance/{{source}}.split_point.csv",
    log:
        f"{OUT}/logs/data_variance-{{source}}.log",
    benchmark:
        f"{OUT}/benchmarks/data_variance-{{source}}.tsv"
    wildcard_constraints:
        source="pixels|latents",
    params:
        settings=settings(STUDY.variance),
        code=code("experiments.variance_study"),
    shell:
        "stablevelocity --log {log:q} data-variance --study {STUDY_FILE:q} --source {wildcards.source:q}"
        " --manifest {input:q} --curve {output.curve:q} --split-point {output.split_point:q}"


rule variance_curves:
    input:
        curves=expand(f"{OUT}/variance/{{source}}.csv", source=VARIANCE_SOURCES),
        split_points=expand(f"{OUT}/variance/{{source}}.split_point.csv", source=VARIANCE_SOURCES),
    output:
        curves=f"{OUT}/variance/curves.csv",
        split_points=f"{OUT}/variance/split_points.csv",
    log:
        f"{OUT}/logs/variance_curves.log",
    shell:
        "stablevelocity --log {log:q} join-tables --output {output.curves:q} {input.curves:q}"
        " && stablevelocity --log {log:q} join-tables --output {output.split_points:q} {input.split_points:q}"


rule variance_references:
    output:
        f"{OUT}/variance/references.csv",
    log:
        f"{OUT}/logs/variance_references.log",
    benchmark:
        f"{OUT}/benchmarks/variance_references.tsv"
    params:
        settings=settings(STUDY.variance),
        code=code("experiments.variance_study"),
    shell:
        "stablevelocity --log {log:q} variance-references --study {STUDY_FILE:q} --output {output:q}"


TOY_FILES = [f"{OUT}/toy/{name}.csv" for name in ("error", "target_variance", "gradient_variance", "cost")]


rule toy:
    output:
        TOY_FILES,
    log:
        f"{OUT}/logs/toy.log",
    benchmark:
        f"{OUT}/benchmarks/toy.tsv"
    params:
        folder=f"{OUT}/toy",
        settings=settings(STUDY.toy),
        code=code("experiments.toy"),
    shell:
        "stablevelocity --log {log:q} toy --study {STUDY_FILE:q} --folder {params.folder:q}"


PRODUCTS += [rules.variance_curves.input, rules.variance_curves.output, rules.variance_references.output]
if STUDY.toy:
    PRODUCTS += [rules.toy.output]
