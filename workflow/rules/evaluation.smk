# Features in one pass, all metrics from them; the floor between real sets; few-step and same-noise studies.
# Features are kept in metrics/features/, undeclared: another bootstrap or k needs no second pass.
DIGITS = STUDY.evaluation.extractor == "digits"
JUDGE = f"{OUT}/metrics/judge.json" if DIGITS else []
INCEPTION = [] if DIGITS else present(STUDY.evaluation.weights)
EXTRACTOR = settings(STUDY.evaluation.model_dump(mode="json", include={"extractor", "weights", "reference"}))


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
        "stablevelocity --log {log} judge --study {STUDY_FILE} --train {input.train} --heldout {input.heldout}"
        " --output {output.description}"


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
        settings=EXTRACTOR,
        code=code("evaluation.stages"),
    shell:
        "stablevelocity --log {log} reference --study {STUDY_FILE} --train {input.train}"
        " --judge '{input.judge}' --output {output}"


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
        settings=settings(STUDY.evaluation),
        code=code("evaluation.stages"),
    shell:
        "stablevelocity --log {log} evaluate --study {STUDY_FILE} --run {wildcards.run} --step {wildcards.step}"
        " --sampler {wildcards.sampler} --samples {input.samples} --reference {input.reference}"
        " --judge '{input.judge}' --output {output}"


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
        settings=settings(STUDY.evaluation),
        code=code("evaluation.stages"),
    shell:
        "stablevelocity --log {log} floor --study {STUDY_FILE} --heldout {input.heldout}"
        " --reference {input.reference} --judge '{input.judge}' --output {output}"


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
        ),
        code=code("evaluation.sweep_stage"),
    shell:
        "stablevelocity --log {log} sweep --study {STUDY_FILE} --run {wildcards.run} --weights {input.weights}"
        " --autoencoder {input.autoencoder} --reference {input.reference} --judge '{input.judge}'"
        " --processes {threads} --output {output}"


PRODUCTS += [rules.reference.output, rules.floor.output, *([rules.judge.output] if DIGITS else [])]
PRODUCTS += expand(rules.sweep.output, run=STUDY.sweep_runs())
for run, step, sampler in STUDY.sample_sets():
    PRODUCTS += expand(rules.fidelity.output, run=run, step=f"{step:08d}", sampler=sampler)
