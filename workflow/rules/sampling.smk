# Images drawn from every trained network: one job per shard of a set (run, step, sampler). A job keeps its finished
# blocks in <shard>.blocks/, undeclared, so that it goes on where it was stopped.
SET = "{run}/step-{step}/{sampler}"


def weights_of(wildcards):
    return weights(RUNS[wildcards.run], int(wildcards.step))


rule sample_shard:
    input:
        weights=weights_of,
        autoencoder=f"{OUT}/data/autoencoder.json",
    output:
        f"{OUT}/samples/{SET}/shard-{{shard}}.safetensors",
    log:
        f"{OUT}/logs/sample_shard-{{run}}-{{step}}-{{sampler}}-{{shard}}.log",
    benchmark:
        f"{OUT}/benchmarks/sample_shard-{{run}}-{{step}}-{{sampler}}-{{shard}}.tsv"
    params:
        settings=lambda wildcards: settings(
            STUDY.sampler(wildcards.sampler),
            STUDY.sampling.model_dump(mode="json", include={"images", "shards", "block", "seed", "precision"}),
        ),
        code=code("sampling.stages"),
    shell:
        "stablevelocity --log {log:q} sample --study {STUDY_FILE:q} --sampler {wildcards.sampler:q}"
        " --weights {input.weights:q} --autoencoder {input.autoencoder:q} --shard {wildcards.shard:q}"
        " --processes {threads:q} --output {output:q}"


rule sample_manifest:
    input:
        weights=weights_of,
        autoencoder=f"{OUT}/data/autoencoder.json",
        shards=expand(
            f"{OUT}/samples/{SET}/shard-{{shard:05d}}.safetensors",
            shard=range(STUDY.sampling.shards),
            allow_missing=True,
        ),
    output:
        f"{OUT}/samples/{SET}/manifest.json",
    log:
        f"{OUT}/logs/sample_manifest-{{run}}-{{step}}-{{sampler}}.log",
    params:
        code=code("data.stages.manifests"),
    shell:
        "stablevelocity --log {log:q} sample-manifest --study {STUDY_FILE:q} --sampler {wildcards.sampler:q}"
        " --weights {input.weights:q} --autoencoder {input.autoencoder:q} --output {output:q} {input.shards:q}"


for run, step, sampler in STUDY.sample_sets():
    PRODUCTS += expand(rules.sample_manifest.output, run=run, step=f"{step:08d}", sampler=sampler)
    PRODUCTS += expand(
        rules.sample_shard.output,
        run=run,
        step=f"{step:08d}",
        sampler=sampler,
        shard=[f"{shard:05d}" for shard in range(STUDY.sampling.shards)],
    )
