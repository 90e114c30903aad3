# Large pretrained models, or tiny ones of the same classes: prompts -> pictures of every arm -> scores.
# A job draws all arms of a family for its share of the prompts, so that weights are loaded once; pictures and the
# records of finished batches lie undeclared beside its output, so that it goes on where it was stopped. Where there are
# accelerators a job takes a free one for itself, or waits for one: more jobs than devices may be started.
from stablevelocity.study.pretrained_settings import AUTOENCODER_FROM, VIDEO

FAMILIES = STUDY.pretrained.families
TINY = STUDY.pretrained.tiny


def tiny_model_of(wildcards):
    """Nothing for an original: it comes from the hub's cache or its own folder."""
    return LAYOUT.tiny_model(wildcards.family) if wildcards.family in TINY else []


def shards_of(family):
    return [LAYOUT.family_shard(family, shard) for shard in range(FAMILIES[family].shards)]


def autoencoder_of(wildcards):
    """The model whose autoencoder this one takes or starts from, where the study has it."""
    donor = AUTOENCODER_FROM.get(wildcards.family)
    return LAYOUT.tiny_model(donor) if donor in TINY else []


wildcard_constraints:
    family=one_of(FAMILIES),


rule tiny_model:
    input:
        autoencoder=autoencoder_of,
    output:
        LAYOUT.tiny_model(),
    log:
        LAYOUT.log("tiny_model-{family}"),
    resources:
        **needs("tiny_model"),
    params:
        **stage("pretrained.tiny_training", settings=lambda wildcards: settings(FAMILIES[wildcards.family].tiny)),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " tiny-model --study {STUDY_FILE:q} --family {wildcards.family:q}"
        " --autoencoder={input.autoencoder:q} --output {output:q}"


rule prompts:
    input:
        lambda wildcards: present(FAMILIES[wildcards.family].prompts),
    output:
        LAYOUT.prompts(),
    log:
        LAYOUT.log("prompts-{family}"),
    resources:
        **needs("prompts"),
    params:
        **stage(
            "pretrained.prompts",
            settings=lambda wildcards: settings(
                FAMILIES[wildcards.family].model_dump(
                    mode="json", include={"prompts", "category", "prompts_per_task"}
                ),
                STUDY.pretrained.seed,
                *state_of(FAMILIES[wildcards.family].prompts),
            ),
        ),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " prompts --study {STUDY_FILE:q} --family {wildcards.family:q} --output {output:q}"


rule generate_arms:
    input:
        model=tiny_model_of,
        prompts=LAYOUT.prompts(),
    output:
        LAYOUT.family_shard(),
    log:
        LAYOUT.log("generate_arms-{family}-{shard}"),
    resources:
        **needs("generate_arms"),
    params:
        **stage(
            "pretrained.generate",
            settings=lambda wildcards: settings(
                FAMILIES[wildcards.family].model_dump(mode="json", exclude={"tiny"}),
                STUDY.pretrained.model_dump(
                    mode="json", include={"xi", "low_steps", "xi_sweep", "noise_factor", "seed"}
                ),
            ),
        ),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " generate-arms --study {STUDY_FILE:q} --family {wildcards.family:q}"
        " --model={input.model:q} --prompts {input.prompts:q} --shard {wildcards.shard:q} --output {output:q}"


rule score_family:
    input:
        prompts=LAYOUT.prompts(),
        shards=lambda wildcards: shards_of(wildcards.family),
    output:
        table=LAYOUT.family_metrics(),
        pairs=LAYOUT.family_pairs(),
    log:
        LAYOUT.log("score_family-{family}"),
    resources:
        **needs("score_family"),
    params:
        **stage("pretrained.score", "pretrained.detectors", "pretrained.benchmarks.geneval_detector"),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " score-family --study {STUDY_FILE:q} --family {wildcards.family:q}"
        " --prompts {input.prompts:q} --output {output.table:q} --pairs-output {output.pairs:q} {input.shards:q}"


rule compare_videos:
    input:
        prompts=LAYOUT.prompts(),
        shards=lambda wildcards: shards_of(wildcards.family),
    output:
        video=LAYOUT.video_comparison(),
        preview=LAYOUT.video_comparison(suffix="gif"),
    log:
        LAYOUT.log("compare_videos-{family}"),
    resources:
        **needs("compare_videos"),
    params:
        **stage("pretrained.picture_files"),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " compare-videos --study {STUDY_FILE:q} --family {wildcards.family:q}"
        " --prompts {input.prompts:q} --shard {input.shards[0]:q} --video {output.video:q} --preview {output.preview:q}"


rule judge_accuracy:
    output:
        LAYOUT.detector_accuracy,
    log:
        LAYOUT.log("judge_accuracy"),
    resources:
        **needs("judge_accuracy"),
    params:
        **stage("pretrained.detectors"),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}" " judge-accuracy --output {output:q}"


rule scheduler_errors:
    output:
        LAYOUT.scheduler_errors,
    log:
        LAYOUT.log("scheduler_errors"),
    resources:
        **needs("scheduler_errors"),
    params:
        **stage(
            "experiments.scheduler_accuracy",
            settings=settings(
                STUDY.pretrained.model_dump(mode="json", include={"xi", "low_steps", "gmm_dimensions", "gmm_points"})
            ),
        ),
    shell:
        "stablevelocity --log {log:q} {params.provenance:q}"
        " scheduler-errors --study {STUDY_FILE:q} --output {output:q}"


PRODUCTS += [rules.judge_accuracy.output, rules.scheduler_errors.output]
PRODUCTS += expand(rules.tiny_model.output, family=TINY)
PRODUCTS += expand(rules.prompts.output, family=FAMILIES) + expand(rules.score_family.output, family=FAMILIES)
PRODUCTS += expand(rules.compare_videos.output, family=[name for name in FAMILIES if name in VIDEO])
PRODUCTS += [shard for family in FAMILIES for shard in shards_of(family)]
