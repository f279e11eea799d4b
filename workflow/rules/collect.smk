rule collect:
    # Traces, which are read here, come from the jobs that evaluations come from; each input of a
    # job counts in a graph of thousands. Nor is there a group of this rule and the next: whether
    # it is ready would be asked of all its inputs whenever one of them is made.
    input:
        jobs.abouts,
        jobs.evaluations,
        jobs.trials,
        jobs.privacy,
    output:
        "results/{benchmark}/evaluations.parquet",
        "results/{benchmark}/traces.parquet",
        "results/{benchmark}/weights.parquet",
        "results/{benchmark}/trials.parquet",
        "results/{benchmark}/comparisons.parquet",
        "results/{benchmark}/privacy.parquet",
        "results/{benchmark}/submissions.parquet",
        "results/{benchmark}/leaderboard.parquet",
        "results/{benchmark}/leaderboard.csv",
    log:
        "results/{benchmark}/logs/collect.log",
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        gpu=None,
        gres=None,
    params:
        spec=jobs.tables_spec,
    shell:
        "iadd collect {resources.config:q} > {log:q} 2>&1"
