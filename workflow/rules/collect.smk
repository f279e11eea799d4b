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
        "<root>/evaluations.parquet",
        "<root>/traces.parquet",
        "<root>/weights.parquet",
        "<root>/trials.parquet",
        "<root>/comparisons.parquet",
        "<root>/privacy.parquet",
        "<root>/submissions.parquet",
        "<root>/leaderboard.parquet",
        "<root>/leaderboard.csv",
    log:
        "<root>/logs/collect.log",
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
