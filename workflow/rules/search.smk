rule search:
    input:
        jobs.distilled_from,
        ancient(jobs.train),
    output:
        "<root>/search/{dataset}-{method}-ipc{ipc}.json",
        "<root>/search/{dataset}-{method}-ipc{ipc}.trials.parquet",
        "<root>/search/{dataset}-{method}-ipc{ipc}.png",
    log:
        "<root>/logs/search/{dataset}-{method}-ipc{ipc}.log",
    # What others wait for comes first.
    priority: 1
    threads: jobs.config.search.workers
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        gpu=asks.search_cards,
        gres=None,
        cpus_per_task=asks.search_cores,
        tasks=asks.search_tasks,
        tasks_per_gpu=asks.search_tasks_per_card,
        mpi=asks.search_launcher,
    params:
        launch=asks.search_launch,
        workers=asks.workers,
        spec=jobs.search_spec,
    shell:
        "{params.launch} iadd search {resources.config:q} --dataset {wildcards.dataset:q}"
        " --method {wildcards.method:q} --ipc {wildcards.ipc} --workers {params.workers} > {log:q} 2>&1"
