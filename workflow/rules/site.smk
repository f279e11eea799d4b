rule site:
    input:
        jobs.abouts,
        jobs.searches,
        "results/{benchmark}/evaluations.parquet",
        "results/{benchmark}/traces.parquet",
        "results/{benchmark}/weights.parquet",
        "results/{benchmark}/trials.parquet",
        "results/{benchmark}/comparisons.parquet",
        "results/{benchmark}/privacy.parquet",
        "results/{benchmark}/submissions.parquet",
        "results/{benchmark}/leaderboard.parquet",
    output:
        "results/{benchmark}/site/index.html",
    log:
        "results/{benchmark}/logs/site.log",
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        gpu=None,
        gres=None,
    params:
        spec=jobs.tables_spec,
    shell:
        "iadd site {resources.config:q} > {log:q} 2>&1"
