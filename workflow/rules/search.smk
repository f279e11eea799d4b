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
    resources:
        config=jobs.path,
    params:
        spec=jobs.search_spec,
    shell:
        "${{IADD_SEARCH_LAUNCH:-}} iadd search {resources.config:q} --dataset {wildcards.dataset:q}"
        " --method {wildcards.method:q} --ipc {wildcards.ipc} --workers {threads} > {log:q} 2>&1"
