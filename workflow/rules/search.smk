rule search:
    input:
        jobs.shards,
    output:
        "results/{benchmark}/search/{dataset}-{method}-ipc{ipc}.json",
        "results/{benchmark}/search/{dataset}-{method}-ipc{ipc}.trials.parquet",
        "results/{benchmark}/search/{dataset}-{method}-ipc{ipc}.png",
    log:
        "results/{benchmark}/logs/search/{dataset}-{method}-ipc{ipc}.log",
    threads: jobs.config.search.workers
    params:
        config=workflow_config,
        spec=jobs.search_spec,
    shell:
        "${{IADD_SEARCH_LAUNCH:-}} iadd search {params.config} --dataset {wildcards.dataset}"
        " --method {wildcards.method} --ipc {wildcards.ipc} --workers {threads} > {log} 2>&1"
