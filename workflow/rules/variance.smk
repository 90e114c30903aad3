# V_CFM(t) of Gaussian mixtures, pixels and latents; the split point of each; the toy experiment.
VARIANCE_SOURCES = [f"gmm-{dimension}" for dimension in STUDY.variance.gmm_dimensions] + list(STUDY.variance.data)


rule gmm_variance:
    output:
        curve=LAYOUT.variance_curve("gmm-{dimension}"),
        split_point=LAYOUT.variance_split_point("gmm-{dimension}"),
    log:
        LAYOUT.log("gmm_variance-{dimension}"),
    wildcard_constraints:
        dimension=r"\d+",
    priority: FIRST
    resources:
        **needs("gmm_variance"),
    params:
        **stage("experiments.variance_study", settings=settings(STUDY.variance)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " gmm-variance --study {STUDY_FILE:q} --dimension {wildcards.dimension:q}"
        " --curve {output.curve:q} --split-point {output.split_point:q}"


rule data_variance:
    input:
        lambda wildcards: LAYOUT.image_manifest("train") if wildcards.source == "pixels" else LAYOUT.latents,
    output:
        curve=LAYOUT.variance_curve(),
        split_point=LAYOUT.variance_split_point(),
    log:
        LAYOUT.log("data_variance-{source}"),
    wildcard_constraints:
        source="pixels|latents",
    priority: FIRST
    resources:
        **needs("data_variance"),
    params:
        **stage("experiments.variance_study", settings=settings(STUDY.variance)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " data-variance --study {STUDY_FILE:q} --source {wildcards.source:q}"
        " --manifest {input:q} --curve {output.curve:q} --split-point {output.split_point:q}"


rule variance_curves:
    input:
        curves=[LAYOUT.variance_curve(source) for source in VARIANCE_SOURCES],
        split_points=[LAYOUT.variance_split_point(source) for source in VARIANCE_SOURCES],
    output:
        curves=LAYOUT.variance_curves,
        split_points=LAYOUT.split_points,
    log:
        LAYOUT.log("variance_curves"),
    priority: FIRST
    resources:
        **needs("variance_curves"),
    params:
        **stage(),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " join-tables --output {output.curves:q} --output {output.split_points:q} {input.curves:q} {input.split_points:q}"


rule variance_references:
    output:
        LAYOUT.variance_references,
    log:
        LAYOUT.log("variance_references"),
    priority: FIRST
    resources:
        **needs("variance_references"),
    params:
        **stage("experiments.variance_study", settings=settings(STUDY.variance)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " variance-references --study {STUDY_FILE:q} --output {output:q}"


rule toy:
    output:
        [LAYOUT.toy(name) for name in ("error", "target_variance", "gradient_variance", "cost")],
    log:
        LAYOUT.log("toy"),
    # One job as long as many trainings: begun after them it would be waited for alone.
    priority: 11
    resources:
        **needs("toy"),
    params:
        **stage("experiments.toy", folder=LAYOUT.toy_folder, settings=settings(STUDY.toy)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}" " toy --study {STUDY_FILE:q} --folder {params.folder:q}"


rule exact_flow:
    output:
        LAYOUT.exact_flow,
    log:
        LAYOUT.log("exact_flow"),
    priority: 10
    resources:
        **needs("exact_flow"),
    params:
        **stage("experiments.exact_flow", settings=settings(STUDY.exact_flow)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q} exact-flow --study {STUDY_FILE:q} --output {output:q}"


rule latent_spectrum:
    input:
        LAYOUT.latents,
    output:
        LAYOUT.latent_spectrum,
    log:
        LAYOUT.log("latent_spectrum"),
    resources:
        **needs("latent_spectrum"),
    params:
        **stage("experiments.latent_spectrum"),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q} latent-spectrum {input:q} --output {output:q}"


PRODUCTS += [rules.variance_curves.input, rules.variance_curves.output, rules.variance_references.output]
if STUDY.toy:
    PRODUCTS += [rules.toy.output]
if STUDY.exact_flow:
    PRODUCTS += [rules.exact_flow.output, rules.latent_spectrum.output]
