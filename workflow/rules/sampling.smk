# Images drawn from every trained network: one job per shard of a set (run, step, sampler). A job keeps its finished
# blocks in <shard>.blocks/, undeclared, so that it goes on where it was stopped.
rule sample_shard:
    input:
        weights=LAYOUT.weights(),
        autoencoder=LAYOUT.autoencoder,
    output:
        LAYOUT.sample_shard(),
    log:
        LAYOUT.log("sample_shard-{run}-{step}-{sampler}-{shard}"),
    resources:
        **needs("sample_shard"),
    params:
        **stage(
            "sampling.stages",
            settings=lambda wildcards: settings(
                STUDY.sampler(wildcards.sampler),
                STUDY.sampling.model_dump(
                    mode="json", include={"images", "shards", "block", "seed", "precision", "compile"}
                ),
            ),
        ),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " sample --study {STUDY_FILE:q} --sampler {wildcards.sampler:q}"
        " --weights {input.weights:q} --autoencoder {input.autoencoder:q} --shard {wildcards.shard:q}"
        " --processes {threads:q} --output {output:q}"


rule sample_manifest:
    input:
        weights=LAYOUT.weights(),
        autoencoder=LAYOUT.autoencoder,
        shards=[LAYOUT.sample_shard(shard=shard) for shard in range(STUDY.sampling.shards)],
    output:
        LAYOUT.samples(),
    log:
        LAYOUT.log("sample_manifest-{run}-{step}-{sampler}"),
    resources:
        **needs("sample_manifest"),
    params:
        **stage("data.stages.manifests"),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " sample-manifest --study {STUDY_FILE:q} --sampler {wildcards.sampler:q}"
        " --weights {input.weights:q} --autoencoder {input.autoencoder:q} --output {output:q} {input.shards:q}"


for images in STUDY.sample_sets():  # of a run, a step and a sampler
    PRODUCTS.append(LAYOUT.samples(*images))
    PRODUCTS += [LAYOUT.sample_shard(*images, shard) for shard in range(STUDY.sampling.shards)]
