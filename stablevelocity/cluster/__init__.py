"""Training on a cluster: one job of SLURM per run (or per few runs), which resumes by itself until it is done."""
