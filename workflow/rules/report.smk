# coming


rule report:
    input:
        f"{OUT}/variance/curves.csv",
        [f"{OUT}/runs/{run}/metrics.csv" for run in RUNS],
