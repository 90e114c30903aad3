"""Training on a cluster: one job of SLURM per run (or per few runs), which resumes by itself until it is done.

site.py       what differs between clusters: account, partitions, modules, limits (config/site.yaml)
resources.py  time, memory, processors and accelerators of every rule, in one table
tasks.py      one run to train, and its files
schedulers.py submit, look up, cancel: SLURM, or processes of this machine, through submitit
job.py        what runs inside the job: train, stop at a step boundary on a signal, requeue
launch.py     what runs on the head node: submit or re-attach, wait, judge by the files
overview.py   the table of `stablevelocity jobs`
preflight.py  what can be known to fail before anything is submitted
"""
