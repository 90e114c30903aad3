# Images in shards, the autoencoder, its latents, and the frozen encoder's features.
SPLITS = {"train": STUDY.images.shards, "heldout": max(1, STUDY.images.shards // 25)}  # number of shards
LATENT_SHARDS = [LAYOUT.latent_shard("train", shard) for shard in range(SPLITS["train"])]
FEATURE_SHARDS = [LAYOUT.feature_shard(shard) for shard in range(SPLITS["train"])]


def image_shards(split):
    return [LAYOUT.image_shard(split, shard) for shard in range(SPLITS[split])]


def image_settings(wildcards):
    """Of a folder also which images it holds: those that come or go make the index again, and what follows from it."""
    given = [STUDY.images.model_dump(mode="json", exclude={"shards"})]
    if STUDY.images.dataset == "folder":
        from stablevelocity.data.class_folders import listing

        given.append(or_one_line(listing, STUDY.images.path, wildcards.split))
    return settings(*given)


rule image_index:
    output:
        LAYOUT.image_index(),
    log:
        LAYOUT.log("image_index-{split}"),
    priority: FIRST
    resources:
        **needs("image_index"),
    params:
        **stage("data.stages.images", settings=image_settings),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " image-index --study {STUDY_FILE:q} --split {wildcards.split:q}"
        " --output {output:q}"


rule image_shard:
    input:
        LAYOUT.image_index(),
    output:
        LAYOUT.image_shard(),
    log:
        LAYOUT.log("image_shard-{split}-{shard}"),
    priority: FIRST
    resources:
        **needs("image_shard"),
    params:
        **stage("data.stages.images", settings=settings(STUDY.images), of=lambda wildcards: SPLITS[wildcards.split]),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " image-shard --study {STUDY_FILE:q} --index {input:q}"
        " --shard {wildcards.shard:q} --of {params.of:q} --output {output:q}"


rule image_manifest:
    input:
        index=LAYOUT.image_index(),
        shards=lambda wildcards: image_shards(wildcards.split),
    output:
        manifest=LAYOUT.image_manifest(),
        corrupt=LAYOUT.unreadable_images(),
    log:
        LAYOUT.log("image_manifest-{split}"),
    priority: FIRST
    resources:
        **needs("image_manifest"),
    params:
        **stage("data.shards"),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " image-manifest --study {STUDY_FILE:q} --index {input.index:q}"
        " --output {output.manifest:q} --corrupt {output.corrupt:q} {input.shards:q}"


rule autoencoder:
    input:
        train=LAYOUT.image_manifest("train"),
        heldout=LAYOUT.image_manifest("heldout"),
    output:
        # A pretrained one stays where it is; the description says where.
        [] if STUDY.autoencoder.pretrained else LAYOUT.autoencoder_files,
        description=LAYOUT.autoencoder,
    log:
        LAYOUT.log("autoencoder"),
    priority: FIRST
    resources:
        **needs("autoencoder"),
    params:
        **stage("data.stages.latents", settings=settings(STUDY.autoencoder)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " autoencoder --study {STUDY_FILE:q} --train {input.train:q}"
        " --heldout {input.heldout:q} --output {output.description:q}"


rule latent_shard:
    input:
        images=LAYOUT.image_shard(),
        autoencoder=LAYOUT.autoencoder,
    output:
        LAYOUT.latent_shard(),
    log:
        LAYOUT.log("latent_shard-{split}-{shard}"),
    priority: FIRST
    resources:
        **needs("latent_shard"),
    params:
        **stage("data.stages.latents"),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " latent-shard --images {input.images:q} --autoencoder {input.autoencoder:q}"
        " --output {output:q}"


rule latent_manifest:
    input:
        images=LAYOUT.image_manifest("train"),
        autoencoder=LAYOUT.autoencoder,
        shards=LATENT_SHARDS,
    output:
        LAYOUT.latents,
    log:
        LAYOUT.log("latent_manifest"),
    priority: FIRST
    resources:
        **needs("latent_manifest"),
    params:
        **stage("data.stages.manifests"),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " latent-manifest --images {input.images:q} --autoencoder {input.autoencoder:q}"
        " --output {output:q} {input.shards:q}"


rule encoder:
    input:
        train=LAYOUT.image_manifest("train"),
        heldout=LAYOUT.image_manifest("heldout"),
    output:
        LAYOUT.encoder_weights if STUDY.encoder.name in ("digits-vit", "digits-vit-ssl") else [],
        description=LAYOUT.encoder,
    log:
        LAYOUT.log("encoder"),
    resources:
        **needs("encoder"),
    params:
        **stage("data.stages.features", settings=settings(STUDY.encoder)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " encoder --study {STUDY_FILE:q} --train {input.train:q}"
        " --heldout {input.heldout:q} --output {output.description:q}"


if STUDY.encoder.online:

    rule online_features:
        input:
            encoder=LAYOUT.encoder,
            images=LAYOUT.image_manifest("train"),
        output:
            LAYOUT.features,
        log:
            LAYOUT.log("online_features"),
        resources:
            **needs("online_features"),
        params:
            **stage("data.stages.manifests"),
        shell:
            "stablevelocity --log {log:q} {params.provenance:q}"
            " online-features --encoder {input.encoder:q} --images {input.images:q}"
            " --output {output:q}"

else:

    rule feature_shard:
        input:
            images=LAYOUT.image_shard("train"),
            encoder=LAYOUT.encoder,
        output:
            LAYOUT.feature_shard(),
        log:
            LAYOUT.log("feature_shard-{shard}"),
        resources:
            **needs("feature_shard"),
        params:
            **stage("data.stages.features"),
        shell:
            "stablevelocity --log {log:q} {params.provenance:q}"
            " feature-shard --images {input.images:q} --encoder {input.encoder:q}"
            " --output {output:q}"

    rule feature_manifest:
        input:
            encoder=LAYOUT.encoder,
            shards=FEATURE_SHARDS,
        output:
            LAYOUT.features,
        log:
            LAYOUT.log("feature_manifest"),
        resources:
            **needs("feature_manifest"),
        params:
            **stage("data.stages.manifests"),
        shell:
            "stablevelocity --log {log:q} {params.provenance:q}"
            " feature-manifest --encoder {input.encoder:q} --output {output:q}"
            " {input.shards:q}"


for split in SPLITS:
    PRODUCTS += expand([*rules.image_index.output, *rules.image_manifest.output], split=split)
    PRODUCTS += image_shards(split)
PRODUCTS += [rules.autoencoder.output, LAYOUT.latents, LATENT_SHARDS]
if any(map(needs_features, RUNS.values())):
    PRODUCTS += [rules.encoder.output, LAYOUT.features]
    if not STUDY.encoder.online:
        PRODUCTS += FEATURE_SHARDS
