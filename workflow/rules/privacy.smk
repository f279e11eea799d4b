rule yardstick:
    input:
        jobs.about,
        ancient(jobs.train),
    output:
        "results/{benchmark}/privacy/{dataset}/ipc{ipc}.safetensors",
    log:
        "results/{benchmark}/logs/privacy/{dataset}/ipc{ipc}.log",
    resources:
        config=jobs.path,
    params:
        spec=jobs.yardstick_spec,
    shell:
        "iadd privacy {resources.config:q} --dataset {wildcards.dataset:q}"
        " --ipc {wildcards.ipc} > {log:q} 2>&1"


rule privacy:
    input:
        jobs.about,
        ancient(jobs.train),
        jobs.yardstick,
        "results/{benchmark}/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.safetensors",
    output:
        "results/{benchmark}/privacy/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.parquet",
        "results/{benchmark}/privacy/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.png",
    log:
        "results/{benchmark}/logs/privacy/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.log",
    resources:
        config=jobs.path,
    params:
        tuned=jobs.tuned,
        spec=jobs.privacy_spec,
    shell:
        "iadd privacy {resources.config:q} --dataset {wildcards.dataset:q} --method {wildcards.method:q}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} {params.tuned} > {log:q} 2>&1"
