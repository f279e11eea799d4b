rule evaluate:
    input:
        "results/{benchmark}/distilled/{dataset}/{method}/ipc{ipc}/seed{seed}.safetensors",
    output:
        "results/{benchmark}/evaluations/{dataset}/{method}/ipc{ipc}/seed{seed}.parquet",
    log:
        "results/{benchmark}/logs/evaluate/{dataset}/{method}/ipc{ipc}/seed{seed}.log",
    params:
        config=workflow_config,
        spec=jobs.evaluation_spec,
    shell:
        "iadd evaluate {params.config} --dataset {wildcards.dataset} --method {wildcards.method}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} > {log} 2>&1"
