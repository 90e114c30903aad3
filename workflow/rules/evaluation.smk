# Features in one pass, all metrics from them; the baseline between real sets; few-step and same-noise studies.
# Features are kept in metrics/features/, undeclared: another bootstrap or k needs no second pass.
DIGITS = STUDY.evaluation.extractor == "digits"
CLASSIFIER = LAYOUT.classifier if DIGITS else []
INCEPTION = [] if DIGITS else present(STUDY.evaluation.weights)
INCEPTION_STATE = [] if DIGITS else state_of(STUDY.evaluation.weights)


rule judge:
    input:
        train=LAYOUT.image_manifest("train"),
        heldout=LAYOUT.image_manifest("heldout"),
    output:
        LAYOUT.classifier_files,
        description=LAYOUT.classifier,
    log:
        LAYOUT.log("judge"),
    resources:
        **needs("judge"),
    params:
        **stage("evaluation.stages", settings=settings(STUDY.evaluation.judge_steps, STUDY.evaluation.seed)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " judge --study {STUDY_FILE:q} --train {input.train:q} --heldout {input.heldout:q}"
        " --output {output.description:q}"


rule reference:
    input:
        train=LAYOUT.image_manifest("train"),
        heldout=[] if STUDY.evaluation.reference else LAYOUT.image_manifest("heldout"),
        judge=CLASSIFIER,
        inception=INCEPTION,
        batch=present(STUDY.evaluation.reference),
    output:
        LAYOUT.reference_statistics,
    log:
        LAYOUT.log("reference"),
    resources:
        **needs("reference"),
    params:
        **stage(
            "evaluation.stages",
            settings=settings(
                STUDY.evaluation.model_dump(mode="json", include={"extractor", "weights", "reference"}),
                *INCEPTION_STATE,
                *state_of(STUDY.evaluation.reference),
            ),
        ),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " reference --study {STUDY_FILE:q} --train {input.train:q} --heldout={input.heldout:q}"
        " --judge={input.judge:q} --output {output:q}"


rule fidelity:
    input:
        samples=LAYOUT.samples(),
        reference=LAYOUT.reference_statistics,
        judge=CLASSIFIER,
        inception=INCEPTION,
    output:
        LAYOUT.fidelity(),
    log:
        LAYOUT.log("fidelity-{run}-{step}-{sampler}"),
    resources:
        **needs("fidelity"),
    params:
        **stage("evaluation.stages", settings=settings(STUDY.evaluation, *INCEPTION_STATE)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " evaluate --study {STUDY_FILE:q} --run {wildcards.run:q} --step {wildcards.step:q}"
        " --sampler {wildcards.sampler:q} --samples {input.samples:q} --reference {input.reference:q}"
        " --judge={input.judge:q} --output {output:q}"


rule floor:
    input:
        heldout=LAYOUT.image_manifest("heldout"),
        reference=LAYOUT.reference_statistics,
        judge=CLASSIFIER,
        inception=INCEPTION,
    output:
        LAYOUT.real_baseline,
    log:
        LAYOUT.log("floor"),
    resources:
        **needs("floor"),
    params:
        **stage("evaluation.stages", settings=settings(STUDY.evaluation, *INCEPTION_STATE)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " floor --study {STUDY_FILE:q} --heldout {input.heldout:q}"
        " --reference {input.reference:q} --judge={input.judge:q} --output {output:q}"


rule sweep:
    input:
        weights=lambda wildcards: last_weights(wildcards.run),
        autoencoder=LAYOUT.autoencoder,
        reference=LAYOUT.reference_statistics,
        judge=CLASSIFIER,
        inception=INCEPTION,
    output:
        table=LAYOUT.sweep(),
        images=LAYOUT.sweep_images(),
    log:
        LAYOUT.log("sweep-{run}"),
    resources:
        **needs("sweep"),
    params:
        **stage(
            "evaluation.sweep_stage",
            settings=settings(
                STUDY.sampling.sweep,
                STUDY.sampler(STUDY.sampling.main),
                STUDY.sampling.model_dump(mode="json", include={"block", "seed", "precision", "compile"}),
                STUDY.evaluation,
                *INCEPTION_STATE,
            ),
        ),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " sweep --study {STUDY_FILE:q} --run {wildcards.run:q} --weights {input.weights:q}"
        " --autoencoder {input.autoencoder:q} --reference {input.reference:q} --judge={input.judge:q}"
        " --processes {threads:q} --output {output.table:q} --images-output {output.images:q}"


PRODUCTS += [rules.reference.output, rules.floor.output, *([rules.judge.output] if DIGITS else [])]
PRODUCTS += [*map(LAYOUT.sweep, STUDY.sweep_runs()), *map(LAYOUT.sweep_images, STUDY.sweep_runs())]
PRODUCTS += [LAYOUT.fidelity(*images) for images in STUDY.sample_sets()]
