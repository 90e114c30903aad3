# Features in one pass, all metrics from them; the floor between real sets; few-step and same-noise studies.
# Features are kept in metrics/features/, undeclared: another bootstrap or k needs no second pass.
DIGITS = STUDY.evaluation.extractor == "digits"
JUDGE = f"{OUT}/metrics/judge.json" if DIGITS else []
INCEPTION = [] if DIGITS else present(STUDY.evaluation.weights)
INCEPTION_STATE = [] if DIGITS else state_of(STUDY.evaluation.weights)


rule judge:
    input:
        train=f"{OUT}/data/images/train.json",
        heldout=f"{OUT}/data/images/heldout.json",
    output:
        f"{OUT}/metrics/judge/config.json",
        f"{OUT}/metrics/judge/model.safetensors",
        description=f"{OUT}/metrics/judge.json",
    log:
        f"{OUT}/logs/judge.log",
    benchmark:
        f"{OUT}/benchmarks/judge.tsv"
    params:
        settings=settings(STUDY.evaluation.judge_steps, STUDY.evaluation.seed),
        code=code("evaluation.stages"),
    shell:
        "stablevelocity --log {log:q} judge --study {STUDY_FILE:q} --train {input.train:q} --heldout {input.heldout:q}"
        " --output {output.description:q}"


rule reference:
    input:
        train=f"{OUT}/data/images/train.json",
        judge=JUDGE,
        inception=INCEPTION,
        batch=present(STUDY.evaluation.reference),
    output:
        f"{OUT}/metrics/reference.safetensors",
    log:
        f"{OUT}/logs/reference.log",
    benchmark:
        f"{OUT}/benchmarks/reference.tsv"
    params:
        settings=settings(
            STUDY.evaluation.model_dump(mode="json", include={"extractor", "weights", "reference"}),
            *INCEPTION_STATE,
            *state_of(STUDY.evaluation.reference),
        ),
        code=code("evaluation.stages"),
    shell:
        "stablevelocity --log {log:q} reference --study {STUDY_FILE:q} --train {input.train:q}"
        " --judge={input.judge:q} --output {output:q}"


rule fidelity:
    input:
        samples=f"{OUT}/samples/{SET}/manifest.json",
        reference=f"{OUT}/metrics/reference.safetensors",
        judge=JUDGE,
        inception=INCEPTION,
    output:
        f"{OUT}/metrics/fidelity/{SET}.csv",
    log:
        f"{OUT}/logs/fidelity-{{run}}-{{step}}-{{sampler}}.log",
    benchmark:
        f"{OUT}/benchmarks/fidelity-{{run}}-{{step}}-{{sampler}}.tsv"
    params:
        settings=settings(STUDY.evaluation, *INCEPTION_STATE),
        code=code("evaluation.stages"),
    shell:
        "stablevelocity --log {log:q} evaluate --study {STUDY_FILE:q} --run {wildcards.run:q} --step {wildcards.step:q}"
        " --sampler {wildcards.sampler:q} --samples {input.samples:q} --reference {input.reference:q}"
        " --judge={input.judge:q} --output {output:q}"


rule floor:
    input:
        heldout=f"{OUT}/data/images/heldout.json",
        reference=f"{OUT}/metrics/reference.safetensors",
        judge=JUDGE,
        inception=INCEPTION,
    output:
        f"{OUT}/metrics/floor.csv",
    log:
        f"{OUT}/logs/floor.log",
    params:
        settings=settings(STUDY.evaluation, *INCEPTION_STATE),
        code=code("evaluation.stages"),
    shell:
        "stablevelocity --log {log:q} floor --study {STUDY_FILE:q} --heldout {input.heldout:q}"
        " --reference {input.reference:q} --judge={input.judge:q} --output {output:q}"


rule sweep:
    input:
        weights=lambda wildcards: weights(RUNS[wildcards.run], RUNS[wildcards.run].training.steps),
        autoencoder=f"{OUT}/data/autoencoder.json",
        reference=f"{OUT}/metrics/reference.safetensors",
        judge=JUDGE,
        inception=INCEPTION,
    output:
        f"{OUT}/metrics/sweep/{{run}}.csv",
    log:
        f"{OUT}/logs/sweep-{{run}}.log",
    benchmark:
        f"{OUT}/benchmarks/sweep-{{run}}.tsv"
    params:
        settings=settings(
            STUDY.sampling.sweep,
            STUDY.sampler(STUDY.sampling.main),
            STUDY.sampling.model_dump(mode="json", include={"block", "seed", "precision"}),
            STUDY.evaluation,
            *INCEPTION_STATE,
        ),
        code=code("evaluation.sweep_stage"),
    shell:
        "stablevelocity --log {log:q} sweep --study {STUDY_FILE:q} --run {wildcards.run:q} --weights {input.weights:q}"
        " --autoencoder {input.autoencoder:q} --reference {input.reference:q} --judge={input.judge:q}"
        " --processes {threads:q} --output {output:q}"


PRODUCTS += [rules.reference.output, rules.floor.output, *([rules.judge.output] if DIGITS else [])]
PRODUCTS += expand(rules.sweep.output, run=STUDY.sweep_runs())
for run, step, sampler in STUDY.sample_sets():
    PRODUCTS += expand(rules.fidelity.output, run=run, step=f"{step:08d}", sampler=sampler)
