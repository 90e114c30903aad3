"""Training on a cluster: one job of SLURM per run (or per few runs), which resumes by itself until it is done.

site.py        what differs between clusters: account, partitions, modules, limits (config/site.yaml)
resources.py   time, memory, processors and accelerators of every rule that becomes a job, in one table
costs.py       what a job costs, roughly
tasks.py       a run to train, and the files by which submitter, job and user know how it stands
backends.py    submit, look up and cancel jobs: SLURM, or processes of this machine, through submitit
submitter.py   on the login node: submit or attach, wait, decide by the files
job.py         inside the job: train, stop at a step boundary on a signal, requeue
launch.py      where `stablevelocity train` chooses between training here and submitting
overview.py    the table of `stablevelocity jobs`
preflight.py   what can be known to fail before anything is submitted
plugin.py      patches of Snakemake's executor for SLURM
study_lock.py  one Snakemake at a time on a study
"""
