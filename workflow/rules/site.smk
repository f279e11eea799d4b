rule site:
    input:
        jobs.pictures,
        jobs.searches,
        "results/{benchmark}/evaluations.parquet",
        "results/{benchmark}/traces.parquet",
        "results/{benchmark}/trials.parquet",
        "results/{benchmark}/leaderboard.parquet",
    output:
        "results/{benchmark}/site/index.html",
        "results/{benchmark}/site/accuracy.png",
    log:
        "results/{benchmark}/logs/site.log",
    params:
        config=jobs.path,
        spec=jobs.tables_spec,
    shell:
        "iadd site {params.config:q} > {log:q} 2>&1"
