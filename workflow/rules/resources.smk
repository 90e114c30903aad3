# Resources of every rule, from the one table in stablevelocity/cluster/resources.py; --set-resources still overrides.
from snakemake.resources import Resources
from stablevelocity.cluster.resources import snakemake_resources

for rule_ in workflow.rules:
    overridden = workflow.resource_settings.overwrite_resources.get(rule_.name, {})
    resources_ = snakemake_resources(rule_.name, STUDY, SITE).items()
    rule_.resources.update(
        Resources.from_mapping({name: value for name, value in resources_ if name not in overridden})
    )
