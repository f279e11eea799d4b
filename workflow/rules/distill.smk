rule distill:
    input:
        jobs.shards,
        jobs.winner,
    output:
        "results/{benchmark}/distilled/{dataset}/{method}/ipc{ipc}/seed{seed}.safetensors",
        "results/{benchmark}/distilled/{dataset}/{method}/ipc{ipc}/seed{seed}.trace.parquet",
        "results/{benchmark}/distilled/{dataset}/{method}/ipc{ipc}/seed{seed}.png",
    log:
        "results/{benchmark}/logs/distill/{dataset}/{method}/ipc{ipc}/seed{seed}.log",
    params:
        config=workflow_config,
        spec=jobs.distill_spec,
    shell:
        "iadd distill {params.config} --dataset {wildcards.dataset} --method {wildcards.method}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} > {log} 2>&1"
