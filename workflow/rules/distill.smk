rule distill:
    input:
        jobs.distilled_from,
        ancient(jobs.train),
    output:
        "<root>/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.safetensors",
        "<root>/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.trace.parquet",
        "<root>/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.png",
    log:
        "<root>/logs/distill/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.log",
    group:
        asks.run_group
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        slots=asks.slots("distill"),
    params:
        device=asks.device("distill"),
        tuned=jobs.tuned,
        spec=jobs.distill_spec,
    shell:
        "iadd distill {resources.config:q} --dataset {wildcards.dataset:q} --method {wildcards.method:q}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} {params.tuned} {params.device} > {log:q} 2>&1"
