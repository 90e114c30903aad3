# What config/site.yaml says of this cluster. Without that file, and without a cluster, nothing of it matters.
from stablevelocity.cluster.study_lock import claim, forget_dead
from stablevelocity.cluster.resources import check_rules
from stablevelocity.cluster.backends import forget_outer_job
from stablevelocity.cluster.site import SITE_FILE, load_site


def read_site():
    try:
        site = load_site(SITE_FILE)
        check_rules(site)
    except UserError as error:
        sys.exit(f"error: {error}")
    return site


SITE = read_site()

if workflow.is_main_process:
    try:
        forget_dead(Path(OUT))
    except UserError as error:
        sys.exit(f"error: {error}")
    if workflow.resource_settings.nodes is not None:  # --jobs, as in the profile slurm: rules become jobs
        from stablevelocity.cluster import plugin

        forget_outer_job()
        plugin.mend()

if workflow.remote_exec and SITE.setup:
    # Braces in them are the shell's, so Snakemake, which fills in its own, is given each twice.
    shell.prefix("".join(f"{line}\n" for line in SITE.setup).replace("{", "{{").replace("}", "}}"))


def launcher(wildcards):
    """How training starts: the site file's word, else in a job where the other rules are jobs too."""
    # A dry run is local itself; it shows what the run that it stands for would do.
    local = workflow.resource_settings.nodes is None if workflow.dryrun else workflow.local_exec
    return SITE.launcher or ("local" if local else "slurm")


def check_site():
    """Be the only head of this study, and ask SLURM whether it would take its jobs, before the first is submitted."""
    try:
        claim(Path(OUT))
        if workflow.local_exec or launcher(None) != "slurm":
            return
        from stablevelocity.cluster.preflight import check_slurm, check_training

        check_training(SITE, STUDY)
        needed = {job.rule.name for job in workflow.dag.needrun_jobs() if not job.is_local}
        check_slurm(SITE, {rule: snakemake_resources(rule, STUDY, SITE) for rule in sorted(needed)})
    except UserError as error:
        sys.exit(f"error: {error}")
