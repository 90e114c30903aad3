# Large pretrained models, or tiny ones of the same classes: prompts -> pictures of every arm -> scores.
# A job draws all arms of a family for its share of the prompts, so that weights are loaded once; pictures and the
# records of finished batches lie undeclared beside its output, so that it goes on where it was stopped. Where there are
# accelerators a job takes a free one for itself, or waits for one: more jobs than devices may be started.
from stablevelocity.study.pretrained_settings import AUTOENCODER_FROM, VIDEO

FAMILIES = STUDY.pretrained.families
PRETRAINED = f"{OUT}/pretrained"
TINY = STUDY.pretrained.tiny


def tiny_model_of(wildcards):
    """Nothing for an original: it comes from the hub's cache or its own folder."""
    return f"{PRETRAINED}/{wildcards.family}/model/training.json" if wildcards.family in TINY else []


def autoencoder_of(wildcards):
    """The model whose autoencoder this one takes or starts from, where the study has it."""
    donor = AUTOENCODER_FROM.get(wildcards.family)
    return f"{PRETRAINED}/{donor}/model/training.json" if donor in TINY else []


rule tiny_model:
    input:
        autoencoder=autoencoder_of,
    output:
        f"{PRETRAINED}/{{family}}/model/training.json",
    log:
        f"{OUT}/logs/tiny_model-{{family}}.log",
    benchmark:
        f"{OUT}/benchmarks/tiny_model-{{family}}.tsv"
    wildcard_constraints:
        family=one_of(FAMILIES),
    params:
        settings=lambda wildcards: settings(FAMILIES[wildcards.family].tiny),
        code=code("pretrained.tiny_training"),
    shell:
        "stablevelocity --log {log:q} tiny-model --study {STUDY_FILE:q} --family {wildcards.family:q}"
        " --autoencoder={input.autoencoder:q} --output {output:q}"


rule prompts:
    input:
        lambda wildcards: present(FAMILIES[wildcards.family].prompts),
    output:
        f"{PRETRAINED}/{{family}}/prompts.jsonl",
    log:
        f"{OUT}/logs/prompts-{{family}}.log",
    wildcard_constraints:
        family=one_of(FAMILIES),
    params:
        settings=lambda wildcards: settings(
            FAMILIES[wildcards.family].model_dump(mode="json", include={"prompts", "category", "prompts_per_task"}),
            STUDY.pretrained.seed,
            *state_of(FAMILIES[wildcards.family].prompts),
        ),
        code=code("pretrained.prompts"),
    shell:
        "stablevelocity --log {log:q} prompts --study {STUDY_FILE:q} --family {wildcards.family:q} --output {output:q}"


rule generate_arms:
    input:
        model=tiny_model_of,
        prompts=f"{PRETRAINED}/{{family}}/prompts.jsonl",
    output:
        f"{PRETRAINED}/{{family}}/samples/shard-{{shard}}.json",
    log:
        f"{OUT}/logs/generate_arms-{{family}}-{{shard}}.log",
    benchmark:
        f"{OUT}/benchmarks/generate_arms-{{family}}-{{shard}}.tsv"
    wildcard_constraints:
        family=one_of(FAMILIES),
    params:
        settings=lambda wildcards: settings(
            FAMILIES[wildcards.family].model_dump(mode="json", exclude={"tiny"}),
            STUDY.pretrained.model_dump(mode="json", include={"xi", "low_steps", "xi_sweep", "noise_factor", "seed"}),
        ),
        code=code("pretrained.generate"),
    shell:
        "stablevelocity --log {log:q} generate-arms --study {STUDY_FILE:q} --family {wildcards.family:q}"
        " --model={input.model:q} --prompts {input.prompts:q} --shard {wildcards.shard:q} --output {output:q}"


rule score_family:
    input:
        prompts=f"{PRETRAINED}/{{family}}/prompts.jsonl",
        shards=lambda wildcards: shards(
            f"pretrained/{wildcards.family}/samples/shard-{{shard:05d}}.json", FAMILIES[wildcards.family].shards
        ),
    output:
        f"{PRETRAINED}/{{family}}/metrics.csv",
    log:
        f"{OUT}/logs/score_family-{{family}}.log",
    wildcard_constraints:
        family=one_of(FAMILIES),
    params:
        code=code("pretrained.score", "pretrained.detectors", "pretrained.benchmarks.geneval_detector"),
    shell:
        "stablevelocity --log {log:q} score-family --study {STUDY_FILE:q} --family {wildcards.family:q}"
        " --prompts {input.prompts:q} --output {output:q} {input.shards:q}"


rule compare_videos:
    input:
        prompts=f"{PRETRAINED}/{{family}}/prompts.jsonl",
        shards=lambda wildcards: shards(
            f"pretrained/{wildcards.family}/samples/shard-{{shard:05d}}.json", FAMILIES[wildcards.family].shards
        ),
    output:
        video=f"{PRETRAINED}/{{family}}/comparison.mp4",
        preview=f"{PRETRAINED}/{{family}}/comparison.gif",
    log:
        f"{OUT}/logs/compare_videos-{{family}}.log",
    wildcard_constraints:
        family=one_of(FAMILIES),
    params:
        code=code("pretrained.picture_files"),
    shell:
        "stablevelocity --log {log:q} compare-videos --study {STUDY_FILE:q} --family {wildcards.family:q}"
        " --prompts {input.prompts:q} --shard {input.shards[0]:q} --video {output.video:q} --preview {output.preview:q}"


rule judge_accuracy:
    output:
        f"{PRETRAINED}/judge.json",
    log:
        f"{OUT}/logs/judge_accuracy.log",
    params:
        code=code("pretrained.detectors"),
    shell:
        "stablevelocity --log {log:q} judge-accuracy --output {output:q}"


rule scheduler_errors:
    output:
        f"{PRETRAINED}/scheduler_errors.csv",
    log:
        f"{OUT}/logs/scheduler_errors.log",
    params:
        settings=settings(
            STUDY.pretrained.model_dump(mode="json", include={"xi", "low_steps", "gmm_dimensions", "gmm_points"})
        ),
        code=code("experiments.scheduler_accuracy"),
    shell:
        "stablevelocity --log {log:q} scheduler-errors --study {STUDY_FILE:q} --output {output:q}"


PRODUCTS += [rules.judge_accuracy.output, rules.scheduler_errors.output]
PRODUCTS += expand(rules.tiny_model.output, family=TINY)
PRODUCTS += expand(rules.prompts.output, family=FAMILIES) + expand(rules.score_family.output, family=FAMILIES)
PRODUCTS += expand(rules.compare_videos.output, family=[name for name in FAMILIES if name in VIDEO])
for family, model in FAMILIES.items():
    PRODUCTS += shards(f"pretrained/{family}/samples/shard-{{shard:05d}}.json", model.shards)
