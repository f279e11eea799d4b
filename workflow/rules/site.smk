rule site:
    input:
        jobs.abouts,
        jobs.searches,
        "<root>/evaluations.parquet",
        "<root>/traces.parquet",
        "<root>/weights.parquet",
        "<root>/trials.parquet",
        "<root>/comparisons.parquet",
        "<root>/privacy.parquet",
        "<root>/submissions.parquet",
        "<root>/leaderboard.parquet",
    output:
        "<root>/site/index.html",
    log:
        "<root>/logs/site.log",
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
