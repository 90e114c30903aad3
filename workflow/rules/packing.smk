# On a cluster, small jobs of the study are packed into jobs of a length that is worth a place in the queue: groups of
# Snakemake's. Each keeps its restart and triggers; what a packed job has finished stays when another part of it fails.
# Included after the rules, which it goes through. `--group-components latents=1` on the command line wins.
from stablevelocity.cluster.resources import PACKS, pack_minutes, units_per_job

UNITS = {}  # by group: jobs in one of SLURM, set when the graph is made (records.smk)


# Not within a job of SLURM: Snakemake runs there what it was given, one after the other.
if workflow.resource_settings.nodes is not None and workflow.is_main_process:
    for packed in [packed for packed in workflow.rules if packed.name in PACKS]:
        pack = PACKS[packed.name]
        packed.group = lambda wildcards, pack=pack: pack.format(**wildcards)
        units = {
            pack.format(run=name): units_per_job(packed.name, STUDY, SITE, run.training) for name, run in RUNS.items()
        }
        UNITS |= units
        # What SLURM is asked about before the start.
        NEEDS[packed.name]["runtime"] = max(units.values()) * pack_minutes(packed.name, STUDY, SITE)
