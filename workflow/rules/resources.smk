# Resources of every rule, from the one table in stablevelocity/cluster/resources.py; --set-resources still overrides.
from snakemake.resources import Resources
from stablevelocity.cluster.resources import snakemake_resources, training_resources

TRAINING_RULES = {f"train_{batch[0].name}" for batch in BATCHES} if STUDY.arms else set()

for rule_ in workflow.rules:
    trains = rule_.name in TRAINING_RULES
    resources_ = training_resources(SITE) if trains else snakemake_resources(rule_.name, STUDY, SITE)
    for name in workflow.resource_settings.overwrite_resources.get(rule_.name, {}):
        resources_.pop(name, None)
    rule_.resources.update(Resources.from_mapping(resources_))
