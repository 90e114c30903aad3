from stablevelocity.cli.overall_progress import show_overall_progress
from stablevelocity.cli.warm_start import start_server

# What happens once: before the first job, and on a cluster. Without a cluster, nothing of config/site.yaml matters.
if workflow.is_main_process:
    or_one_line(remove_stale_locks, LAYOUT)
    if workflow.resource_settings.nodes is not None:  # --jobs, as in the profile slurm: rules become jobs
        from stablevelocity.cluster import plugin

        remove_job_variables()
        plugin.patch()

if workflow.remote_exec and SITE.setup:
    # Braces in them are the shell's, so Snakemake, which fills in its own, is given each twice.
    shell.prefix("".join(f"{line}\n" for line in SITE.setup).replace("{", "{{").replace("}", "}}"))


def launcher(wildcards):
    """How training starts: the site file's word, else in a job where the other rules are jobs too."""
    # A dry run is local itself; it shows what the run that it stands for would do.
    local = workflow.resource_settings.nodes is None if workflow.dryrun else workflow.local_exec
    return SITE.launcher or ("local" if local else "slurm")


def start():
    """Lock the study, check what it names, and ask SLURM whether it would take the jobs of every rule."""
    from stablevelocity.cli.checks import check_machine, fp16_without_accelerator

    acquire_study_lock(LAYOUT)
    if not workflow.local_exec and launcher(None) == "slurm":
        from stablevelocity.cluster.preflight import check_slurm, check_training

        check_training(SITE, STUDY)
        check_slurm(SITE, NEEDS)
    # Paths are checked here and not on reading, so that a dry run can plan a study without its data.
    if launcher(None) == "local" and (problem := fp16_without_accelerator(STUDY)):
        raise UserError(problem)
    check_machine(STUDY, list_images=not Path(LAYOUT.image_index("train")).exists())
    # Jobs read the resolved study from here. It is no input of any rule: what a rule needs is in its params.
    if not Path(STUDY_FILE).exists() or Path(STUDY_FILE).read_text() != study_json(STUDY):
        with atomic_write(STUDY_FILE) as temporary:
            temporary.write_text(study_json(STUDY))
    if workflow.local_exec:
        show_overall_progress(workflow, STUDY)
        start_server()


onstart:
    or_one_line(start)
