# Images in shards, the autoencoder, its latents, and the frozen encoder's features.
SPLITS = {"train": STUDY.images.shards, "heldout": max(1, STUDY.images.shards // 25)}


rule image_index:
    output:
        f"{OUT}/data/images/{{split}}.index.csv",
    log:
        f"{OUT}/logs/image_index-{{split}}.log",
    params:
        settings=settings(STUDY.images.model_dump(mode="json", exclude={"shards"})),
        code=code("data.stages.images"),
    shell:
        "stablevelocity --log {log:q} image-index --study {STUDY_FILE:q} --split {wildcards.split:q}"
        " --output {output:q}"


rule image_shard:
    input:
        f"{OUT}/data/images/{{split}}.index.csv",
    output:
        f"{OUT}/data/images/{{split}}-{{shard}}.safetensors",
    log:
        f"{OUT}/logs/image_shard-{{split}}-{{shard}}.log",
    params:
        settings=settings(STUDY.images),
        code=code("data.stages.images"),
        of=lambda wildcards: SPLITS[wildcards.split],
    shell:
        "stablevelocity --log {log:q} image-shard --study {STUDY_FILE:q} --index {input:q}"
        " --shard {wildcards.shard:q} --of {params.of:q} --output {output:q}"


def image_shards(wildcards):
    return shards(f"data/images/{wildcards.split}-{{shard:05d}}.safetensors", SPLITS[wildcards.split])


rule image_manifest:
    input:
        index=f"{OUT}/data/images/{{split}}.index.csv",
        shards=image_shards,
    output:
        manifest=f"{OUT}/data/images/{{split}}.json",
        corrupt=f"{OUT}/data/images/{{split}}.corrupt.csv",
    log:
        f"{OUT}/logs/image_manifest-{{split}}.log",
    params:
        code=code("data.shards"),
    shell:
        "stablevelocity --log {log:q} image-manifest --study {STUDY_FILE:q} --index {input.index:q}"
        " --output {output.manifest:q} --corrupt {output.corrupt:q} {input.shards:q}"


rule autoencoder:
    input:
        train=f"{OUT}/data/images/train.json",
        heldout=f"{OUT}/data/images/heldout.json",
    output:
        # A pretrained one stays where it is; the description says where.
        [] if STUDY.autoencoder.pretrained else f"{OUT}/data/autoencoder/diffusion_pytorch_model.safetensors",
        [] if STUDY.autoencoder.pretrained else f"{OUT}/data/autoencoder/config.json",
        description=f"{OUT}/data/autoencoder.json",
    log:
        f"{OUT}/logs/autoencoder.log",
    benchmark:
        f"{OUT}/benchmarks/autoencoder.tsv"
    params:
        settings=settings(STUDY.autoencoder),
        code=code("data.stages.latents"),
    shell:
        "stablevelocity --log {log:q} autoencoder --study {STUDY_FILE:q} --train {input.train:q}"
        " --heldout {input.heldout:q} --output {output.description:q}"


rule latent_shard:
    input:
        images=f"{OUT}/data/images/{{split}}-{{shard}}.safetensors",
        autoencoder=f"{OUT}/data/autoencoder.json",
    output:
        f"{OUT}/data/latents/{{split}}-{{shard}}.safetensors",
    log:
        f"{OUT}/logs/latent_shard-{{split}}-{{shard}}.log",
    benchmark:
        f"{OUT}/benchmarks/latent_shard-{{split}}-{{shard}}.tsv"
    params:
        code=code("data.stages.latents"),
    shell:
        "stablevelocity --log {log:q} latent-shard --images {input.images:q} --autoencoder {input.autoencoder:q}"
        " --output {output:q}"


rule latent_manifest:
    input:
        images=f"{OUT}/data/images/train.json",
        autoencoder=f"{OUT}/data/autoencoder.json",
        shards=shards("data/latents/train-{shard:05d}.safetensors", STUDY.images.shards),
    output:
        f"{OUT}/data/latents/train.json",
    log:
        f"{OUT}/logs/latent_manifest.log",
    params:
        code=code("data.stages.manifests"),
    shell:
        "stablevelocity --log {log:q} latent-manifest --images {input.images:q} --autoencoder {input.autoencoder:q}"
        " --output {output:q} {input.shards:q}"


rule encoder:
    input:
        train=f"{OUT}/data/images/train.json",
        heldout=f"{OUT}/data/images/heldout.json",
    output:
        [] if STUDY.encoder.name != "digits-vit" else f"{OUT}/data/encoder/model.safetensors",
        description=f"{OUT}/data/encoder.json",
    log:
        f"{OUT}/logs/encoder.log",
    benchmark:
        f"{OUT}/benchmarks/encoder.tsv"
    params:
        settings=settings(STUDY.encoder),
        code=code("data.stages.features"),
    shell:
        "stablevelocity --log {log:q} encoder --study {STUDY_FILE:q} --train {input.train:q}"
        " --heldout {input.heldout:q} --output {output.description:q}"


if STUDY.encoder.online:

    rule online_features:
        input:
            encoder=f"{OUT}/data/encoder.json",
            images=f"{OUT}/data/images/train.json",
        output:
            f"{OUT}/data/features/train.json",
        log:
            f"{OUT}/logs/online_features.log",
        params:
            code=code("data.stages.manifests"),
        shell:
            "stablevelocity --log {log:q} online-features --encoder {input.encoder:q} --images {input.images:q}"
            " --output {output:q}"

else:

    rule feature_shard:
        input:
            images=f"{OUT}/data/images/train-{{shard}}.safetensors",
            encoder=f"{OUT}/data/encoder.json",
        output:
            f"{OUT}/data/features/train-{{shard}}.safetensors",
        log:
            f"{OUT}/logs/feature_shard-{{shard}}.log",
        benchmark:
            f"{OUT}/benchmarks/feature_shard-{{shard}}.tsv"
        params:
            code=code("data.stages.features"),
        shell:
            "stablevelocity --log {log:q} feature-shard --images {input.images:q} --encoder {input.encoder:q}"
            " --output {output:q}"

    rule feature_manifest:
        input:
            encoder=f"{OUT}/data/encoder.json",
            shards=shards("data/features/train-{shard:05d}.safetensors", STUDY.images.shards),
        output:
            f"{OUT}/data/features/train.json",
        log:
            f"{OUT}/logs/feature_manifest.log",
        params:
            code=code("data.stages.manifests"),
        shell:
            "stablevelocity --log {log:q} feature-manifest --encoder {input.encoder:q} --output {output:q}"
            " {input.shards:q}"


for split, count in SPLITS.items():
    PRODUCTS += expand(rules.image_index.output, split=split)
    PRODUCTS += expand(rules.image_manifest.output, split=split)
    PRODUCTS += shards(f"data/images/{split}-{{shard:05d}}.safetensors", count)
PRODUCTS += [rules.autoencoder.output, rules.latent_manifest.output, rules.latent_manifest.input.shards]
if any(run.alignment or run.class_token for run in RUNS.values()):
    PRODUCTS += [rules.encoder.output, f"{OUT}/data/features/train.json"]
    if not STUDY.encoder.online:
        PRODUCTS += [rules.feature_manifest.input.shards]
