rule collect:
    input:
        jobs.evaluations,
        jobs.traces,
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
    params:
        spec=jobs.tables_spec,
    shell:
        "iadd collect {resources.config:q} > {log:q} 2>&1"
