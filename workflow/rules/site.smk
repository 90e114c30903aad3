# What config/site.yaml says of this cluster. Without that file, and without a cluster, nothing of it matters.
from stablevelocity.cluster.site import SITE_FILE, load_site


def read_site():
    try:
        return load_site(SITE_FILE)
    except UserError as error:
        sys.exit(f"error: {error}")


SITE = read_site()

if workflow.remote_exec and SITE.setup:
    shell.prefix("".join(f"{line}; " for line in SITE.setup))


def launcher(wildcards):
    """How training starts: the site file's word, else in a job where the other rules are jobs too."""
    # A dry run is local itself; it shows what the run that it stands for would do.
    local = workflow.resource_settings.nodes is None if workflow.dryrun else workflow.local_exec
    return SITE.launcher or ("local" if local else "slurm")


def check_site():
    """Ask SLURM whether it would take the jobs of this study, before the first is submitted."""
    if workflow.local_exec or launcher(None) != "slurm":
        return
    from stablevelocity.cluster.preflight import check_slurm

    needed = {job.rule.name for job in workflow.dag.needrun_jobs() if not job.is_local}
    try:
        check_slurm(SITE, {rule: snakemake_resources(rule, STUDY, SITE) for rule in sorted(needed)})
    except UserError as error:
        sys.exit(f"error: {error}")
