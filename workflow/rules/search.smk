rule search:
    input:
        jobs.about,
        ancient(jobs.train),
        jobs.shards,
    output:
        "results/{benchmark}/search/{dataset}-{method}-ipc{ipc}.json",
        "results/{benchmark}/search/{dataset}-{method}-ipc{ipc}.trials.parquet",
        "results/{benchmark}/search/{dataset}-{method}-ipc{ipc}.png",
    log:
        "results/{benchmark}/logs/search/{dataset}-{method}-ipc{ipc}.log",
    threads: jobs.config.search.workers
    params:
        spec=jobs.search_spec,
    shell:
        "${{IADD_SEARCH_LAUNCH:-}} iadd search {jobs.path:q} --dataset {wildcards.dataset:q}"
        " --method {wildcards.method:q} --ipc {wildcards.ipc} --workers {threads} > {log:q} 2>&1"
