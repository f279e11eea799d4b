rule evaluate:
    input:
        "results/{benchmark}/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.safetensors",
    output:
        "results/{benchmark}/evaluations/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.parquet",
    log:
        "results/{benchmark}/logs/evaluate/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.log",
    params:
        config=workflow_config,
        tuned=jobs.tuned,
        spec=jobs.evaluation_spec,
    shell:
        "iadd evaluate {params.config} --dataset {wildcards.dataset} --method {wildcards.method}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} {params.tuned} > {log} 2>&1"
