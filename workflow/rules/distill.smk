rule distill:
    input:
        jobs.about,
        ancient(jobs.train),
        jobs.shards,
        jobs.winner,
    output:
        "results/{benchmark}/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.safetensors",
        "results/{benchmark}/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.trace.parquet",
        "results/{benchmark}/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.png",
    log:
        "results/{benchmark}/logs/distill/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.log",
    group:
        asks.run_group
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        slots=asks.slots,
    params:
        device=asks.device,
        tuned=jobs.tuned,
        spec=jobs.distill_spec,
    shell:
        "iadd distill {resources.config:q} --dataset {wildcards.dataset:q} --method {wildcards.method:q}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} {params.tuned} {params.device} > {log:q} 2>&1"
